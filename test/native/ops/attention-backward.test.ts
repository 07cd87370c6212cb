/** Gradients of attention against the double-precision reference, and that against finite differences. */
import { describe, expect, it } from 'vitest';
import { attention, attentionBackward, Tensor } from '../../../lib/kernels/index.js';
import { type AttentionShape, attentionShapes, prefix, same } from '../../support/attention-shapes.js';
import { cosine, largestDifference, sameBits } from '../../support/compare.js';
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
import { centralDifferences } from '../../support/finite-differences.js';

const gradientNames = ['gradQuery', 'gradKey', 'gradValue'] as const;

interface Case extends AttentionShape {
  scale?: number;
  /** Magnitude of the random values. */
  size?: number;
}

interface Data {
  query: Float32Array;
  key: Float32Array;
  value: Float32Array;
  gradOutput: Float32Array;
}

function randomData(seed: number, { heads, headDim, queries, keys, size = 1 }: Case): Data {
  const random = draw(seed);
  const rows = (lengths: number[]) => random.floats(lengths.reduce((a, b) => a + b, 0) * heads * headDim, size);
  return { query: rows(queries), key: rows(keys), value: rows(keys), gradOutput: rows(queries) };
}

/** Forward and backward pass; the results of the forward pass come from the reference on both devices. */
async function differentiate(place: Place, data: Data, entry: Case, threads?: number, productDtype?: ActivationType) {
  const { heads, headDim } = entry;
  const options = {
    queryOffsets: prefix(entry.queries),
    keyOffsets: prefix(entry.keys),
    ...(entry.causal === undefined ? {} : { causal: entry.causal }),
    ...(entry.scale === undefined ? {} : { scale: entry.scale }),
    ...(threads === undefined ? {} : { threads }),
    ...(productDtype === undefined ? {} : { productDtype }),
  };
  const inputs = (on: Place) => {
    const rows = (values: Float32Array) => on.activation(values, [values.length / (heads * headDim), heads, headDim]);
    return { query: rows(data.query), key: rows(data.key), value: rows(data.value), rows };
  };
  const { rows: _, ...referenceInputs } = inputs(Place.reference(place.dtype));
  const forward = await attention({ ...referenceInputs, ...options });
  const output = await forward.output.read();
  const logSumExp = await forward.logSumExp.read();
  const { rows, ...tensors } = inputs(place);
  const gradients = await attentionBackward({
    ...tensors,
    ...options,
    output: rows(output),
    logSumExp: place.parameter(logSumExp, forward.logSumExp.shape),
    gradOutput: rows(data.gradOutput),
  });
  return {
    gradQuery: await gradients.gradQuery.read(),
    gradKey: await gradients.gradKey.read(),
    gradValue: await gradients.gradValue.read(),
    logSumExp,
  };
}

const cases: [string, Case][] = [
  ...shapesFor<[string, Case]>(
    [
      ...attentionShapes,
      ['causal with fewer keys than queries', { heads: 1, headDim: 24, queries: [300], keys: [4], causal: true }],
      ['causal with more keys than queries', { heads: 1, headDim: 24, queries: [4], keys: [190], causal: true }],
    ],
    [
      ['B/16, ragged', { heads: 2, headDim: 64, ...same([40, 1, 64]) }],
      ['So400m, prime lengths', { heads: 2, headDim: 72, ...same([67, 17]) }],
      ['giant', { heads: 1, headDim: 96, ...same([33]) }],
      ['head dimension 80', { heads: 1, headDim: 80, ...same([20]) }],
      ['head dimension 128', { heads: 1, headDim: 128, ...same([35]) }],
      ['the largest head dimension', { heads: 1, headDim: 256, ...same([9, 20]) }],
      ['cross attention', { heads: 2, headDim: 64, queries: [3, 1, 65], keys: [70, 90, 1] }],
      ['causal', { heads: 2, headDim: 64, ...same([64, 65, 1]), causal: true }],
      ['causal with fewer keys than queries', { heads: 1, headDim: 24, queries: [70], keys: [4], causal: true }],
      ['causal with more keys than queries', { heads: 1, headDim: 24, queries: [4], keys: [90], causal: true }],
    ],
  ),
  ['one token', { heads: 1, headDim: 1, ...same([1]) }],
  ['odd head dimensions', { heads: 5, headDim: 7, ...same([33, 2]) }],
  ['an empty sequence among others', { heads: 2, headDim: 32, ...same([5, 0, 9]) }],
  ['nothing at all', { heads: 2, headDim: 32, ...same([]) }],
  ['queries without keys and keys without queries', { heads: 2, headDim: 16, queries: [3, 4, 0], keys: [0, 6, 5] }],
  ['large scores', { heads: 2, headDim: 64, ...same([90]), size: 12 }],
  ['scale 0', { heads: 2, headDim: 8, ...same([31]), scale: 0 }],
  ['a negative scale', { heads: 2, headDim: 40, ...same([50]), scale: -0.3 }],
];

