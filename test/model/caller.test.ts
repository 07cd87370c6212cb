/** What a caller may do: change or give away arguments while a call runs, pass values of another realm, try again. */
import { copyFileSync, cpSync, readFileSync, rmSync } from 'node:fs';
import path from 'node:path';
import { runInNewContext } from 'node:vm';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { preprocessImages, Siglip2 } from '../../lib/index.js';
import { attention, Tensor } from '../../lib/kernels/index.js';
import { expectSiglipError } from '../support/errors.js';
import { temporaryFolder } from '../support/folders.js';
import { checkpointFolder, fixtures } from '../support/golden.js';
import { textInput, visionInput } from '../support/inputs.js';

const png = readFileSync(path.join(fixtures, 'images', '13_photo_coffee_240x240.png'));
const options = { maxPatches: 64 };
const grey = (value: number, size = 16) => ({
  data: new Uint8Array(size * size * 3).fill(value),
  width: size,
  height: size,
  channels: 3 as const,
});

/** A copy in a buffer that can shrink; the types of this language version do not know them. */
function resizable(bytes: Uint8Array): ArrayBuffer {
  const Resizable = ArrayBuffer as unknown as new (length: number, options: { maxByteLength: number }) => ArrayBuffer;
  const buffer = new Resizable(bytes.length, { maxByteLength: bytes.length });
  new Uint8Array(buffer).set(bytes);
  return buffer;
}

let model: Siglip2;
beforeAll(async () => {
  model = await Siglip2.load(checkpointFolder('naflex_hd64'), { dtype: 'float32' });
});
afterAll(() => model.dispose());

describe('arguments that change while a call runs', () => {
  it('encoded pictures: overwritten, shrunk or transferred', async () => {
    const expected = (await model.embedImages(png, options)).data;
    const overwritten = Uint8Array.from(png);
    const shrunk = resizable(png);
    const transferred = Uint8Array.from(png).buffer;
    const calls = [overwritten, shrunk, transferred].map((each) => model.embedImages(each, options));
    overwritten.fill(0);
    (shrunk as unknown as { resize(bytes: number): void }).resize(0);
    structuredClone(transferred, { transfer: [transferred] });
    for (const call of calls) expect((await call).data).toEqual(expected);
  });

  it('lists of pictures, texts and labels', async () => {
    const pictures = [10, 20, 30, 40, 50].map((value) => grey(value));
    const texts = ['one', 'two', 'three'];
    const labels = ['cat', 'dog', 'car'];
    const expected = [
      await model.embedImages(pictures, { ...options, batchSize: 2 }),
      await model.embedTexts(texts),
      await model.classify(grey(7), labels, options),
    ];
    const fresh = await Siglip2.load(checkpointFolder('naflex_hd64'), { dtype: 'float32' });
    const calls = [
      fresh.embedImages(pictures, { ...options, batchSize: 2 }),
      fresh.embedTexts(texts),
      fresh.classify(grey(7), labels, options),
    ];
    pictures.length = 1;
    texts.length = 1;
    labels.reverse();
    expect(await Promise.all(calls)).toEqual(expected);
    fresh.dispose();
  });
});

describe('lists', () => {
  it('are checked whole before the first picture is read', async () => {
    const calls: number[] = [];
    const pictures = [...Array.from({ length: 20 }, () => grey(1)), 42 as never];
    await expect(model.embedImages(pictures, { ...options, onProgress: (done) => calls.push(done) })).rejects.toThrow(
      /^images\[20\]: expected .* got 42$/,
    );
    expect(calls).toEqual([]);
  });

  it('with holes are refused, naming the hole', async () => {
    // biome-ignore lint/suspicious/noSparseArray: that is what is tested
    const holes = [, 'cat'] as never[];
    await expect(model.embedImages(holes, options)).rejects.toThrow(/^images\[0\]: expected .* got undefined$/);
    await expect(model.classify(grey(1), holes)).rejects.toThrow(/^labels\[0\]: expected a string, got undefined$/);
    await expect(model.embedTexts(holes)).rejects.toThrow(/^texts\[0\]: expected a string, got undefined$/);
  });
});

