import { describe, expect, it } from 'vitest';
import { openCheckpointFiles, tensorShapes } from '../../lib/model/checkpoint-files.js';
import { checkConfig, parseConfig, readConfig, type Siglip2Config } from '../../lib/model/config.js';
import type { JsonObject } from '../../lib/model/json.js';
import { parameterShapes } from '../../lib/model/parameter-shapes.js';
import { configToJson, reconcileConfig } from '../../lib/model/reconcile-config.js';
import { expectSiglipError } from '../support/errors.js';
import { checkpointFolder, checkpointNames } from '../support/golden.js';
import { releasedModels } from '../support/released-models.js';

const heads = { num_attention_heads: 16 };
const parse = (json: JsonObject, preprocessor?: unknown): Siglip2Config =>
  parseConfig(json, 'config.json', preprocessor === undefined ? undefined : { json: preprocessor, where: 'pre.json' });
const shapesOf = (json: JsonObject): Map<string, number[]> => parameterShapes(parse(json));
const withoutJson = ({ json: _, ...config }: Siglip2Config) => config;
const released = (name: string): JsonObject => releasedModels.find((model) => model.name === name)!.config;

describe('reconcileConfig', () => {
  it.each(checkpointNames)('has nothing to change in %s', async (name) => {
    const folder = checkpointFolder(name);
    const config = await readConfig(folder);
    const reconciled = reconcileConfig(config, tensorShapes(await openCheckpointFiles(folder)));
    expect(reconciled).toEqual({ config, differences: [] });
  });

  it.each(releasedModels)('finds the sizes of $name from its tensors', ({ config: json }) => {
    const bare = { model_type: json.model_type, text_config: heads, vision_config: heads };
    const actual = parse({
      ...json,
      text_config: { ...(json.text_config as JsonObject), ...heads },
      vision_config: { ...(json.vision_config as JsonObject), ...heads },
    });
    const { config, differences } = reconcileConfig(parse(bare), parameterShapes(actual));
    const expected = withoutJson(actual);
    const imageSize =
      expected.vision.imageSize === undefined
        ? undefined
        : Math.sqrt(expected.vision.numPatches) * expected.vision.patchSize;
    expect(config.text).toEqual(expected.text);
    expect(config.vision).toEqual({ ...expected.vision, ...(imageSize === undefined ? {} : { imageSize }) });
    expect(config.preprocessing.size?.height).toBe(imageSize);
    expect(differences.join()).toContain('text.vocabSize is 256000 by the tensors, 32000 by the configuration');
  });

  it('keeps a stated picture size that patches do not divide, from either file', () => {
    const shapes = shapesOf(released('so400m-patch14-384'));
    expect(reconcileConfig(parse(released('so400m-patch14-384')), shapes).config.vision.imageSize).toBe(384);
    const bare = { model_type: 'siglip', text_config: heads, vision_config: heads };
    const { config } = reconcileConfig(parse(bare, { size: 384, resample: 2 }), shapes);
    expect(config.vision).toMatchObject({ imageSize: 384, numPatches: 729, patchSize: 14 });
    expect(config.preprocessing).toMatchObject({ size: { height: 384, width: 384 }, resample: 'bilinear' });
  });

  it('follows the patch embedding when the architecture is misnamed', () => {
    const naflex = { ...released('base-patch16-naflex'), model_type: 'siglip' };
    const { config, differences } = reconcileConfig(parse(naflex), shapesOf(released('base-patch16-naflex')));
    expect(withoutJson(config)).toEqual(withoutJson(parse(released('base-patch16-naflex'))));
    expect(differences).toEqual([
      "the configuration says 'fixed' but the patch embedding has the shape of 'naflex'",
      'vision.numPatches is 256 by the tensors, 196 by the configuration',
    ]);
    const fixed = { ...released('base-patch16-384'), model_type: 'siglip2' };
    const back = reconcileConfig(parse(fixed), shapesOf(released('base-patch16-384'))).config;
    expect(withoutJson(back)).toEqual(withoutJson(parse(released('base-patch16-384'))));
  });

  it('follows the tensors when the stated patch is larger than the stated picture', () => {
    const stale = { model_type: 'siglip', vision_config: { patch_size: 256, image_size: 64 } };
    const { config } = reconcileConfig(
      parse(stale),
      shapesOf({ model_type: 'siglip', vision_config: { image_size: 64 } }),
    );
    expect(config.vision).toMatchObject({ patchSize: 16, imageSize: 64, numPatches: 16 });
  });

  it('follows the depth and the widths of the tensors', () => {
    const tower = { hidden_size: 8, intermediate_size: 6, num_hidden_layers: 3, num_attention_heads: 2 };
    const json = (change: JsonObject) => ({
      model_type: 'siglip',
      text_config: { ...tower, ...change, projection_size: 8 },
      vision_config: tower,
    });
    const shapes = shapesOf(json({ num_hidden_layers: 2, intermediate_size: 10, max_position_embeddings: 32 }));
    const { config } = reconcileConfig(parse(json({})), shapes);
    expect(config.text).toMatchObject({ numHiddenLayers: 2, intermediateSize: 10, maxPositionEmbeddings: 32 });
    expect(config.vision.numHiddenLayers).toBe(3);
  });

  it.each<[string, (shapes: Map<string, number[]>) => void, JsonObject, string[]]>([
    [
      'heads that do not divide the width',
      () => undefined,
      { num_attention_heads: 7 },
      ['numAttentionHeads', '768', '7'],
    ],
    ['heads that are too wide', () => undefined, { num_attention_heads: 2 }, ['numAttentionHeads', '256']],
    [
      'heads that are left out for another width',
      (shapes) => shapes.set('text_model.embeddings.token_embedding.weight', [10, 1152]),
      {},
      ['text_config.num_attention_heads', 'missing', '1152'],
    ],
    [
      'embeddings of two widths',
      (shapes) => shapes.set('text_model.head.weight', [512, 768]),
      {},
      ['text.projectionSize', '768', '512'],
    ],
    [
      'a position table that is no grid',
      (shapes) => shapes.set('vision_model.embeddings.position_embedding.weight', [200, 768]),
      {},
      ['vision.imageSize', '200'],
    ],
    [
      'a layer number beyond all models',
      (shapes) => shapes.set('text_model.encoder.layers.999999999.layer_norm1.bias', [1]),
      {},
      ['text.numHiddenLayers', '1000000000'],
    ],
    [
      'patches of no pixels',
      (shapes) => shapes.set('vision_model.embeddings.patch_embedding.weight', [768, 3, 0, 0]),
      {},
      ['vision.patchSize', 'got 0'],
    ],
  ])('refuses %s', async (_, change, text, parts) => {
    const shapes = shapesOf({ model_type: 'siglip' });
    change(shapes);
    const config = parse({ model_type: 'siglip', text_config: text });
    await expectSiglipError(
      () => reconcileConfig(config, shapes, 'my/config.json'),
      'ERR_SIGLIP_CONFIG',
      'my/config.json',
      ...parts,
    );
  });
});

