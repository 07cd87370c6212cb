/** The element type that is chosen when none is named: which, how accurate, and that nothing is lost by it. */
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { resolveDType } from '../../lib/device.js';
import { type DType, defaultModel, type Embeddings, inspect, Siglip2 } from '../../lib/index.js';
import { naflexPatchify } from '../../lib/kernels/index.js';
import { native } from '../../lib/native.js';
import { Trainer } from '../../lib/training/index.js';
import { cosine } from '../support/compare.js';
import { temporaryFolder } from '../support/folders.js';
import { checkpointFolder, checkpointNames, fixtures, parseSafetensors } from '../support/golden.js';
import { textInput, visionInput } from '../support/inputs.js';

/** On a CPU, by instruction set: bfloat16 where it is multiplied, not converted. */
const expectedTypes: Record<string, DType> = {
  baseline: 'float32',
  wide16: 'float32',
  avx2: 'float32',
  avx2vnni: 'float32',
  avx512: 'float32',
  avx512vnni: 'float32',
  avx512bf16: 'bfloat16',
  amx: 'bfloat16',
  amxemulated: 'bfloat16',
};
// Each vitest project names another with SIGLIP2_ISA.
const { instructionSet } = native().describe();
const expectedType = expectedTypes[instructionSet] as DType;

const onCpu = { device: 'cpu' } as const;
/** A checkpoint whose weights are no bfloat16 numbers. */
const exactWeights = checkpointFolder('fixed_p14_hd64');

describe(`without a type, on ${instructionSet}`, () => {
  it(`a model runs in ${expectedType}, as with "auto" and as when that is named`, async () => {
    expect(Object.keys(expectedTypes).sort()).toEqual(
      native()
        .describe()
        .instructionSets.map(({ name }) => name)
        .sort(),
    );
    const results = new Map<DType | 'auto' | undefined, number[]>();
    for (const dtype of [undefined, 'auto', 'float32', 'bfloat16', 'int8'] as const) {
      using model = await Siglip2.load(exactWeights, { ...onCpu, ...(dtype === undefined ? {} : { dtype }) });
      expect(model.dtype).toBe(dtype === undefined || dtype === 'auto' ? expectedType : dtype);
      const images = await model.vision.forward(visionInput(model.config, [1, 2]));
      const texts = await model.text.forward(...textInput(model.config, [1, 2]));
      results.set(dtype, [...images.pooled.data, ...texts.pooled.data]);
    }
    for (const dtype of [undefined, 'auto'] as const) expect(results.get(dtype)).toEqual(results.get(expectedType));
    expect(results.get('bfloat16')).not.toEqual(results.get('float32'));
    expect(results.get('int8')).not.toEqual(results.get('bfloat16'));
  });

  it('is what inspect shows', async () => {
    const { auto } = await inspect();
    expect(auto?.dtype).toBe(auto?.device === 'cpu' ? expectedType : 'bfloat16');
  });

  it('a trainer computes in float32, and patches are float32', async () => {
    using model = await Siglip2.load(exactWeights, onCpu);
    using trainer = await Trainer.create(model, onCpu);
    expect(trainer.model.dtype).toBe('float32');
    const picture = { data: new Uint8Array(48).fill(9), width: 4, height: 4, channels: 3 } as const;
    const { patches } = await naflexPatchify([picture], { patchSize: 2, maxPatches: 4, ...onCpu });
    expect(patches.dtype).toBe('float32');
  });

  it.each([
    ['cuda', 'bfloat16'],
    ['cuda:1', 'bfloat16'],
    ['simt', 'float32'],
    ['reference', 'float32'],
  ])('device %s runs models in %s', (device, dtype) => {
    expect(resolveDType('dtype', undefined, device, 'compute')).toBe(dtype);
    expect(resolveDType('dtype', 'auto', device, 'compute')).toBe(dtype);
  });
});

describe('the weights of a checkpoint', () => {
  const bytesOf = (folder: string) =>
    [...parseSafetensors(readFileSync(path.join(folder, 'model.safetensors'))).tensors]
      .map(([name, { dtype, bytes }]) => [name, dtype, bytes.toString('base64')])
      .sort();

  it('are what a model saves that was loaded without a type', async () => {
    using model = await Siglip2.load(exactWeights, onCpu);
    const folder = temporaryFolder();
    await model.save(folder);
    expect(bytesOf(folder)).toEqual(bytesOf(exactWeights));
  });

  it('are what a trainer of such a model starts from', async () => {
    using model = await Siglip2.load(exactWeights, onCpu);
    using trainer = await Trainer.create(model, onCpu);
    const folder = temporaryFolder();
    await trainer.saveModel(folder);
    expect(bytesOf(folder)).toEqual(bytesOf(exactWeights));
  });
});

describe(`embeddings in the type that is chosen on ${instructionSet}`, () => {
  const pngs = (folder: string) =>
    readdirSync(folder)
      .filter((name) => name.endsWith('.png'))
      .map((name) => path.join(folder, name));
  const drawings = pngs(path.join(fixtures, '../../examples/emoji'));
  const names = drawings.map((file) => path.basename(file, '.png').replaceAll('-', ' '));
  const pictures = [...pngs(path.join(fixtures, 'images')), ...drawings.filter((_, i) => i % 6 === 0)];
  const texts = ['', 'ein Hund', '鳥', 'This is a photo of 7 zebras.', ...names];

  it.each([['the packaged model', defaultModel], ...checkpointNames.map((name) => [name, checkpointFolder(name)])])(
    '%s: have a cosine of at least 0.9995 to those in float32',
    async (_, folder) => {
      using model = await Siglip2.load(folder, onCpu);
      using exact = await Siglip2.load(folder, { ...onCpu, dtype: 'float32' });
      const { architecture, vision } = model.config;
      const options = architecture === 'naflex' ? { maxPatches: vision.numPatches } : {};
      const compare = (actual: Embeddings, expected: Embeddings, of: string[]) => {
        expect(actual.shape[0]).toBe(of.length);
        for (const [row, input] of of.entries())
          expect(cosine(actual.row(row), expected.row(row)), input).toBeGreaterThanOrEqual(0.9995);
      };
      compare(await model.embedImages(pictures, options), await exact.embedImages(pictures, options), pictures);
      compare(await model.embedTexts(texts), await exact.embedTexts(texts), texts);
    },
  );
});