function expectGradients(
  actual: Awaited<ReturnType<typeof differentiate>>,
  expected: Awaited<ReturnType<typeof differentiate>>,
  entry: Case,
  dtype: ActivationType = 'float32',
): void {
  // In bfloat16 the output, the weights and the slopes of the scores are rounded before products, and so are results.
  const rounding = dtype === 'float32' ? 0 : bfloat16Rounding;
  // As in the forward pass, scores of magnitude S and their statistics are rounded to a few S · 2⁻²⁴ in float32, and the
  // weights by as much in relative terms. Of the largest gradient that was up to 5.3 · S · 2⁻²⁴ in 400 draws of the large
  // scores below (200 with 16 lanes, 200 with 4).
  const score = Math.max(1, ...expected.logSumExp.filter(Number.isFinite).map(Math.abs));
  // The gradient of a score is a difference of products of two rows, whose rounding is left where the difference is
  // small or 0 (one key: its weight is 1 whatever the score). A key's gradient sums it over the queries, at random and
  // weighted by about one over the keys: 8 · 10⁻⁶ for 64 queries of one key in 400 draws.
  const sums = Math.max(1, ...entry.queries.map((queries, s) => Math.sqrt(queries) / Math.max(1, entry.keys[s] ?? 1)));
  const product = (entry.size ?? 1) ** 3 * Math.sqrt(entry.headDim);
  for (const name of gradientNames) {
    const magnitude = expected[name].reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    const tolerance = (2e-6 + score * 2 ** -21 + 2 * rounding) * magnitude + (2 ** -21 * sums + rounding / 4) * product;
    expect(largestDifference(actual[name], expected[name]), `${name} of ${JSON.stringify(entry)}`).toBeLessThan(
      tolerance,
    );
  }
}

/** Σ gradOutput · attention(query, key, value), written out for finite differences. */
function lossOf(
  values: Record<'query' | 'key' | 'value', Float64Array>,
  gradOutput: Float32Array,
  entry: Case,
): number {
  const { heads, headDim, scale = headDim ** -0.5 } = entry;
  const width = heads * headDim;
  const [queryOffsets, keyOffsets] = [prefix(entry.queries), prefix(entry.keys)];
  let loss = 0;
  entry.queries.forEach((queries, s) => {
    for (let i = 0; i < queries; i++)
      for (let h = 0; h < heads; h++) {
        const visible = entry.causal === true ? Math.min(i + 1, entry.keys[s] as number) : (entry.keys[s] as number);
        const query = ((queryOffsets[s] as number) + i) * width + h * headDim;
        let total = 0;
        let sum = 0;
        for (let j = 0; j < visible; j++) {
          const key = ((keyOffsets[s] as number) + j) * width + h * headDim;
          let score = 0;
          let product = 0;
          for (let f = 0; f < headDim; f++) {
            score += (values.query[query + f] as number) * (values.key[key + f] as number);
            product += (gradOutput[query + f] as number) * (values.value[key + f] as number);
          }
          const weight = Math.exp(scale * score);
          total += weight;
          sum += weight * product;
        }
        if (visible > 0) loss += sum / total;
      }
  });
  return loss;
}

async function expectAgreement(dtype: ActivationType, seed: number, entry: Case): Promise<void> {
  const data = randomData(seed, entry);
  const actual = await differentiate(Place.tested(dtype), data, entry);
  expectGradients(actual, await differentiate(Place.reference(dtype), data, entry), entry, dtype);
}

/** The reference rounds the same operands; weights and slopes of scores near the middle of two numbers to the other. */
async function expectRoundedAgreement(seed: number, entry: Case): Promise<void> {
  const data = randomData(seed, entry);
  const actual = await differentiate(tested, data, entry, undefined, 'bfloat16');
  const expected = await differentiate(Place.reference('float32'), data, entry, undefined, 'bfloat16');
  expectGradients(actual, expected, entry, 'bfloat16');
}

const casesAndTypes = activationTypes.flatMap((dtype) =>
  cases.map(([name, entry]) => [name, dtype, entry] as [string, ActivationType, Case]),
);
const tested = Place.tested('float32');

