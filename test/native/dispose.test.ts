/** Models and tensors after, and during, their disposal. */
import { cpSync, readFileSync, utimesSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { Siglip2 } from '../../lib/index.js';
import { attention, gelu, Tensor } from '../../lib/kernels/index.js';
import { expectSiglipError } from '../support/errors.js';
import { temporaryFolder } from '../support/folders.js';
import { checkpointFolder } from '../support/golden.js';
import { randomPixels, textInput, visionInput } from '../support/inputs.js';

const folder = checkpointFolder('naflex_hd64');
const raw = { data: new Uint8Array(64 * 64 * 3).fill(90), width: 64, height: 64, channels: 3 as const };

describe('a disposed model', () => {
  const calls: [string, (model: Siglip2) => unknown][] = [
    ['embedImages', (model) => model.embedImages(raw)],
    ['embedImages of no images', (model) => model.embedImages([])],
    ['embedTexts', (model) => model.embedTexts('a cat')],
    ['denseFeatures', (model) => model.denseFeatures(raw)],
    ['classify', (model) => model.classify(raw, ['cat'])],
    ['similarity', (model) => similarityOfNothing(model)],
    ['vision.forward', (model) => model.vision.forward(visionInput(model.config, [1]))],
    ['text.forward', (model) => model.text.forward(...textInput(model.config, [1]))],
    ['save', (model) => model.save(`${temporaryFolder()}/saved`)],
  ];
  it.each(calls)('refuses %s', async (_, call) => {
    const model = await Siglip2.load(folder);
    model.dispose();
    await expectSiglipError(() => call(model), 'ERR_SIGLIP_DISPOSED', 'disposed');
  });

  it('may be disposed again, and still describes itself', async () => {
    const model = await Siglip2.load(folder, { dtype: 'float32' });
    model.dispose();
    model.dispose();
    model[Symbol.dispose]();
    expect([model.device, model.dtype, model.config.architecture]).toEqual(['cpu', 'float32', 'naflex']);
  });

  it('is disposed at the end of `using`', async () => {
    let kept: Siglip2;
    {
      using model = await Siglip2.load(folder);
      kept = model;
    }
    await expectSiglipError(() => kept.embedTexts('a'), 'ERR_SIGLIP_DISPOSED');
  });
});

function similarityOfNothing(model: Siglip2) {
  const none = { data: new Float32Array(0), shape: [0, 0] as [number, number], row: () => new Float32Array(0) };
  return model.similarity(none, none);
}

describe('disposal during work', () => {
  it('lets calls in the native core finish', async () => {
    const model = await Siglip2.load(folder);
    const input = visionInput(model.config, [1, 2], [[8, 8]]);
    const texts = textInput(model.config, [1, 2]);
    const before = await model.vision.forward(input);
    const running = [1, 2, 3].map(() => model.vision.forward(input));
    const text = model.text.forward(...texts);
    model.dispose();
    for (const { pooled } of await Promise.all(running)) expect(pooled.data).toEqual(before.pooled.data);
    expect((await text).pooled.shape[0]).toBe(2);
  });

  it('ends a call of several batches with ERR_SIGLIP_DISPOSED', async () => {
    for (const embed of [
      (model: Siglip2, onProgress: () => void) => model.embedImages([raw, raw, raw], { batchSize: 1, onProgress }),
      (model: Siglip2, onProgress: () => void) => model.embedTexts(['a', 'b', 'c'], { batchSize: 1, onProgress }),
    ]) {
      const model = await Siglip2.load(folder);
      await expectSiglipError(() => embed(model, () => model.dispose()), 'ERR_SIGLIP_DISPOSED');
    }
  });

  it('lets a running kernel read its tensors', async () => {
    const values = randomPixels(512 * 4 * 16, 1);
    const expected = await (await attentionOf(Tensor.from(values, [512, 4, 16]))).read();
    const tensor = Tensor.from(values, [512, 4, 16]);
    const running = [1, 2, 3].map(() => attentionOf(tensor));
    tensor.dispose();
    for (const output of await Promise.all(running)) {
      const reading = output.read();
      output.dispose();
      expect(await reading).toEqual(expected);
    }
  });
});

async function attentionOf(tensor: Tensor): Promise<Tensor> {
  return (await attention({ query: tensor, key: tensor, value: tensor })).output;
}

it('refuses a disposed tensor everywhere', async () => {
  let kept: Tensor;
  {
    using tensor = Tensor.from(new Float32Array(4), [2, 2]);
    kept = tensor;
  }
  kept.dispose();
  expect([kept.shape, kept.dtype, kept.device]).toEqual([[2, 2], 'float32', 'cpu']);
  await expectSiglipError(() => kept.read(), 'ERR_SIGLIP_DISPOSED', 'tensor');
  await expectSiglipError(() => gelu({ input: kept }), 'ERR_SIGLIP_DISPOSED', 'tensor');
});

it('two models on the same files share weights, and one survives the other', async () => {
  const copy = `${temporaryFolder()}/model`;
  cpSync(folder, copy, { recursive: true });
  const weights = path.join(copy, 'model.safetensors');
  const modified = new Date(1_700_000_000_000);
  utimesSync(weights, modified, modified);
  const first = await Siglip2.load(copy, { towers: ['vision'] });
  const input = visionInput(first.config, [5]);
  const expected = await first.vision.forward(input);

  // Other weights in a file that cannot be told from the first: only who reads it again notices.
  const bytes = readFileSync(weights);
  bytes.fill(0, bytes.length / 2);
  writeFileSync(weights, bytes);
  utimesSync(weights, modified, modified);
  // The type that it has by itself, named.
  const second = await Siglip2.load(copy, { towers: ['vision'], dtype: first.dtype });
  first.dispose();
  expect(await second.vision.forward(input)).toEqual(expected);

  second.dispose();
  // Nobody holds the weights any more, once the handles have been given up.
  using third = await Siglip2.load(copy, { towers: ['vision'] });
  expect(await third.vision.forward(input)).not.toEqual(expected);
});
