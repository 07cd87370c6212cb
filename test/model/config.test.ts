import { describe, expect, it } from 'vitest';
import { checkConfig, configLimits, parseConfig, readConfig, type Siglip2Config } from '../../lib/model/config.js';
import { expectSiglipError } from '../support/errors.js';
import { temporaryFolder } from '../support/folders.js';
import { checkpointFolder, checkpointNames } from '../support/golden.js';
import { releasedModels } from '../support/released-models.js';

const siglip = { model_type: 'siglip' };
const siglip2 = { model_type: 'siglip2' };
const parse = (json: unknown, preprocessor?: unknown): Siglip2Config =>
  parseConfig(json, 'config.json', preprocessor === undefined ? undefined : { json: preprocessor, where: 'pre.json' });

describe('parseConfig', () => {
  it('fills in the defaults of the fixed-resolution classes', () => {
    const encoder = {
      hiddenSize: 768,
      numHiddenLayers: 12,
      numAttentionHeads: 12,
      intermediateSize: 3072,
      layerNormEps: 1e-6,
      hiddenAct: 'gelu_pytorch_tanh',
    };
    const expected = {
      architecture: 'fixed',
      vision: { ...encoder, patchSize: 16, numChannels: 3, useHead: true, imageSize: 224, numPatches: 196 },
      text: { ...encoder, vocabSize: 32000, maxPositionEmbeddings: 64, projectionSize: 768 },
      preprocessing: {
        imageMean: [0.5, 0.5, 0.5],
        imageStd: [0.5, 0.5, 0.5],
        rescaleFactor: 0.00392156862745098,
        resample: 'bilinear',
        size: { height: 224, width: 224 },
      },
      json: { config: siglip },
    };
    expect(parse(siglip)).toEqual(expected);
    const nulls = { ...siglip, text_config: null, vision_config: { hidden_size: null, vision_use_head: null } };
    expect({ ...parse(nulls), json: { config: siglip } }).toEqual(expected);
  });

  it('fills in the defaults of the NaFlex classes', () => {
    const { vision, preprocessing } = parse(siglip2);
    expect(vision).toMatchObject({ numPatches: 256, patchSize: 16 });
    expect(vision.imageSize).toBeUndefined();
    expect(preprocessing).toMatchObject({ resample: 'bilinear', maxNumPatches: 256, patchSize: 16 });
    expect(preprocessing.size).toBeUndefined();
  });

  it.each(releasedModels)('accepts $name', ({ name, config: json, numPatches }) => {
    const config = parseConfig(json, name);
    expect(config.vision.numPatches).toBe(numPatches);
    expect(config.text.projectionSize).toBe(config.vision.hiddenSize);
    expect(() => checkConfig(config)).not.toThrow();
  });

  it('ignores dropout and the stale special token ids', () => {
    const text = { attention_dropout: 'x', pad_token_id: 1, bos_token_id: 49406, eos_token_id: [49407] };
    expect(parse({ ...siglip, text_config: text }).text).toEqual(parse(siglip).text);
  });

  it('knows a model by its class when model_type is absent', () => {
    expect(parse({ architectures: ['Siglip2Model'] }).architecture).toBe('naflex');
  });

  it.each(['gelu_pytorch_tanh', 'gelu_python_tanh', 'gelu_new', 'gelu_fast', 'gelu_accurate'])(
    'takes %s for the same function',
    (name) => expect(parse({ ...siglip, text_config: { hidden_act: name } }).text.hiddenAct).toBe('gelu_pytorch_tanh'),
  );

  it.each(['clip', 'llava', 'siglip_text_model', 'siglip_vision_model', 'constructor', '__proto__'])(
    'refuses model_type %s and lists what is supported',
    async (name) => {
      await expectSiglipError(
        () => parse({ model_type: name }),
        'ERR_SIGLIP_CONFIG',
        `"${name}"`,
        '"siglip"',
        '"siglip2"',
      );
    },
  );

  const vision = (vision_config: unknown) => ({ ...siglip, vision_config });
  const text = (text_config: unknown) => ({ ...siglip, text_config });
  it.each<[string, unknown, string[]]>([
    ['an array', [], ['config.json', 'an array of 0']],
    ['null', null, ['config.json', 'null']],
    ['a file without a model', {}, ['model_type', 'missing']],
    ['a number for model_type', { model_type: 3 }, ['model_type', '3']],
    ['a section that is no object', text('x'), ['text_config', '"x"']],
    ['a width of 0', text({ hidden_size: 0 }), ['text_config.hidden_size', 'from 1 to 65536', 'got 0']],
    ['a negative width', text({ hidden_size: -768 }), ['text_config.hidden_size', '-768']],
    ['a fractional width', text({ hidden_size: 768.5 }), ['text_config.hidden_size', '768.5']],
    ['a width in quotes', text({ hidden_size: '768' }), ['text_config.hidden_size', '"768"']],
    ['an infinite width', text({ hidden_size: Number.POSITIVE_INFINITY }), ['text_config.hidden_size', 'Infinity']],
    ['an enormous width', text({ hidden_size: 65537 }), ['text_config.hidden_size', '65537']],
    ['too many layers', vision({ num_hidden_layers: 1e6 }), ['vision_config.num_hidden_layers', '1024']],
    ['an enormous vocabulary', text({ vocab_size: 1e12 }), ['text_config.vocab_size']],
    ['an epsilon of 0', text({ layer_norm_eps: 0 }), ['text_config.layer_norm_eps', 'above 0']],
    ['an epsilon that is no number', text({ layer_norm_eps: [] }), ['text_config.layer_norm_eps']],
    ['another activation', vision({ hidden_act: 'gelu' }), ['vision_config.hidden_act', 'gelu_pytorch_tanh', '"gelu"']],
    ['quick_gelu', text({ hidden_act: 'quick_gelu' }), ['text_config.hidden_act']],
    ['four channels', vision({ num_channels: 4 }), ['vision_config.num_channels', '3']],
    ['oblong pictures', vision({ image_size: [224, 384] }), ['vision_config.image_size', '[224,384]']],
    ['a head flag in quotes', vision({ vision_use_head: 'no' }), ['vision_config.vision_use_head', 'true or false']],
  ])('refuses %s', async (_, json, parts) => {
    await expectSiglipError(() => parse(json), 'ERR_SIGLIP_CONFIG', ...parts);
  });

  it('accepts pairs of equal sizes', () => {
    expect(parse(vision({ image_size: [256, 256], patch_size: [16, 16] })).vision).toMatchObject({ numPatches: 256 });
  });
});

