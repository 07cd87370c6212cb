/** Training on batches with lists of the texts that belong to each image. */
import { describe, expect, it } from 'vitest';
import type { TensorData } from '../../lib/index.js';
import type { PositivePairs, Trainer, TrainerOptions, TrainingBatch } from '../../lib/training/index.js';
import { draw, emulated, testDevice, vendorProducts } from '../support/devices.js';
import { expectSiglipError } from '../support/errors.js';
import { textInput, visionInput } from '../support/inputs.js';
import { drawnLists, labelsOf, listsOf } from '../support/sigmoid-loss.js';
import { tinyTrainer } from '../support/training.js';

const range = (first: number, count: number): number[] => Array.from({ length: count }, (_, i) => first + i);

/** Images and texts by their seeds; images of a seed have one shape, whatever the batch. */
function batchOf(trainer: Trainer, images: number[], texts: number[], positives?: PositivePairs): TrainingBatch {
  const { config } = trainer.model;
  const shapes: [number, number][] = [
    [2, 3],
    [4, 4],
    [1, 5],
  ];
  const grids = images.map((seed) => shapes[seed % shapes.length] as [number, number]);
  const [inputIds, shape] = textInput(
    config,
    texts.map((seed) => 100 + seed),
  );
  return {
    images: visionInput(config, images, grids),
    texts: { inputIds, shape },
    ...(positives === undefined ? {} : { positives }),
  };
}

type Gradients = Map<string, TensorData>;

/** Biases of keys do nothing, so their gradients are rounding errors alone. */
function namesOf(gradients: Gradients): string[] {
  return [...gradients.keys()].filter((name) => !name.endsWith('k_proj.bias'));
}

const norm = (values: ArrayLike<number>): number =>
  Math.sqrt(Array.from(values).reduce((sum, value) => sum + value * value, 0));

/**
 * Requires that Σ factor · gradients is 0 for every parameter, but for rounding: relative to the norms of the terms.
 */
function expectNothing(terms: [factor: number, gradients: Gradients][], bound: number): void {
  const [, first] = terms[0] as [number, Gradients];
  for (const name of namesOf(first)) {
    const sum = new Float64Array((first.get(name) as TensorData).data.length);
    let size = 0;
    for (const [factor, gradients] of terms) {
      const { data } = gradients.get(name) as TensorData;
      size += Math.abs(factor) * norm(data);
      data.forEach((value, i) => {
        sum[i] = (sum[i] as number) + factor * value;
      });
    }
    expect(size, name).toBeGreaterThan(0);
    expect(norm(sum) / size, name).toBeLessThan(bound);
  }
}

/** A tensor's rows. */
function rowsOf({ data, shape }: TensorData): Float32Array[] {
  const width = shape[shape.length - 1] as number;
  return range(0, data.length / width).map((i) => data.subarray(i * width, (i + 1) * width));
}

/**
 * Loss and gradients in double precision, of the embeddings that the model has: those of scale and bias, and those of
 * the last bias of each tower, which is added to every embedding. With the sizes that errors are relative to: of scale
 * and bias the sum of their terms' sizes, since the terms may all but cancel.
 */
async function expectedOf(trainer: Trainer, batch: TrainingBatch) {
  const { model } = trainer;
  const images = rowsOf((await model.vision.forward(batch.images as never)).pooled);
  const { inputIds, shape } = batch.texts as { inputIds: Int32Array; shape: [number, number] };
  const texts = rowsOf((await model.text.forward(inputIds, shape)).pooled);
  const [n, m, width] = [images.length, texts.length, (images[0] as Float32Array).length];
  const labels = labelsOf({ n, m, positives: batch.positives as PositivePairs });
  const unit = (row: Float32Array): Float64Array => Float64Array.from(row, (value) => value / norm(row));
  const [unitImages, unitTexts] = [images.map(unit), texts.map(unit)];
  const [gradImages, gradTexts] = [images, texts].map((rows) => rows.map(() => new Float64Array(width)));
  const scale = Math.exp(model.logitScale);
  let [loss, gradScale, gradBias] = [0, 0, 0];
  const terms = { scale: 0, bias: 0 };
  for (const [i, x] of unitImages.entries())
    for (const [j, y] of unitTexts.entries()) {
      const products = x.map((value, d) => value * (y[d] as number));
      const product = products.reduce((sum, value) => sum + value, 0);
      const label = labels[i * m + j] as number;
      const wrong = -label * (scale * product + model.logitBias);
      loss += (Math.max(wrong, 0) + Math.log1p(Math.exp(-Math.abs(wrong)))) / n;
      const slope = -label / (1 + Math.exp(-wrong)) / n;
      gradScale += slope * scale * product;
      gradBias += slope;
      // The order of cuBLASLt's sums is its own: what it leaves of a product that all but cancels is relative to what was summed.
      const size = vendorProducts ? products.reduce((sum, value) => sum + Math.abs(value), 0) : Math.abs(product);
      terms.scale += Math.abs(slope * scale) * size;
      terms.bias += Math.abs(slope);
      for (let d = 0; d < width; d++) {
        (gradImages as Float64Array[])[i]![d]! += slope * scale * (y[d] as number);
        (gradTexts as Float64Array[])[j]![d]! += slope * scale * (x[d] as number);
      }
    }
  /** Through the normalisation of rows, added up over them. */
  const added = (grads: Float64Array[], units: Float64Array[], rows: Float32Array[]): Float64Array =>
    new Float64Array(width).map((_, d) =>
      grads.reduce((sum, grad, row) => {
        const u = units[row] as Float64Array;
        const along = grad.reduce((total, value, k) => total + value * (u[k] as number), 0);
        return sum + ((grad[d] as number) - along * (u[d] as number)) / norm(rows[row] as Float32Array);
      }, 0),
    );
  const [gradVision, gradText] = [
    added(gradImages as Float64Array[], unitImages, images),
    added(gradTexts as Float64Array[], unitTexts, texts),
  ];
  const gradients = new Map<string, { values: ArrayLike<number>; size: number }>([
    ['logit_scale', { values: [gradScale], size: terms.scale }],
    ['logit_bias', { values: [gradBias], size: terms.bias }],
    ['vision_model.head.mlp.fc2.bias', { values: gradVision, size: norm(gradVision) }],
    ['text_model.head.bias', { values: gradText, size: norm(gradText) }],
  ]);
  return { loss, gradients };
}

