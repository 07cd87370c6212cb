/** The sigmoid loss against float64 values of PyTorch, saturated and degenerate batches among them. */
import { describe, expect, it } from 'vitest';
import { sigmoidLoss, Tensor } from '../../lib/kernels/index.js';
import { relativeError } from '../support/compare.js';
import { testDevice } from '../support/devices.js';
import { hash, normalish, readFixtureJson, readGolden, type StoredTensor } from '../support/golden.js';
import { unitRows } from '../support/unit-rows.js';

interface LossCase {
  B: number;
  d: number;
  logit_scale: number;
  logit_bias: number;
  kind: 'plain' | 'duplicates' | 'aligned' | 'opposed';
  seed_x: number;
  seed_y: number;
  loss: number;
  dlogit_scale: number;
  dlogit_bias: number;
  dx_norm: number;
  dy_norm: number;
  stored_rows: number;
}

function embeddings({ B, d, kind, seed_x, seed_y }: LossCase): { images: Float32Array; texts: Float32Array } {
  const images = unitRows(B, d, (index) => normalish(hash(index, seed_x)));
  if (kind === 'aligned') return { images, texts: images };
  if (kind === 'opposed') return { images, texts: images.map((value) => -value) };
  if (kind === 'plain') return { images, texts: unitRows(B, d, (index) => normalish(hash(index, seed_y))) };
  for (let row = 1; row < B; row += 2) images.copyWithin(row * d, (row - 1) * d, row * d);
  const texts = new Float32Array(B * d);
  texts.set(images.subarray(0, (B - 1) * d), d);
  texts.set(images.subarray((B - 1) * d));
  return { images, texts };
}

function sums(values: Float32Array, width: number): { rows: Float64Array; columns: Float64Array } {
  const rows = new Float64Array(values.length / width);
  const columns = new Float64Array(width);
  values.forEach((value, index) => {
    rows[Math.floor(index / width)] = (rows[Math.floor(index / width)] as number) + value;
    columns[index % width] = (columns[index % width] as number) + value;
  });
  return { rows, columns };
}

const cases = readFixtureJson<LossCase[]>('loss/loss.json');
const { tensors } = readGolden('loss/loss.safetensors');

/** On the device under test logits have the last digits of float32, up to 3000 here; the reference has those of its results. */
describe.each([
  [testDevice, 1e-6, 1e-6],
  ['reference', 1e-13, 1e-7],
] as const)('sigmoid loss on %s', (device, scalarTolerance, tensorTolerance) => {
  it.each(cases.map((entry, index) => ({ index, ...entry })))('case $index: $kind, $B × $d', async (entry) => {
    const { B, d, index } = entry;
    const { images, texts } = embeddings(entry);
    const result = await sigmoidLoss({
      images: Tensor.from(images, [B, d], { device }),
      texts: Tensor.from(texts, [B, d], { device }),
      logitScale: entry.logit_scale,
      logitBias: entry.logit_bias,
      gradients: true,
    });
    expect(relativeError([result.loss], [entry.loss])).toBeLessThan(scalarTolerance);
    expect(relativeError([result.gradLogitScale as number], [entry.dlogit_scale])).toBeLessThan(scalarTolerance);
    expect(relativeError([result.gradLogitBias as number], [entry.dlogit_bias])).toBeLessThan(scalarTolerance);

    for (const [name, tensor, norm] of [
      ['dx', result.gradImages, entry.dx_norm],
      ['dy', result.gradTexts, entry.dy_norm],
    ] as const) {
      const values = await (tensor as Tensor).read();
      expect(values.length).toBe(B * d);
      const stored = (part: string): StoredTensor => tensors.get(`${index}.${name}_${part}`) as StoredTensor;
      // The widest case has no rows of the texts' gradient.
      if (!(index === 5 && name === 'dy'))
        expect(relativeError(values.subarray(0, entry.stored_rows * d), stored('rows').values)).toBeLessThan(
          tensorTolerance,
        );
      // The stored sums are rounded to float32 themselves.
      const expectSums = (actual: Float64Array, expected: Float64Array): void => {
        expect(actual.length).toBe(expected.length);
        expected.forEach((sum, at) => {
          const difference = Math.abs((actual[at] as number) - sum);
          expect(difference).toBeLessThan(tensorTolerance * norm + 2 ** -24 * Math.abs(sum));
        });
      };
      const { rows, columns } = sums(values, d);
      expectSums(rows, stored('rowsum').values);
      expectSums(columns, stored('colsum').values);
      expect(Math.abs(Math.hypot(...values) / norm - 1)).toBeLessThan(tensorTolerance);
    }
  });
});