describe('attentionBackward', () => {
  it.each(casesAndTypes)('%s in %s', async (_, dtype, entry) => expectAgreement(dtype, 1, entry));

  it.skipIf(testDevice !== 'cpu').each(cases)('%s with products in bfloat16', async (_, entry) =>
    expectRoundedAgreement(4, entry),
  );

  function* randomCases(): Generator<[number, Case]> {
    const random = draw(2025);
    const most = emulated ? 35 : 90;
    for (let round = 0; round < (emulated ? 6 : 40); round++) {
      const lengths = () => Array.from({ length: random.integer(1, 4) }, () => random.integer(0, most));
      const queries = lengths();
      const entry = {
        heads: random.integer(1, 5),
        headDim: random.integer(1, 100),
        queries,
        keys: random.next() < 0.5 ? queries : queries.map(() => random.integer(0, 2 * most)),
        causal: random.next() < 0.3,
      };
      yield [round, entry];
    }
  }

  it.each(activationTypes)('agrees with the reference on random shapes in %s', async (dtype) => {
    for (const [round, entry] of randomCases()) await expectAgreement(dtype, round, entry);
  });

  it.skipIf(testDevice !== 'cpu')('agrees with the reference on random shapes with products in bfloat16', async () => {
    for (const [round, entry] of randomCases()) await expectRoundedAgreement(round, entry);
  });

  it.skipIf(testDevice !== 'cpu')('rounds to bfloat16 what the reference rounds', async () => {
    const entry = { heads: 2, headDim: 64, ...same([100]) };
    const data = randomData(6, entry);
    const exact = await differentiate(tested, data, entry);
    const rounded = await differentiate(tested, data, entry, undefined, 'bfloat16');
    const expected = await differentiate(Place.reference('float32'), data, entry, undefined, 'bfloat16');
    // The difference that 19 of 20 results stay below.
    const differenceOfMost = (left: Float32Array, right: Float32Array) => {
      const differences = left.map((value, i) => Math.abs(value - (right[i] as number))).sort();
      return differences[Math.floor(0.95 * differences.length)] as number;
    };
    // What is rounded changes every result. A weight or slope near the middle of two numbers, which float32 may put on the other
    // side, changes one row of a head besides: one result in a hundred or fewer. All others agree to the digits of float32.
    for (const name of gradientNames) {
      const share = differenceOfMost(rounded[name], expected[name]) / differenceOfMost(rounded[name], exact[name]);
      expect(share, name).toBeLessThan(0.001);
      expect(cosine(rounded[name], exact[name]), name).toBeGreaterThan(0.9999);
    }
  });

  it.each([
    ['ragged', { heads: 2, headDim: 3, ...same([4, 1, 3]) }],
    ['cross', { heads: 1, headDim: 5, queries: [3, 2, 0], keys: [5, 0, 2], scale: 0.7 }],
    ['causal', { heads: 1, headDim: 4, queries: [5, 2], keys: [3, 4], causal: true, scale: -0.4 }],
  ] as [string, Case][])('is the slope of the forward pass: %s', async (_, entry) => {
    const data = randomData(5, entry);
    const values = {
      query: Float64Array.from(data.query),
      key: Float64Array.from(data.key),
      value: Float64Array.from(data.value),
    };
    const loss = () => lossOf(values, data.gradOutput, entry);
    for (const place of [Place.reference('float32'), tested]) {
      const gradients = await differentiate(place, data, entry);
      // The rest is the rounding of float32 statistics, outputs and gradients of size 1 to 5.
      expect(largestDifference(gradients.gradQuery, centralDifferences(loss, values.query))).toBeLessThan(3e-6);
      expect(largestDifference(gradients.gradKey, centralDifferences(loss, values.key))).toBeLessThan(3e-6);
      expect(largestDifference(gradients.gradValue, centralDifferences(loss, values.value))).toBeLessThan(3e-6);
    }
  });

  /** Types of products beside float32 activations. */
  const productTypes: ActivationType[] = testDevice === 'cpu' ? ['float32', 'bfloat16'] : ['float32'];

  it.each(productTypes)('gives the same bits on any number of threads, products in %s', async (type) => {
    const entry = { heads: 3, headDim: 72, ...same(emulated ? [13, 20] : [127, 64, 251]) };
    const data = randomData(7, entry);
    const expected = await differentiate(tested, data, entry, 1, type);
    for (const threads of [2, ...threadCounts, 8]) {
      const actual = await differentiate(tested, data, entry, threads, type);
      for (const name of gradientNames) expect(sameBits(actual[name], expected[name]), name).toBe(true);
    }
  });

  it.each(productTypes)('gives a sequence the same bits whatever the batch around it, products in %s', async (type) => {
    const alone = { heads: 2, headDim: 20, ...same([37]) };
    const data = randomData(8, alone);
    const expected = await differentiate(tested, data, alone, undefined, type);
    const around = randomData(9, { ...alone, ...same([150]) });
    const join = (name: keyof Data) => Float32Array.of(...around[name], ...data[name], ...around[name]);
    const joined = { query: join('query'), key: join('key'), value: join('value'), gradOutput: join('gradOutput') };
    const together = await differentiate(tested, joined, { ...alone, ...same([150, 37, 150]) }, undefined, type);
    for (const name of gradientNames) expect(together[name].subarray(150 * 40, 187 * 40), name).toEqual(expected[name]);
  });

  it.each(['query', 'key', 'value', 'gradOutput'] as const)(
    'passes NaN of %s on within its sequence, and leaves none behind',
    async (name) => {
      const entry = { heads: 1, headDim: 9, ...same([5, 11, 3]) };
      const data = randomData(3, entry);
      const expected = await differentiate(tested, data, entry, 1);
      const poisoned = { ...data, [name]: data[name].slice() };
      poisoned[name].fill(Number.NaN, 5 * 9, 16 * 9);
      const actual = await differentiate(tested, poisoned, entry, 1);
      for (const gradient of gradientNames) {
        // The gradient of the values does not depend on the values.
        if (!(name === 'value' && gradient === 'gradValue'))
          expect(actual[gradient].subarray(5 * 9, 16 * 9).every(Number.isNaN), gradient).toBe(true);
        expect(actual[gradient].subarray(0, 5 * 9), gradient).toEqual(expected[gradient].subarray(0, 5 * 9));
        expect(actual[gradient].subarray(16 * 9), gradient).toEqual(expected[gradient].subarray(16 * 9));
      }
      expect(await differentiate(tested, data, entry, 1)).toEqual(expected);
    },
  );

  it('gives 0 to keys that no query sees', async () => {
    const entry = { heads: 2, headDim: 6, queries: [3, 0], keys: [70, 4], causal: true };
    const data = randomData(4, entry);
    data.value.fill(Number.NaN, 3 * 12); // which so must not matter
    const { gradQuery, gradKey, gradValue } = await differentiate(tested, data, entry);
    expect(gradQuery.every(Number.isFinite)).toBe(true);
    for (const gradient of [gradKey, gradValue]) {
      expect(gradient.subarray(0, 3 * 12).every((value) => value !== 0)).toBe(true);
      expect(gradient.subarray(3 * 12).every((value) => value === 0)).toBe(true);
    }
  });

  it('names what does not fit', async () => {
    const tensor = (shape: number[]) => tested.parameter(new Float32Array(shape.reduce((a, b) => a * b, 1)), shape);
    const query = tensor([4, 2, 8]);
    const logSumExp = tensor([4, 2]);
    const valid = { query, key: query, value: query, output: query, logSumExp, gradOutput: query };
    await expect(attentionBackward(valid)).resolves.toBeDefined();
    for (const [name, shape] of [
      ['key', [4, 16]],
      ['value', [3, 2, 8]],
      ['output', [4, 2, 9]],
      ['gradOutput', [4, 1, 8]],
      ['logSumExp', [4, 3]],
      ['logSumExp', [8]],
    ] as const)
      await expect(attentionBackward({ ...valid, [name]: tensor([...shape]) })).rejects.toThrow(name);
    for (const name of ['query', 'output', 'logSumExp', 'gradOutput'] as const)
      await expect(attentionBackward({ ...valid, [name]: undefined } as never)).rejects.toThrow(TypeError);
    await expect(attentionBackward({ ...valid, keyOffsets: Int32Array.of(0, 2, 4) })).rejects.toThrow(/keyOffsets/);
    await expect(attentionBackward({ ...valid, scale: Number.NaN })).rejects.toThrow(/scale/);
    await expect(attentionBackward({ ...valid, productDtype: 'int8' as never })).rejects.toThrow(/productDtype/);
    const elsewhere = Tensor.from(new Float32Array(64), [4, 2, 8], { device: 'reference' });
    await expect(attentionBackward({ ...valid, gradOutput: elsewhere })).rejects.toThrow(/gradOutput.*reference/);
  });
});
