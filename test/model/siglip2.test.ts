/** The public model API on tiny checkpoints. */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { preprocessImages, Siglip2, SiglipError, Tokenizer } from '../../lib/index.js';
import { largestDifference } from '../support/compare.js';
import { checkpointFolder, fixtures, parseSafetensors, readFixtureJson } from '../support/golden.js';

interface ZeroShot {
  texts: string[];
  input_ids: number[][];
  images: string[];
  pil: { logits_per_image: number[][]; probabilities: number[][] };
}

const picture = (name: string) => path.join(fixtures, 'images', name);
const coffee = picture('13_photo_coffee_240x240.png');
const chelsea = picture('12_photo_chelsea_300x240.png');

const folder = mkdtempSync(path.join(tmpdir(), 'siglip2-model-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function codeOf(work: Promise<unknown>): Promise<string> {
  const error = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(SiglipError);
  return (error as SiglipError).code;
}

describe.each(['fixed_p16_hd32', 'naflex_hd64'] as const)('%s, from files and texts', (name) => {
  const golden = readFixtureJson<Record<string, ZeroShot>>('endtoend/zero_shot.json')[name] as ZeroShot;
  const imageOptions = name.startsWith('naflex') ? { maxPatches: 64 } : {};

  it('gives the zero-shot probabilities of the reference', async () => {
    using model = await Siglip2.load(checkpointFolder(name), { dtype: 'float32' });
    const images = await model.embedImages(golden.images.map(picture), imageOptions);
    const texts = await model.embedTexts(golden.texts);
    const { logits, probabilities, shape } = model.similarity(images, texts);
    expect(shape).toEqual([golden.images.length, golden.texts.length]);
    expect(largestDifference(probabilities, golden.pil.probabilities.flat())).toBeLessThan(1e-4);
    expect(largestDifference(logits, golden.pil.logits_per_image.flat())).toBeLessThan(2e-4);
  });

  it('gives the token ids of the reference', async () => {
    const tokenizer = await Tokenizer.load(checkpointFolder(name));
    const { inputIds, shape } = tokenizer.encode(golden.texts);
    expect(shape).toEqual([golden.texts.length, 64]);
    expect([...inputIds]).toEqual(golden.input_ids.flat());
  });
});

describe('a NaFlex model', () => {
  let model: Siglip2;
  beforeAll(async () => {
    model = await Siglip2.load(pathToFileURL(`${checkpointFolder('naflex_hd64')}/`), { dtype: 'float32' });
  });
  afterAll(() => model.dispose());

  it('describes itself', () => {
    expect(model.config.architecture).toBe('naflex');
    expect(model.config.vision.hiddenSize).toBe(128);
    expect(model.device).toBe('cpu');
    expect(model.dtype).toBe('float32');
    expect(Math.exp(model.logitScale)).toBeGreaterThan(50);
    expect(model.logitBias).toBeLessThan(0);
  });

  it('gives the same embedding alone, in a batch, in any batch size, and through preprocessImages', async () => {
    const list = [coffee, chelsea, picture('02_rgb_17x31.png')];
    const together = await model.embedImages(list, { normalize: false });
    for (const batchSize of [1, 2])
      expect((await model.embedImages(list, { normalize: false, batchSize })).data).toEqual(together.data);
    const alone = await model.embedImages(chelsea, { normalize: false });
    expect(alone.shape).toEqual([1, 128]);
    expect(alone.row(0)).toEqual(together.row(1));
    const input = await preprocessImages(list, { config: model.config });
    const { pooled } = await model.vision.forward(input);
    expect(pooled.data).toEqual(together.data);
  });

  it('normalises unless told not to', async () => {
    const norm = (row: Float32Array) => Math.hypot(...row);
    expect(norm((await model.embedImages(coffee)).row(0))).toBeCloseTo(1, 6);
    expect(norm((await model.embedImages(coffee, { normalize: false })).row(0))).toBeGreaterThan(1.5);
    expect(norm((await model.embedTexts('coffee')).row(0))).toBeCloseTo(1, 6);
    expect(norm((await model.embedTexts('coffee', { normalize: false })).row(0))).toBeGreaterThan(1.5);
  });

  it('gives dense features in the grid of the picture', async () => {
    const [wide] = await model.denseFeatures([chelsea], { maxPatches: 64 });
    expect(wide?.shape).toEqual([7, 9, 128]);
    const input = await preprocessImages(chelsea, { config: model.config, maxPatches: 64 });
    const output = await model.vision.forward(input, { hiddenStates: true });
    const rows = 7 * 9 * 128;
    expect(wide?.data).toEqual(output.lastHiddenState.data.slice(0, rows));
    const [embeddings] = await model.denseFeatures([chelsea], { maxPatches: 64, layer: 0 });
    expect(embeddings?.data).toEqual(output.hiddenStates?.[0]?.data.slice(0, rows));
    const [layer] = await model.denseFeatures([chelsea], { maxPatches: 64, layer: 1 });
    expect(layer?.data).toEqual(output.hiddenStates?.[1]?.data.slice(0, rows));
    await expect(model.denseFeatures(chelsea, { layer: 2 })).rejects.toThrow(/options\.layer/);
  });

  it('classifies: sorted, with the prompt filled in, averaged over prompts', async () => {
    const labels = ['cat', 'cup of coffee', 'mountain $& {}'];
    const result = await model.classify(coffee, labels);
    expect(result.map((entry) => entry.label).sort()).toEqual([...labels].sort());
    for (const [i, { logit, probability }] of result.entries()) {
      expect(probability).toBeCloseTo(1 / (1 + Math.exp(-logit)), 6);
      if (i > 0) expect(logit).toBeLessThanOrEqual(result[i - 1]?.logit as number);
    }
    const texts = await model.embedTexts(labels.map((label) => `This is a photo of ${label}.`));
    const { logits } = model.similarity(await model.embedImages(coffee), texts);
    for (const { label, logit } of result) expect(logit).toBe(logits[labels.indexOf(label)]);
    const single = await model.classify(coffee, labels, { template: 'a {}' });
    const twice = await model.classify(coffee, labels, { template: ['a {}', 'a {}'] });
    twice.forEach((entry, i) => {
      expect(entry.label).toBe(single[i]?.label);
      expect(entry.logit).toBeCloseTo(single[i]?.logit as number, 4);
    });
    expect(await model.classify(coffee, [])).toEqual([]);
  });

  it('reports progress', async () => {
    const seen: [number, number][] = [];
    const onProgress = (done: number, total: number) => seen.push([done, total]);
    await model.embedImages([coffee, chelsea, coffee], { batchSize: 2, onProgress });
    await model.embedTexts(['a', 'b', 'c'], { batchSize: 1, onProgress });
    expect(seen).toEqual([
      [2, 3],
      [3, 3],
      [1, 3],
      [2, 3],
      [3, 3],
    ]);
  });

  it('answers empty lists with empty results', async () => {
    const images = await model.embedImages([]);
    const texts = await model.embedTexts([]);
    expect(images.shape).toEqual([0, 128]);
    expect(texts.shape).toEqual([0, 128]);
    expect(model.similarity(images, texts).shape).toEqual([0, 0]);
    expect(await model.denseFeatures([])).toEqual([]);
    expect((await model.text.forward(new Int32Array(0), [0, 64])).pooled.shape).toEqual([0, 128]);
  });

  it('names what is wrong with a call', async () => {
    await expect(model.embedImages(7 as never)).rejects.toThrow(TypeError);
    await expect(model.embedImages([coffee, 7 as never])).rejects.toThrow(/images\[1\]/);
    await expect(model.embedImages([coffee, chelsea, 'missing.png'], { batchSize: 2 })).rejects.toThrow(/missing\.png/);
    await expect(model.embedImages(coffee, { maxPatches: 0 })).rejects.toThrow(/options\.maxPatches/);
    await expect(model.embedImages(coffee, { maxPatch: 5 } as never)).rejects.toThrow(/maxPatch/);
    await expect(model.embedImages(coffee, { batchSize: 1.5 })).rejects.toThrow(/options\.batchSize/);
    await expect(model.embedTexts(['ok', 3 as never])).rejects.toThrow(/texts\[1\]/);
    await expect(model.classify(coffee, 'cat' as never)).rejects.toThrow(/labels/);
    await expect(model.classify(coffee, ['cat'], { template: 'no place' })).rejects.toThrow(/template/);
    expect(() => model.similarity({ data: [1] } as never, {} as never)).toThrow(/images\.data/);
    const images = await model.embedImages(coffee);
    expect(() => images.row(1)).toThrow(RangeError);
    const narrow = { data: new Float32Array(4), shape: [1, 4] as [number, number], row: () => new Float32Array(4) };
    expect(() => model.similarity(images, narrow)).toThrow(/texts/);
  });

  it('names what is wrong with tensors', async () => {
    const input = await preprocessImages(chelsea, { config: model.config, maxPatches: 64 });
    if (!('patches' in input)) throw new Error('a NaFlex model takes patches');
    const broken: [Partial<typeof input>, RegExp][] = [
      [{ patches: input.patches.subarray(1) }, /input\.shape/],
      [{ mask: input.mask.subarray(1) }, /input\.mask/],
      [{ mask: input.mask.map((value) => 1 - value) }, /input\.mask/],
      [{ spatialShapes: Int32Array.of(9, 9) }, /input\.spatialShapes/],
      [{ spatialShapes: Int32Array.of(-7, -9) }, /input\.spatialShapes/],
      [{ spatialShapes: Int32Array.of(7) }, /input\.spatialShapes/],
      [{ shape: [1, 64, 767] }, /input\.shape/],
      [{ patches: [1] as never }, /input\.patches/],
    ];
    for (const [change, message] of broken)
      await expect(model.vision.forward({ ...input, ...change })).rejects.toThrow(message);
    await expect(model.vision.forward({} as never)).rejects.toThrow(TypeError);
    const ids = new Int32Array(64);
    await expect(model.text.forward(ids, [1, 63])).rejects.toThrow(/shape/);
    await expect(model.text.forward(new Int32Array(65), [1, 65])).rejects.toThrow(/64 tokens/);
    await expect(model.text.forward(ids.fill(512, 3, 4), [1, 64])).rejects.toThrow(/inputIds\[3\]/);
    await expect(model.text.forward([1] as never, [1, 1])).rejects.toThrow(TypeError);
  });

  it('accepts shorter texts at tensor level, as Hugging Face does', async () => {
    const { pooled, lastHiddenState } = await model.text.forward(Int32Array.of(5, 1), [2, 1]);
    expect(pooled.shape).toEqual([2, 128]);
    expect(lastHiddenState.shape).toEqual([2, 1, 128]);
  });
});

describe('loading', () => {
  it('loads one tower and says so when the other is asked for', async () => {
    using vision = await Siglip2.load(checkpointFolder('naflex_hd64'), { towers: ['vision'] });
    expect((await vision.embedImages(coffee)).shape).toEqual([1, 128]);
    expect(await codeOf(vision.embedTexts('a'))).toBe('ERR_SIGLIP_UNSUPPORTED');
    expect(await codeOf(vision.text.forward(new Int32Array(64), [1, 64]))).toBe('ERR_SIGLIP_UNSUPPORTED');
    using text = await Siglip2.load(checkpointFolder('naflex_hd64'), { towers: ['text'] });
    expect((await text.embedTexts('a')).shape).toEqual([1, 128]);
    expect(await codeOf(text.embedImages(coffee))).toBe('ERR_SIGLIP_UNSUPPORTED');
  });

  it('names what is wrong with its options', async () => {
    const source = checkpointFolder('naflex_hd64');
    await expect(Siglip2.load(source, { towers: [] })).rejects.toThrow(/options\.towers/);
    await expect(Siglip2.load(source, { device: 'gpu' as never })).rejects.toThrow(/options\.device/);
    expect(await codeOf(Siglip2.load(source, { device: 'cuda' }))).toBe('ERR_SIGLIP_NO_DEVICE');
    expect(await codeOf(Siglip2.load(source, { dtype: 'float16' }))).toBe('ERR_SIGLIP_UNSUPPORTED');
    await expect(Siglip2.load(source, { threads: 0 })).rejects.toThrow(/options\.threads/);
    await expect(Siglip2.load(source, { thread: 1 } as never)).rejects.toThrow(/thread/);
    await expect(Siglip2.load(5 as never)).rejects.toThrow(TypeError);
    expect(await codeOf(Siglip2.load(folder))).toBe('ERR_SIGLIP_CONFIG');
  });

  it('runs a whole model on the double-precision oracle, which the CPU kernels agree with', async () => {
    for (const name of ['naflex_hd72', 'fixed_p16_textproj'] as const) {
      using cpu = await Siglip2.load(checkpointFolder(name), { device: 'cpu', dtype: 'float32' });
      using reference = await Siglip2.load(checkpointFolder(name), { device: 'reference' });
      const images = [await cpu.embedImages(chelsea), await reference.embedImages(chelsea)] as const;
      expect(largestDifference(images[0].data, images[1].data)).toBeLessThan(2e-6);
      const texts = [await cpu.embedTexts('a cup'), await reference.embedTexts('a cup')] as const;
      expect(largestDifference(texts[0].data, texts[1].data)).toBeLessThan(2e-6);
    }
  });

  it('refuses pictures and patch limits that do not fit a model of fixed resolution', async () => {
    using model = await Siglip2.load(checkpointFolder('fixed_p14_hd64'));
    await expect(model.embedImages(coffee, { maxPatches: 64 })).rejects.toThrow(/options\.maxPatches/);
    const pixelValues = new Float32Array(3 * 32 * 32);
    expect(await codeOf(model.vision.forward({ pixelValues, shape: [1, 3, 32, 32] }))).toBe('ERR_SIGLIP_SHAPE');
    expect(await codeOf(model.embedImages(coffee, { maxPixels: 100 }))).toBe('ERR_SIGLIP_IMAGE');
  });
});

describe('saving', () => {
  it.each(['fixed_p14_hd64_bf16', 'naflex_hd64', 'fixed_p14_hd64_bf16_sharded'] as const)(
    'writes %s back with the same bits, and loads what it wrote',
    async (name) => {
      const target = path.join(folder, name);
      using model = await Siglip2.load(checkpointFolder(name));
      await model.save(target);
      const original = readdirSync(checkpointFolder(name))
        .filter((file) => file.endsWith('.safetensors'))
        .flatMap((file) => [...parseSafetensors(readFileSync(path.join(checkpointFolder(name), file))).tensors]);
      const { tensors } = parseSafetensors(readFileSync(path.join(target, 'model.safetensors')));
      expect(tensors.size).toBe(original.length);
      for (const [tensor, { dtype, shape, bytes }] of original) {
        expect(tensors.get(tensor)?.dtype).toBe(dtype);
        expect(tensors.get(tensor)?.shape).toEqual(shape);
        expect(tensors.get(tensor)?.bytes.equals(bytes)).toBe(true);
      }
      using again = await Siglip2.load(target);
      expect((await again.embedImages(chelsea)).data).toEqual((await model.embedImages(chelsea)).data);
      expect((await again.embedTexts('a cup')).data).toEqual((await model.embedTexts('a cup')).data);
    },
  );

  it('rounds to another type and splits into shards when asked to', async () => {
    const target = path.join(folder, 'sharded');
    using model = await Siglip2.load(checkpointFolder('fixed_p14_hd64'));
    await model.save(target, { dtype: 'bfloat16', maxShardBytes: 100_000 });
    expect(readdirSync(target).filter((file) => /^model-\d+-of-\d+/.test(file)).length).toBeGreaterThan(2);
    using saved = await Siglip2.load(target);
    using rounded = await Siglip2.load(checkpointFolder('fixed_p14_hd64_bf16'));
    expect((await saved.embedImages(chelsea)).data).toEqual((await rounded.embedImages(chelsea)).data);
  });

  it('names what is wrong with its arguments, and writes nothing then', async () => {
    using model = await Siglip2.load(checkpointFolder('naflex_hd64'));
    const target = path.join(folder, 'nothing');
    await expect(model.save(target, { dtype: 'int8' })).rejects.toThrow(/options\.dtype/);
    await expect(model.save(target, { maxShardBytes: 0 })).rejects.toThrow(/options\.maxShardBytes/);
    await expect(model.save(5 as never)).rejects.toThrow(TypeError);
    expect(readdirSync(folder)).not.toContain('nothing');
  });
});
