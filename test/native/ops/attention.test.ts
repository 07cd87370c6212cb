/** Attention against the double-precision reference. */
import { describe, expect, it } from 'vitest';
import { attention } from '../../../lib/kernels/index.js';
import { type AttentionShape, attentionShapes, prefix, same } from '../../support/attention-shapes.js';
import { relativeError } from '../../support/compare.js';
import {
  type ActivationType,
  activationTypes,
  bfloat16Rounding,
  draw,
  emulated,
  Place,
  shapesFor,
  testDevice,
  threadCounts,
} from '../../support/devices.js';

interface Case extends AttentionShape {
  scale?: number;
  /** Magnitude of the random values. */
  size?: number;
  /** Takes the magnitudes of `value`. */
  positive?: boolean;
}

async function run(place: Place, seed: number, entry: Case, threads?: number, productDtype?: ActivationType) {
  const random = draw(seed);
  const { heads, headDim, queries, keys, size = 1 } = entry;
  const values = (rows: number) => random.floats(rows * heads * headDim, size);
  const tensor = (rows: number, data = values(rows)) => place.activation(data, [rows, heads, headDim]);
  const [queryOffsets, keyOffsets] = [prefix(queries), prefix(keys)];
  const query = tensor(queryOffsets[queries.length] as number);
  const key = tensor(keyOffsets[keys.length] as number);
  const rows = keyOffsets[keys.length] as number;
  const signed = values(rows);
  const value = tensor(rows, entry.positive ? signed.map(Math.abs) : signed);
  const { output, logSumExp } = await attention({
    query,
    key,
    value,
    queryOffsets,
    keyOffsets,
    ...(entry.causal === undefined ? {} : { causal: entry.causal }),
    ...(entry.scale === undefined ? {} : { scale: entry.scale }),
    ...(threads === undefined ? {} : { threads }),
    ...(productDtype === undefined ? {} : { productDtype }),
  });
  return { output: await output.read(), logSumExp: await logSumExp.read() };
}

const cases: [string, Case][] = [
  ['one token', { heads: 1, headDim: 1, ...same([1]) }],
  ...shapesFor<[string, Case]>(
    [...attentionShapes],
    [
      ['B/16, ragged', { heads: 2, headDim: 64, ...same([40, 1, 64]) }],
      ['So400m, prime lengths', { heads: 2, headDim: 72, ...same([67, 17]) }],
      ['giant', { heads: 1, headDim: 96, ...same([33]) }],
      ['small heads', { heads: 3, headDim: 32, ...same([35, 16]) }],
      ['head dimension 80', { heads: 1, headDim: 80, ...same([20]) }],
      ['head dimension 128', { heads: 1, headDim: 128, ...same([70]) }],
      ['the largest head dimension', { heads: 1, headDim: 256, ...same([9, 20]) }],
      ['cross attention', { heads: 2, headDim: 64, queries: [3, 1, 65], keys: [100, 130, 1] }],
      ['causal', { heads: 2, headDim: 64, ...same([64, 65, 1]), causal: true }],
      ['causal over several tiles of keys', { heads: 1, headDim: 64, ...same([150]), causal: true }],
    ],
  ),
  ['odd head dimensions', { heads: 5, headDim: 7, ...same([33, 2]) }],
  ['an empty sequence among others', { heads: 2, headDim: 32, ...same([5, 0, 9]) }],
  ['queries without keys', { heads: 2, headDim: 16, queries: [3, 4], keys: [0, 6] }],
  ['causal with fewer keys than queries', { heads: 1, headDim: 24, queries: [9], keys: [4], causal: true }],
  ['causal with more keys than queries', { heads: 1, headDim: 24, queries: [4], keys: [90], causal: true }],
  ['large scores', { heads: 2, headDim: 64, ...same([90]), size: 12 }],
  ['scale 0', { heads: 2, headDim: 8, ...same([31]), scale: 0 }],
  ['a negative scale', { heads: 2, headDim: 40, ...same([50]), scale: -0.3 }],
];

const casesAndTypes = activationTypes.flatMap((dtype) =>
  cases.map(([name, entry]) => [name, dtype, entry] as [string, ActivationType, Case]),
);
/** In bfloat16 the weights are rounded before the product with the values, and so is the output. */
const added = (dtype: ActivationType): number => (dtype === 'float32' ? 0 : 2 * bfloat16Rounding);

