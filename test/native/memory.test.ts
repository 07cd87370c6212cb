/** Requests that cannot fit are refused before they start, and harm nothing. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Siglip2, type SiglipError, sizeConfig } from '../../lib/index.js';
import { attention, linear, positionEmbedding, Tensor } from '../../lib/kernels/index.js';
import { loadModel } from '../../lib/model/load.js';
import { native } from '../../lib/native.js';
import { Trainer, type TrainerOptions } from '../../lib/training/index.js';
import { expectSiglipError } from '../support/errors.js';
import { checkpointFolder } from '../support/golden.js';
import { visionInput } from '../support/inputs.js';

let model: Siglip2;
beforeAll(async () => {
  model = await Siglip2.load(checkpointFolder('naflex_hd64'));
});
afterAll(() => model.dispose());

/** Requires the details, and that refusing took no time that the work, or filling memory, would have taken. */
async function expectRefusal(action: () => Promise<unknown>): Promise<SiglipError> {
  const before = process.memoryUsage().rss;
  const started = performance.now();
  const error = await expectSiglipError(action, 'ERR_SIGLIP_OUT_OF_MEMORY', 'bytes are needed', 'are free');
  expect(performance.now() - started).toBeLessThan(5000);
  expect(process.memoryUsage().rss - before).toBeLessThan(300e6);
  const { requestedBytes, freeBytes } = error.details as { requestedBytes: number; freeBytes: number };
  expect(freeBytes).toBeGreaterThan(0);
  expect(requestedBytes).toBeGreaterThan(freeBytes);
  expect(freeBytes).toBeLessThanOrEqual(native().describe().availableMemory * 2);
  return error;
}

describe('kernels', () => {
  it('refuse an output of 10^12 elements, and go on working', async () => {
    const input = Tensor.from(new Float32Array(1e6), [1e6, 1]);
    const error = await expectRefusal(() => linear({ input, weight: input }));
    expect(error.details?.requestedBytes).toBe(4e12);

    const table = Tensor.from(new Float32Array(512), [1, 1, 512]);
    await expectRefusal(() => positionEmbedding({ table, spatialShapes: Int32Array.of(40_000, 50_000) }));

    const query = Tensor.from(Float32Array.of(1, 2), [1, 1, 2]);
    const { output } = await attention({ query, key: query, value: query });
    expect(await output.read()).toEqual(Float32Array.of(1, 2));
  });

  it('count sizes whose product no integer holds', async () => {
    const input = Tensor.from(new Float32Array(0), [0, 5]);
    const table = Tensor.from(new Float32Array(8), [1, 1, 8]);
    // 4 · (2^31 − 1)² tokens are more than 64 bits hold.
    const spatialShapes = new Int32Array(8).fill(2 ** 31 - 1);
    await expectSiglipError(() => positionEmbedding({ table, spatialShapes }), 'ERR_SIGLIP_SHAPE', 'spatialShapes');
    await expectSiglipError(
      () => Promise.resolve(native().createTensor('cpu', 'float32', [0, 2 ** 31, 2], new Float32Array(0))),
      'ERR_SIGLIP_SHAPE',
    );
    input.dispose();
  });
});

describe('a forward pass', () => {
  it('whose activations cannot fit is refused, and the next one runs', async () => {
    const small = visionInput(model.config, [1]);
    const expected = await model.vision.forward(small);
    const picture = { data: new Uint8Array(30_000), width: 100, height: 100, channels: 3 as const };
    // Images are enlarged at most a hundredfold: 625 × 625 patches each.
    const pictures = new Array(512).fill(picture);
    await expectRefusal(() => model.embedImages(pictures, { maxPatches: 1_000_000, batchSize: 512 }));
    expect(await model.vision.forward(small)).toEqual(expected);
  });

  it('whose results cannot fit is refused', async () => {
    const { model: handle, weights, config } = await loadModel(checkpointFolder('naflex_hd64'), {});
    const { hiddenSize, numHiddenLayers } = config.vision;
    const addon = native();
    const side = 10_000;
    const picture = { data: new Uint8Array(30_000), width: 100, height: 100, channels: 3 };
    const images = {
      images: new Array(256).fill(picture),
      targetSizes: new Int32Array(512).fill(side),
      mean: [0.5, 0.5, 0.5],
      deviation: [0.5, 0.5, 0.5],
      rescale: 1 / 255,
      mode: 'pil',
      filter: 'bilinear',
    } as const;
    const options = { pooled: false, normalize: false, lastHiddenState: true, hiddenStates: true, layer: -1 };
    const error = await expectRefusal(() =>
      addon.visionForward(handle, { kind: 'images', ...images }, options, addon.createCancelToken()),
    );
    const state = 256 * (side / 16) ** 2 * hiddenSize * 4;
    // The embeddings, every layer, and the last hidden state; in the core and in JavaScript.
    expect(error.details?.requestedBytes).toBe(2 * (numHiddenLayers + 2) * state);
    addon.release(handle);
    addon.release(weights.checkpoint!);
  });
});

describe('a training', () => {
  // The largest token table there may be, beside which the rest of B is little.
  const config = sizeConfig({ size: 'B', vocabSize: 16_777_216 });
  const elements = config.text.vocabSize * config.text.hiddenSize;
  const bytesOfElement = async (options: TrainerOptions): Promise<number> => {
    const error = await expectRefusal(() => Trainer.create(config, { device: 'cpu', ...options }));
    return (error.details?.requestedBytes as number) / elements;
  };

  // Where 200 GB are free, nothing is refused.
  it.skipIf(native().describe().availableMemory > 5e10)(
    'needs value and moments of its token table, whose gradient is sparse, and no packed copy',
    async () => {
      const cases: [TrainerOptions, number][] = [
        [{}, 12],
        [{ ema: { decay: 0.99 } }, 16],
        [{ frozen: ['text_model'] }, 4],
      ];
      for (const [options, bytes] of cases) {
        const actual = await bytesOfElement(options);
        expect(actual).toBeGreaterThan(bytes);
        expect(actual).toBeLessThan(bytes + 0.5);
      }
    },
  );
});