describe('preprocessing', () => {
  it('reads the numbers of the file', () => {
    const preprocessor = {
      resample: 3,
      image_mean: [0.1, 0.2, 0.3],
      image_std: 0.25,
      rescale_factor: 0.5,
      size: { height: 384, width: 384 },
    };
    expect(parse(siglip, preprocessor).preprocessing).toEqual({
      imageMean: [0.1, 0.2, 0.3],
      imageStd: [0.25, 0.25, 0.25],
      rescaleFactor: 0.5,
      resample: 'bicubic',
      size: { height: 384, width: 384 },
    });
  });

  it('takes a number as a square size and the model’s size when there is none', () => {
    const large = { ...siglip, vision_config: { image_size: 384 } };
    expect(parse(large, { size: 256 }).preprocessing.size).toEqual({ height: 256, width: 256 });
    expect(parse(large, { size: null }).preprocessing.size).toEqual({ height: 384, width: 384 });
    expect(parse(large).preprocessing.size).toEqual({ height: 384, width: 384 });
  });

  it('takes the image processor’s default for an absent resample key', () => {
    expect(parse(siglip, {}).preprocessing.resample).toBe('bicubic');
    expect(parse(siglip, { resample: null }).preprocessing.resample).toBe('bicubic');
    expect(parse(siglip2, {}).preprocessing.resample).toBe('bilinear');
  });

  it('expresses skipped steps as numbers that change nothing', () => {
    const { preprocessing } = parse(siglip, { do_rescale: false, do_normalize: false });
    expect(preprocessing).toMatchObject({ rescaleFactor: 1, imageMean: [0, 0, 0], imageStd: [1, 1, 1] });
  });

  it.each<[unknown, string[]]>([
    [{ resample: 0 }, ['resample 0 (nearest)', 'bilinear', 'bicubic']],
    [{ resample: 1 }, ['resample 1 (lanczos)']],
    [{ resample: 4 }, ['resample 4 (box)']],
    [{ resample: 5 }, ['resample 5 (hamming)']],
    [{ do_resize: false }, ['do_resize']],
    [{ do_center_crop: true }, ['do_center_crop']],
    [{ size: { shortest_edge: 224 } }, ['size', 'shortest_edge']],
    [{ size: {} }, ['size']],
  ])('has no support for %j', async (preprocessor, parts) => {
    await expectSiglipError(() => parse(siglip, preprocessor), 'ERR_SIGLIP_UNSUPPORTED', 'pre.json', ...parts);
  });

  it.each<[unknown, string]>([
    [[], 'pre.json'],
    [{ resample: 6 }, 'resample'],
    [{ resample: 2.5 }, 'resample'],
    [{ resample: 'bilinear' }, 'resample'],
    [{ image_mean: [0.5, 0.5] }, 'image_mean'],
    [{ image_mean: [0.5, 0.5, null] }, 'image_mean'],
    [{ image_std: [0.5, 0, 0.5] }, 'image_std'],
    [{ image_std: Number.POSITIVE_INFINITY }, 'image_std'],
    [{ rescale_factor: 0 }, 'rescale_factor'],
    [{ size: { height: 224, width: -1 } }, 'size.width'],
    [{ size: [224, 225] }, 'size'],
    [{ size: 1e9 }, 'size'],
    [{ do_normalize: 1 }, 'do_normalize'],
  ])('refuses %j', async (preprocessor, field) => {
    await expectSiglipError(() => parse(siglip, preprocessor), 'ERR_SIGLIP_CONFIG', 'pre.json', field);
  });

  it('bounds the NaFlex settings', async () => {
    await expectSiglipError(() => parse(siglip2, { max_num_patches: 0 }), 'ERR_SIGLIP_CONFIG', 'max_num_patches');
    await expectSiglipError(() => parse(siglip2, { max_num_patches: 1e9 }), 'ERR_SIGLIP_CONFIG', 'max_num_patches');
  });
});