describe('attention', () => {
  it.each(casesAndTypes)('%s in %s', async (_, dtype, entry) => {
    const actual = await run(Place.tested(dtype), 1, entry);
    const expected = await run(Place.reference(dtype), 1, entry);
    // A score of magnitude S is rounded to about S · 2⁻²⁴ in float32, whatever the kernel, and so are its exponential
    // and the output in relative terms (at most 1.5 of these in 400 draws of large scores); the statistics show how
    // large scores are.
    const largest = Math.max(0, ...expected.logSumExp.filter(Number.isFinite).map(Math.abs));
    expect(relativeError(actual.output, expected.output)).toBeLessThan(4e-6 + 3 * largest * 2 ** -24 + added(dtype));
    for (const [i, value] of expected.logSumExp.entries()) {
      const found = actual.logSumExp[i] as number;
      if (Number.isFinite(value)) expect(Math.abs(found - value)).toBeLessThan(3e-6 * Math.max(1, Math.abs(value)));
      else expect(found).toBe(value);
    }
  });

  it.each(activationTypes)('agrees with the reference on random shapes in %s', async (dtype) => {
    const random = draw(2024);
    const most = emulated ? 40 : 90;
    for (let round = 0; round < (emulated ? 8 : 40); round++) {
      const lengths = () => Array.from({ length: random.integer(1, 4) }, () => random.integer(0, most));
      const queries = lengths();
      const keys = random.next() < 0.5 ? queries : queries.map(() => random.integer(0, most));
      const entry = {
        heads: random.integer(1, 5),
        headDim: random.integer(1, 100),
        queries,
        keys,
        causal: random.next() < 0.3,
      };
      const actual = await run(Place.tested(dtype), round, entry);
      const expected = await run(Place.reference(dtype), round, entry);
      expect(relativeError(actual.output, expected.output), JSON.stringify(entry)).toBeLessThan(4e-6 + added(dtype));
    }
  });

  /** Types of products beside float32 activations. */
  const productTypes: ActivationType[] = testDevice === 'cpu' ? ['float32', 'bfloat16'] : ['float32'];

  /**
   * The reference rounds the same operands, but for weights relative to the largest of all, and from scores that are
   * exact: some of them are off by a unit of bfloat16. Outputs are means of many values with such weights, at most half a
   * unit off compared to the mean of the values' magnitudes; where scores are large, a mean is of one or two values, and
   * may be off by the whole unit.
   */
  async function expectRoundedAgreement(seed: number, entry: Case): Promise<void> {
    const actual = await run(Place.tested('float32'), seed, entry, undefined, 'bfloat16');
    const expected = await run(Place.reference('float32'), seed, entry, undefined, 'bfloat16');
    const magnitudes = await run(Place.reference('float32'), seed, { ...entry, positive: true }, undefined, 'bfloat16');
    const largest = Math.max(0, ...expected.logSumExp.filter(Number.isFinite).map(Math.abs));
    const halfUnits = entry.size === undefined ? 1 : 2;
    const bound = halfUnits * bfloat16Rounding + 4e-6 + 3 * largest * 2 ** -24;
    for (const [i, value] of expected.output.entries())
      if (!(Math.abs((actual.output[i] as number) - value) <= bound * (magnitudes.output[i] as number)))
        expect(actual.output[i], `${JSON.stringify(entry)}, output ${i}`).toBe(value);
    for (const [i, value] of expected.logSumExp.entries()) {
      const found = actual.logSumExp[i] as number;
      if (Number.isFinite(value)) expect(Math.abs(found - value)).toBeLessThan(4e-6 * Math.max(1, Math.abs(value)));
      else expect(found).toBe(value);
    }
  }

  it.skipIf(testDevice !== 'cpu').each(cases)('%s with products in bfloat16', async (_, entry) =>
    expectRoundedAgreement(4, entry),
  );

  it.skipIf(testDevice !== 'cpu')('agrees with the reference on random shapes with products in bfloat16', async () => {
    const random = draw(2025);
    for (let round = 0; round < 40; round++) {
      const queries = Array.from({ length: random.integer(1, 4) }, () => random.integer(0, 90));
      const keys = random.next() < 0.5 ? queries : queries.map(() => random.integer(0, 90));
      const causal = random.next() < 0.3;
      await expectRoundedAgreement(round, {
        heads: random.integer(1, 5),
        headDim: random.integer(1, 100),
        queries,
        keys,
        causal,
      });
    }
  });

  it.each(productTypes)('gives the same bits on any number of threads, products in %s', async (type) => {
    const entry = { heads: 3, headDim: 72, ...same(emulated ? [13, 37] : [127, 64, 251]) };
    const place = Place.tested('float32');
    const expected = await run(place, 7, entry, 1, type);
    for (const threads of [2, ...threadCounts, 8]) expect(await run(place, 7, entry, threads, type)).toEqual(expected);
  });

  it('passes NaN on to the queries that see it, and only to those', async () => {
    const values = draw(3).floats(4 * 8);
    const poisoned = values.slice();
    poisoned[8] = Number.NaN; // token 1
    const tensor = (data: Float32Array) => Place.tested('float32').activation(data, [4, 1, 8]);
    const { output } = await attention({
      query: tensor(values),
      key: tensor(poisoned),
      value: tensor(values),
      queryOffsets: Int32Array.of(0, 2, 4),
    });
    const rows = await output.read();
    expect(rows.subarray(0, 16).every(Number.isNaN)).toBe(true);
    expect(rows.subarray(16).some(Number.isNaN)).toBe(false);
  });

  it('names what does not fit', async () => {
    const tensor = (shape: number[]) =>
      Place.tested('float32').parameter(new Float32Array(shape.reduce((a, b) => a * b, 1)), shape);
    const query = tensor([4, 2, 8]);
    await expect(attention({ query, key: tensor([4, 2, 9]), value: tensor([4, 2, 9]) })).rejects.toThrow(/key/);
    await expect(attention({ query, key: query, value: tensor([3, 2, 8]) })).rejects.toThrow(/value/);
    await expect(attention({ query: tensor([4, 16]), key: query, value: query })).rejects.toThrow(/query/);
    for (const queryOffsets of [Int32Array.of(0, 3), Int32Array.of(1, 4), Int32Array.of(0, 5, 4), new Int32Array(0)])
      await expect(attention({ query, key: query, value: query, queryOffsets })).rejects.toThrow(/queryOffsets/);
    await expect(attention({ query, key: query, value: query, scale: Number.NaN })).rejects.toThrow(/scale/);
    await expect(attention({ query: 1 } as never)).rejects.toThrow(TypeError);
    const wide = tensor([1, 1, 257]);
    await expect(attention({ query: wide, key: wide, value: wide })).rejects.toThrow(/256/);
  });
});
