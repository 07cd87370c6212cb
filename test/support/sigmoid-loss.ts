/** Batches for tests of the sigmoid loss, and what a device has to agree on with the reference. */
import { expect } from 'vitest';
import { type PositivePairs, sigmoidLoss, type Tensor } from '../../lib/kernels/index.js';
import { relativeError } from './compare.js';
import { type ActivationType, bfloat16Rounding, draw, Place } from './devices.js';
import type { Random } from './random.js';
import { unitRows } from './unit-rows.js';

export interface LossBatch {
  /** Images. */
  n: number;
  /** Texts. */
  m: number;
  width: number;
  images: Float32Array;
  texts: Float32Array;
  logitScale: number;
  logitBias: number;
  /** When absent text i belongs to image i. */
  positives?: PositivePairs;
}
export interface LossOutcome {
  loss: number;
  gradImages: Float32Array;
  gradTexts: Float32Array;
  gradLogitScale: number;
  gradLogitBias: number;
}

/** A batch of n images and their n texts. */
export function batchOf(seed: number, n: number, width: number, logitScale = Math.log(10), logitBias = -10): LossBatch {
  const random = draw(seed);
  const rows = () => unitRows(n, width, () => random.next() - 0.5);
  return { n, m: n, width, images: rows(), texts: rows(), logitScale, logitBias };
}

/** Lists of the pairs for which `belongs` is true. */
export function listsOf(n: number, m: number, belongs: (image: number, text: number) => boolean): PositivePairs {
  const offsets = [0];
  const texts: number[] = [];
  for (let image = 0; image < n; image++) {
    for (let text = 0; text < m; text++) if (belongs(image, text)) texts.push(text);
    offsets.push(texts.length);
  }
  return { offsets: Int32Array.from(offsets), texts: Int32Array.from(texts) };
}

/** Lists with about this share of all pairs; others in every run. */
export function drawnLists(random: Random, n: number, m: number, share: number): PositivePairs {
  return listsOf(n, m, () => random.next() < share);
}

/** n images and m texts with lists of the pairs that belong together. */
export function listedBatch(
  seed: number,
  [n, m, width]: [n: number, m: number, width: number],
  positives: PositivePairs,
  logitScale = Math.log(10),
  logitBias = -10,
): LossBatch {
  const random = draw(seed);
  const rows = (count: number) => unitRows(count, width, () => random.next() - 0.5);
  return { n, m, width, images: rows(n), texts: rows(m), logitScale, logitBias, positives };
}

export function argumentsOf({ n, m, width, images, texts, positives, ...rest }: LossBatch, place: Place) {
  return {
    images: place.activation(images, [n, width]),
    texts: place.activation(texts, [m, width]),
    logitScale: rest.logitScale,
    logitBias: rest.logitBias,
    ...(positives === undefined ? {} : { positives }),
  };
}

export async function run(batch: LossBatch, place: Place, threads?: number): Promise<LossOutcome> {
  const result = await sigmoidLoss({
    ...argumentsOf(batch, place),
    gradients: true,
    ...(threads === undefined ? {} : { threads }),
  });
  return {
    loss: result.loss,
    gradImages: await (result.gradImages as Tensor).read(),
    gradTexts: await (result.gradTexts as Tensor).read(),
    gradLogitScale: result.gradLogitScale as number,
    gradLogitBias: result.gradLogitBias as number,
  };
}

/** 1 for pairs that belong together, else −1: [n, m]. */
export function labelsOf({ n, m, positives }: Pick<LossBatch, 'n' | 'm' | 'positives'>): Int8Array {
  const labels = new Int8Array(n * m).fill(-1);
  for (let i = 0; i < n; i++) {
    const listed = positives?.texts.subarray(positives.offsets[i], positives.offsets[i + 1]) ?? [i];
    for (const text of listed) labels[i * m + text] = 1;
  }
  return labels;
}

/**
 * The sums of absolute values of what the gradients add up: those of scale and bias, and the largest of an image or a
 * text, for elements of the size that they have in rows of unit length; and of what size the latter are where their
 * terms have any sign. Parts of both signs cancel, above all where the bias is large, and rounding is relative to their
 * size.
 */
function absoluteParts(batch: LossBatch) {
  const { n, m, width, images, texts, logitScale, logitBias } = batch;
  const scale = Math.exp(logitScale);
  const labels = labelsOf(batch);
  const parts = { scale: 0, bias: 0, row: 0, signedImage: 0, signedText: 0 };
  const [rows, columns] = [new Float64Array(n), new Float64Array(m)];
  for (let i = 0; i < n; i++)
    for (let j = 0; j < m; j++) {
      let [product, size] = [0, 0];
      for (let d = 0; d < width; d++) {
        const part = (images[i * width + d] as number) * (texts[j * width + d] as number);
        product += part;
        size += Math.abs(part);
      }
      const slope = 1 / (1 + Math.exp((labels[i * m + j] as number) * (scale * product + logitBias))) / n;
      parts.scale += slope * scale * size;
      parts.bias += slope;
      rows[i] = (rows[i] as number) + slope;
      columns[j] = (columns[j] as number) + slope;
    }
  const largest = (sums: Float64Array) => (sums.reduce((a, b) => Math.max(a, b), 0) * scale) / Math.sqrt(width);
  parts.row = Math.max(largest(rows), largest(columns));
  parts.signedImage = largest(rows) / Math.sqrt(m);
  parts.signedText = largest(columns) / Math.sqrt(n);
  return parts;
}

/** Requires what the contract promises for logits of moderate size. */
export async function expectAgreement(
  batch: LossBatch,
  tolerance = 2e-6,
  dtype: ActivationType = 'float32',
): Promise<void> {
  const expected = await run(batch, Place.reference(dtype));
  const actual = await run(batch, Place.tested(dtype));
  const parts = absoluteParts(batch);
  let product = tolerance;
  // With lists there may be few texts or images, and so few sums of which all may cancel.
  let terms = batch.positives === undefined ? [0, 0] : [parts.signedImage, parts.signedText];
  if (dtype === 'bfloat16') {
    // The slopes of the logits are rounded before their products with images and texts. Roundings of slopes that are all
    // alike are relative to the sum, others to what a sum of terms of any sign comes to.
    product += 2 * bfloat16Rounding;
    if (batch.positives === undefined) terms = [parts.row / Math.sqrt(batch.n), parts.row / Math.sqrt(batch.n)];
  }
  if (batch.width === 1) {
    // Rows are 1 or −1, so slopes have two values: their roundings, and those of sums of up to 64, are all alike.
    product += Math.min(Math.max(batch.n, batch.m), 64) * 2 ** -25;
    terms = [parts.row, parts.row];
  }
  const context = `${batch.n} × ${batch.m}, width ${batch.width}, scale ${batch.logitScale}, bias ${batch.logitBias}`;
  expect(Math.abs(actual.loss / expected.loss - 1), context).toBeLessThan(tolerance);
  expect(relativeError(actual.gradImages, expected.gradImages, terms[0]), context).toBeLessThan(product);
  expect(relativeError(actual.gradTexts, expected.gradTexts, terms[1]), context).toBeLessThan(product);
  for (const [value, reference, part] of [
    [actual.gradLogitScale, expected.gradLogitScale, parts.scale],
    [actual.gradLogitBias, expected.gradLogitBias, parts.bias],
  ] as const)
    expect(Math.abs(value - reference) / part, context).toBeLessThan(tolerance);
}