describe('readConfig', () => {
  it.each(checkpointNames)('reads %s', async (name) => {
    const config = await readConfig(checkpointFolder(name));
    expect(config.architecture).toBe(name.startsWith('naflex') ? 'naflex' : 'fixed');
    expect(config.text.vocabSize).toBe(512);
    expect(config.preprocessing).toMatchObject(
      config.architecture === 'naflex' ? { maxNumPatches: 64 } : { size: { height: 64, width: 64 } },
    );
    expect(() => checkConfig(config)).not.toThrow();
  });

  it('prefers the settings nested in processor_config.json, as transformers 5 saves them', async () => {
    const folder = temporaryFolder({
      'config.json': siglip,
      'preprocessor_config.json': { resample: 3 },
      'processor_config.json': { image_processor: { resample: 2 }, processor_class: 'SiglipProcessor' },
    });
    expect((await readConfig(folder)).preprocessing.resample).toBe('bilinear');
    const plain = temporaryFolder({
      'config.json': siglip,
      'preprocessor_config.json': { resample: 3 },
      'processor_config.json': { processor_class: 'SiglipProcessor' },
    });
    expect((await readConfig(plain)).preprocessing.resample).toBe('bicubic');
  });

  it('names a missing config.json, and the place where a file is broken', async () => {
    const empty = temporaryFolder();
    await expectSiglipError(() => readConfig(empty), 'ERR_SIGLIP_CONFIG', empty, 'config.json');
    await expectSiglipError(() => readConfig(`${empty}/absent`), 'ERR_SIGLIP_CONFIG', 'config.json');
    const broken = temporaryFolder({ 'config.json': '\uFEFF{"model_type": "siglip",\n  }' });
    await expectSiglipError(() => readConfig(broken), 'ERR_SIGLIP_CONFIG', 'config.json', 'line 2, column 3');
    const preprocessor = temporaryFolder({ 'config.json': siglip, 'preprocessor_config.json': '{' });
    await expectSiglipError(
      () => readConfig(preprocessor),
      'ERR_SIGLIP_CONFIG',
      'preprocessor_config.json',
      'end of text',
    );
  });
});

describe('checkConfig', () => {
  const config = parse(siglip);
  const flexible = parse(siglip2);
  it.each<[Siglip2Config, string]>([
    [{ ...config, text: { ...config.text, numAttentionHeads: 7 } }, 'text.numAttentionHeads'],
    [{ ...config, vision: { ...config.vision, numAttentionHeads: 2 } }, 'vision.numAttentionHeads'],
    [{ ...config, vision: { ...config.vision, numHiddenLayers: 1e9 } }, 'vision.numHiddenLayers'],
    [{ ...config, vision: { ...config.vision, numChannels: 1 } }, 'vision.numChannels'],
    [{ ...config, text: { ...config.text, vocabSize: Number.NaN } }, 'text.vocabSize'],
    [{ ...config, text: { ...config.text, projectionSize: 512 } }, 'text.projectionSize'],
    [{ ...config, vision: { ...config.vision, imageSize: 256 } }, 'vision.imageSize'],
    [parse({ ...siglip, vision_config: { image_size: 8 } }), 'vision.imageSize'],
    [
      { ...config, preprocessing: { ...config.preprocessing, size: { height: 224, width: 256 } } },
      'preprocessing.size',
    ],
    [{ ...flexible, vision: { ...flexible.vision, numPatches: 250 } }, 'vision.numPatches'],
    [{ ...flexible, preprocessing: { ...flexible.preprocessing, patchSize: 14 } }, 'preprocessing.patchSize'],
  ])('refuses settings that do not fit each other (%#)', async (broken, field) => {
    await expectSiglipError(() => checkConfig(broken), 'ERR_SIGLIP_CONFIG', field);
  });

  it('accepts a resize target that the patches do not divide', () => {
    const json = { ...siglip, vision_config: { image_size: 378, patch_size: 14 } };
    expect(() => checkConfig(parse(json, { size: 384 }))).not.toThrow();
    expect(configLimits.headDim).toBeGreaterThanOrEqual(96);
  });
});