describe('configToJson', () => {
  it('returns the files it came from, unchanged', async () => {
    for (const name of checkpointNames) {
      const config = await readConfig(checkpointFolder(name));
      expect(configToJson(config)).toEqual(config.json);
    }
  });

  it.each(releasedModels)('survives a round trip of $name without files', ({ config: json, name }) => {
    const config = withoutJson(parse(json));
    const saved = configToJson(config);
    expect(withoutJson(parseConfig(saved.config, name, { json: saved.preprocessor, where: 'p' }))).toEqual(config);
  });

  it('writes what was reconciled, and keeps what it does not know', () => {
    const actual = released('giant-opt-patch16-256');
    const bare = { model_type: 'siglip2', note: 'kept', text_config: heads, vision_config: { ...heads, note: 'kept' } };
    const { config } = reconcileConfig(parse(bare), shapesOf(actual));
    const saved = configToJson(config).config;
    expect(saved).toMatchObject({ note: 'kept', model_type: 'siglip', vision_config: { note: 'kept' } });
    expect(parse(saved).text).toEqual(config.text);
    expect(parse(saved).vision).toEqual(config.vision);
    expect(parse(saved).text.projectionSize).toBe(1536);
  });

  it('states a projection that the new text width would otherwise imply', () => {
    const config = parse({ model_type: 'siglip', text_config: { projection_size: 768 } });
    const wider = { ...config, json: { config: { model_type: 'siglip' } }, text: { ...config.text, hiddenSize: 1152 } };
    expect(() => checkConfig(wider)).not.toThrow();
    expect(parse(configToJson(wider).config).text).toMatchObject({ hiddenSize: 1152, projectionSize: 768 });
  });
});