const plans: TrainerOptions[] = emulated
  ? [{ microBatchSize: 2 }]
  : [{}, { microBatchSize: 1 }, { microBatchSize: 2, checkpointing: true }, { microBatches: 3 }];

describe('a batch with lists of positives', () => {
  it.each(plans)('has the loss and gradients of the formula with %o', async (options) => {
    const random = draw(31);
    using trainer = await tinyTrainer({ device: testDevice, ...options });
    const shapes: [number, number][] = emulated
      ? [[3, 7]]
      : [
          [5, 12],
          [7, 4],
          [3, 1],
          [random.integer(3, 9), random.integer(1, 15)],
        ];
    for (const [n, m] of shapes) {
      const batch = batchOf(trainer, range(0, n), range(0, m), drawnLists(random, n, m, 0.3));
      const expected = await expectedOf(trainer, batch);
      const { loss, gradients } = await trainer.gradients(batch);
      expect(Math.abs(loss / expected.loss - 1)).toBeLessThan(vendorProducts ? 1e-5 : 1e-6);
      for (const [name, { values, size }] of expected.gradients) {
        const { data } = gradients.get(name) as TensorData;
        const difference = norm(Array.from(data, (value, i) => value - (values[i] as number)));
        expect(difference / size, `${name} of ${n} × ${m}`).toBeLessThan(1e-5);
      }
    }
  });

  it.each(plans)('has the gradients of batches without lists that it is made of with %o', async (options) => {
    using trainer = await tinyTrainer({ device: testDevice, ...options });
    const plain = async (images: number[], texts: number[]) => trainer.gradients(batchOf(trainer, images, texts));
    const [few, many] = emulated ? [2, 4] : [3, 6];
    // Twice as many texts: of every image the i-th and the (n + i)-th. The loss is divided by the images in both.
    const moreTexts = await trainer.gradients(
      batchOf(
        trainer,
        range(0, few),
        range(0, many),
        listsOf(few, many, (i, j) => j % few === i),
      ),
    );
    const [first, second] = [
      await plain(range(0, few), range(0, few)),
      await plain(range(0, few), range(few, few)),
    ] as const;
    expect(Math.abs(moreTexts.loss / (first.loss + second.loss) - 1)).toBeLessThan(1e-6);
    expectNothing(
      [
        [1, moreTexts.gradients],
        [-1, first.gradients],
        [-1, second.gradients],
      ],
      1e-5,
    );
    // Twice as many images, two of each text.
    const moreImages = await trainer.gradients(
      batchOf(
        trainer,
        range(0, many),
        range(0, few),
        listsOf(many, few, (i, j) => i % few === j),
      ),
    );
    const third = await plain(range(few, few), range(0, few));
    expect(Math.abs((2 * moreImages.loss) / (first.loss + third.loss) - 1)).toBeLessThan(1e-6);
    expectNothing(
      [
        [2, moreImages.gradients],
        [-1, first.gradients],
        [-1, third.gradients],
      ],
      1e-5,
    );
  });

  it.skipIf(emulated)('gives the same bits for the diagonal as without lists', async () => {
    using trainer = await tinyTrainer({ device: testDevice, microBatchSize: 3 });
    const plain = await trainer.gradients(batchOf(trainer, range(0, 7), range(0, 7)));
    const listed = await trainer.gradients(
      batchOf(
        trainer,
        range(0, 7),
        range(0, 7),
        listsOf(7, 7, (i, j) => i === j),
      ),
    );
    expect(listed).toEqual(plain);
  });
});