it('takes typed arrays of another realm, as a test of Jest is one', async () => {
  const foreign = <T>(code: string, values: Record<string, unknown> = {}): T => runInNewContext(code, values) as T;
  const images = await model.embedImages(grey(3), options);
  const texts = await model.embedTexts('a cat');
  const copy = foreign<Float32Array>('Float32Array.from(values)', { values: images.data });
  expect(copy).not.toBeInstanceOf(Float32Array);
  expect(model.similarity({ ...images, shape: images.shape, data: copy }, texts)).toEqual(
    model.similarity(images, texts),
  );
  const [ids, shape] = textInput(model.config, [1]);
  const output = await model.text.forward(foreign('Int32Array.from(ids)', { ids }), shape);
  expect(output.pooled).toEqual((await model.text.forward(ids, shape)).pooled);
  using tensor = Tensor.from(foreign<Float32Array>('Float32Array.of(1, 2)'), [2]);
  expect([...(await tensor.read())]).toEqual([1, 2]);
});

it('reads the tokenizer again after a failure', async () => {
  const folder = temporaryFolder();
  cpSync(checkpointFolder('naflex_hd64'), folder, { recursive: true });
  rmSync(path.join(folder, 'tokenizer.json'));
  using loaded = await Siglip2.load(folder, { dtype: 'float32' });
  await expectSiglipError(() => loaded.embedTexts('a cat'), 'ERR_SIGLIP_TOKENIZER');
  copyFileSync(path.join(checkpointFolder('naflex_hd64'), 'tokenizer.json'), path.join(folder, 'tokenizer.json'));
  expect((await loaded.embedTexts('a cat')).data).toEqual((await model.embedTexts('a cat')).data);
});

it('refuses to save without the tokenizer when the folder that it was loaded from is gone', async () => {
  const folder = temporaryFolder();
  const source = path.join(folder, 'source');
  cpSync(checkpointFolder('naflex_hd64'), source, { recursive: true });
  using loaded = await Siglip2.load(source, { dtype: 'float32' });
  rmSync(source, { recursive: true });
  await expectSiglipError(() => loaded.save(path.join(folder, 'copy')), 'ERR_SIGLIP_CHECKPOINT', source, 'no longer');
});

it('gives as many hidden states of no rows as of some', async () => {
  const { numHiddenLayers } = model.config.text;
  const length = model.config.text.maxPositionEmbeddings;
  const text = await model.text.forward(new Int32Array(0), [0, length], { hiddenStates: true });
  expect(text.hiddenStates).toHaveLength(numHiddenLayers + 1);
  expect(text.hiddenStates![0]).toEqual({
    data: new Float32Array(0),
    shape: [0, length, model.config.text.hiddenSize],
  });
  const some = await model.vision.forward(visionInput(model.config, [1]), { hiddenStates: true });
  const empty = { patches: new Float32Array(0), mask: new Int32Array(0), spatialShapes: new Int32Array(0) };
  const patchDim = 3 * model.config.vision.patchSize ** 2;
  const none = await model.vision.forward({ ...empty, shape: [0, 16, patchDim] }, { hiddenStates: true });
  expect(none.hiddenStates).toHaveLength(some.hiddenStates!.length);
});

it('passes limits on pictures and patience with the hub on to those who mind them', async () => {
  const url = `data:image/png;base64,${png.toString('base64')}`;
  const tooLarge = 'larger than the 1000 bytes';
  await expectSiglipError(() => model.embedImages(url, { ...options, maxBytes: 1000 }), 'ERR_SIGLIP_IMAGE', tooLarge);
  await expectSiglipError(() => model.denseFeatures(url, { maxBytes: 1000 }), 'ERR_SIGLIP_IMAGE', tooLarge);
  await expectSiglipError(() => model.classify(url, ['cat'], { maxBytes: 1000 }), 'ERR_SIGLIP_IMAGE', tooLarge);
  const { config } = model;
  await expect(preprocessImages(url, { config, timeoutMs: 0 })).rejects.toThrow('options.timeoutMs: expected');
  const retry = { attempts: 0 };
  await expect(Siglip2.load('organisation/name', { retry, offline: true })).rejects.toThrow('options.retry.attempts');
});

it('refuses what is neither true nor false where one of them is expected', async () => {
  const wrong = 1 as unknown as boolean;
  await expect(model.embedTexts('a', { normalize: wrong })).rejects.toThrow(
    'options.normalize: expected true or false, got 1',
  );
  await expect(model.embedImages(grey(1), { ...options, normalize: wrong })).rejects.toThrow('options.normalize');
  await expect(model.vision.forward(visionInput(model.config, [1]), { hiddenStates: wrong })).rejects.toThrow(
    'options.hiddenStates',
  );
  using query = Tensor.from(new Float32Array(8), [1, 1, 8]);
  await expect(attention({ query, key: query, value: query, causal: wrong })).rejects.toThrow(
    'args.causal: expected true or false, got 1',
  );
});