describe.skipIf(emulated)('a step with lists of positives', () => {
  it('lowers the loss, counts images, and gives the same bits for any number of threads', async () => {
    const positives = listsOf(6, 15, (i, j) => j % 6 === i || j === 14);
    const losses = async (threads: number): Promise<number[]> => {
      using trainer = await tinyTrainer({ optimizer: { learningRate: 3e-3 }, microBatches: 2, threads });
      const batch = batchOf(trainer, range(0, 6), range(0, 15), positives);
      const found: number[] = [];
      for (let step = 0; step < 20; step++) {
        const started = performance.now();
        const metrics = await trainer.step(batch);
        // 6 images in no more than the time of the call.
        expect(metrics.examplesPerSecond).toBeGreaterThan(6000 / (performance.now() - started));
        expect(metrics.updated).toBe(true);
        found.push(metrics.loss);
      }
      return found;
    };
    const once = await losses(1);
    expect(once[19] as number).toBeLessThan((once[0] as number) / 2);
    expect(await losses(2)).toEqual(once);
  });

  it('takes pictures and texts', async () => {
    using trainer = await tinyTrainer();
    const picture = (value: number) =>
      ({ data: new Uint8Array(48 * 60 * 3).fill(value), width: 48, height: 60, channels: 3 }) as const;
    const metrics = await trainer.step({
      images: [picture(30), picture(200)],
      texts: ['a dark field', 'a bright tower', 'a plain colour'],
      positives: listsOf(2, 3, (i, j) => j === i || j === 2),
      maxPatches: 64,
    });
    expect(metrics.updated).toBe(true);
  });

  it('has its memory planned', async () => {
    using trainer = await tinyTrainer();
    const bytes = async (texts?: number) =>
      (await trainer.memory({ examples: 8, maxPatches: 16, ...(texts === undefined ? {} : { texts }) }))
        .activationBytes;
    const [one, same, many, more] = [await bytes(1), await bytes(8), await bytes(64), await bytes(120)];
    expect(await bytes()).toBe(same);
    expect(one).toBeLessThan(same);
    // 56 texts more take several times what 7 take. Beside them there are images and, on a GPU, scratch memory of products.
    expect(many - same).toBeGreaterThan(4 * (same - one));
    // 56 texts take what 56 texts take.
    expect((more - many) / (many - same)).toBeCloseTo(1, 1);
    // In micro-batches of one image there are eight texts.
    using cut = await tinyTrainer({ microBatchSize: 1 });
    expect((await cut.memory({ examples: 8, maxPatches: 16, texts: 64 })).activationBytes).toBeLessThanOrEqual(same);
    await expect(trainer.memory({ examples: 8, texts: 0 })).rejects.toThrow(/batch\.texts: expected an integer from 1/);
  });
});

describe.skipIf(emulated)('mistakes in lists of positives', () => {
  const lists = (offsets: number[], texts: number[]) => ({
    offsets: Int32Array.from(offsets),
    texts: Int32Array.from(texts),
  });

  it('are coded errors that leave the trainer usable', async () => {
    using trainer = await tinyTrainer();
    const step = (positives: unknown, texts = 3) =>
      trainer.step(batchOf(trainer, range(0, 2), range(0, texts), positives as PositivePairs));
    for (const [positives, ...words] of [
      [lists([0, 1], [0]), 'batch.positives.offsets', '3 entries', 'got 2'],
      [lists([0, 2, 1], [0]), 'batch.positives.offsets', 'entry 2 to be at least 2, got 1'],
      [lists([0, 1, 2], [0]), 'batch.positives.offsets', '1 texts in the lists, got 2'],
      [lists([0, 1, 2], [0, 3]), 'batch.positives.texts', 'from 0 to 2', 'got 3 at entry 1'],
      [lists([0, 2, 2], [1, 1]), 'batch.positives.texts', 'image 0 to ascend'],
    ] as [PositivePairs, ...string[]][])
      await expectSiglipError(() => step(positives), 'ERR_SIGLIP_SHAPE', ...words);
    await expectSiglipError(() => step(lists([0, 0, 0], []), 0), 'ERR_SIGLIP_SHAPE', 'at least one text, got none');
    await expectSiglipError(() => step(undefined), 'ERR_SIGLIP_SHAPE', '2 images and 3 texts');
    await expect(step({ offsets: [0, 0, 0], texts: [] })).rejects.toThrow(/batch\.positives\.texts: expected an Int32/);
    // Changed between the call and the step: the native core looks at what it has got before anything else.
    const changed = lists([0, 1, 2], [0, 1]);
    const running = step(changed);
    changed.texts[1] = 7;
    await expectSiglipError(() => running, 'ERR_SIGLIP_SHAPE', 'batch: entry 1 of positives.texts', '0 to 2, got 7');
    expect(trainer.stepsTaken).toBe(0);
    expect((await step(lists([0, 0, 1], [2]))).updated).toBe(true);
  });
});
