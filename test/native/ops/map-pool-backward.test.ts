/** Gradients of the pooling head against the double-precision reference, and both against differences. */
import { describe, expect, it } from 'vitest';
import { mapPool, mapPoolBackward, probeKeys, probeKeysBackward, type Tensor } from '../../../lib/kernels/index.js';
import { largestDifference, relativeError, sameBits } from '../../support/compare.js';
import {
  activationTypes,
  draw,
  Place,
  roundedOnce,
  shapesFor,
  testDevice,
  threadCounts,
} from '../../support/devices.js';
import { centralDifferences } from '../../support/finite-differences.js';

const tested = Place.tested('float32');
const reference = Place.reference('float32');
const places: [string, Place][] = [
  [testDevice, tested],
  ['reference', reference],
];

const prefix = (lengths: number[]): Int32Array =>
  Int32Array.from([0, ...lengths.map((_, i) => lengths.slice(0, i + 1).reduce((a, b) => a + b, 0))]);

async function readAll<Name extends string>(tensors: Record<Name, Tensor>): Promise<Record<Name, Float32Array>> {
  const entries = Object.entries(tensors) as [Name, Tensor][];
  return Object.fromEntries(
    await Promise.all(entries.map(async ([name, tensor]) => [name, await tensor.read()])),
  ) as Record<Name, Float32Array>;
}

function expectSameBits<Name extends string>(
  actual: Record<Name, Float32Array>,
  expected: Record<Name, Float32Array>,
): void {
  for (const name of Object.keys(expected) as Name[]) expect(sameBits(actual[name], expected[name]), name).toBe(true);
}

interface PoolCase {
  lengths: number[];
  heads: number;
  width: number;
}

function poolData({ lengths, heads, width }: PoolCase) {
  const random = draw(width + lengths.length);
  return {
    tokens: random.floats((prefix(lengths).at(-1) as number) * width),
    probeKeys: random.floats(heads * width, 3 * width ** -0.5),
    valueWeight: random.floats(width * width, width ** -0.5),
    gradOutput: random.floats(lengths.length * width),
  };
}

async function differentiatePool(
  place: Place,
  data: ReturnType<typeof poolData>,
  { lengths, heads, width }: PoolCase,
  threads = 2,
) {
  const matrix = (values: Float32Array, rows: number) => place.parameter(values, [rows, width]);
  return readAll(
    await mapPoolBackward({
      tokens: place.activation(data.tokens, [data.tokens.length / width, width]),
      offsets: prefix(lengths),
      probeKeys: matrix(data.probeKeys, heads),
      valueWeight: matrix(data.valueWeight, width),
      gradOutput: place.activation(data.gradOutput, [lengths.length, width]),
      threads,
    }),
  );
}

const poolCases: PoolCase[] = [
  { lengths: [1], heads: 1, width: 1 },
  ...shapesFor<PoolCase>(
    [
      { lengths: [5, 0, 300], heads: 3, width: 72 },
      { lengths: [196, 256, 1], heads: 12, width: 768 },
      { lengths: [729], heads: 16, width: 1152 },
    ],
    [
      { lengths: [5, 0, 70], heads: 3, width: 72 },
      { lengths: [33, 64, 1], heads: 4, width: 128 },
    ],
  ),
  { lengths: [63, 17], heads: 7, width: 91 },
  { lengths: [0, 0], heads: 2, width: 6 },
  { lengths: [], heads: 2, width: 6 },
];

describe('mapPoolBackward', () => {
  const casesAndTypes = activationTypes.flatMap((dtype) => poolCases.map((entry) => ({ ...entry, dtype })));
  it.each(casesAndTypes)('sequences of $lengths, $heads heads, width $width in $dtype', async ({ dtype, ...entry }) => {
    const data = poolData(entry);
    const actual = await differentiatePool(Place.tested(dtype), data, entry);
    const expected = await differentiatePool(Place.reference(dtype), data, entry);
    for (const [name, values] of Object.entries(expected) as [keyof typeof expected, Float32Array][]) {
      // One token has weight 1 whatever its score, so that differences of equal products are left: size 1, not 0.
      const largest = values.reduce((most, value) => Math.max(most, Math.abs(value)), 1);
      expect(largestDifference(actual[name], values), name).toBeLessThan(
        (name === 'gradTokens' ? roundedOnce(dtype, 4e-6) : 4e-6) * largest,
      );
    }
    for (const threads of threadCounts)
      expectSameBits(await differentiatePool(Place.tested(dtype), data, entry, threads), actual);
  });

  it.each(places)('is the slope of the forward pass on %s', async (_, place) => {
    const entry = { lengths: [4, 0, 1, 6], heads: 2, width: 6 };
    const { lengths, heads, width } = entry;
    const data = poolData(entry);
    const offsets = prefix(lengths);
    const tokens = Float64Array.from(data.tokens);
    const keys = Float64Array.from(data.probeKeys);
    const weight = Float64Array.from(data.valueWeight);
    const bias = new Float64Array(width);
    const loss = (): number => {
      let sum = 0;
      for (let s = 0; s < lengths.length; s++)
        for (let h = 0; h < heads; h++) {
          const pooled = new Float64Array(width);
          let total = 0;
          for (let j = offsets[s] as number; j < (offsets[s + 1] as number); j++) {
            const token = tokens.subarray(j * width, (j + 1) * width);
            const share = Math.exp(token.reduce((score, x, i) => score + x * (keys[h * width + i] as number), 0));
            total += share;
            for (let i = 0; i < width; i++) pooled[i] = (pooled[i] as number) + share * (token[i] as number);
          }
          for (let out = (h * width) / heads; out < ((h + 1) * width) / heads; out++) {
            const row = weight.subarray(out * width, (out + 1) * width);
            const product = total === 0 ? 0 : row.reduce((y, w, i) => y + (w * (pooled[i] as number)) / total, 0);
            sum += (data.gradOutput[s * width + out] as number) * (product + (bias[out] as number));
          }
        }
      return sum;
    };
    // That this is the forward pass: its value, too.
    const { output } = await mapPool({
      tokens: place.activation(data.tokens, [11, width]),
      offsets,
      probeKeys: place.parameter(data.probeKeys, [heads, width]),
      valueWeight: place.parameter(data.valueWeight, [width, width]),
      valueBias: place.parameter(new Float32Array(width), [width]),
    });
    const product = (await output.read()).reduce((sum, y, i) => sum + y * (data.gradOutput[i] as number), 0);
    expect(product).toBeCloseTo(loss(), 5);

    const gradients = await differentiatePool(place, data, entry);
    // The rest is float32 rounding: gradients are differences of products of size 1 to 30.
    expect(largestDifference(gradients.gradTokens, centralDifferences(loss, tokens))).toBeLessThan(6e-6);
    expect(largestDifference(gradients.gradProbeKeys, centralDifferences(loss, keys))).toBeLessThan(6e-6);
    expect(largestDifference(gradients.gradValueWeight, centralDifferences(loss, weight))).toBeLessThan(6e-6);
    expect(largestDifference(gradients.gradValueBias, centralDifferences(loss, bias))).toBeLessThan(6e-6);
  });

  it('passes NaN on to its sequence, and leaves none behind', async () => {
    const entry = { lengths: [5, 11, 3], heads: 2, width: 18 };
    const data = poolData(entry);
    const expected = await differentiatePool(tested, data, entry, 1);
    const tokens = data.tokens.slice();
    tokens[7 * 18] = Number.NaN;
    const { gradTokens } = await differentiatePool(tested, { ...data, tokens }, entry, 1);
    expect(gradTokens.subarray(5 * 18, 16 * 18).every(Number.isNaN)).toBe(true);
    expect(gradTokens.subarray(0, 5 * 18)).toEqual(expected.gradTokens.subarray(0, 5 * 18));
    expect(gradTokens.subarray(16 * 18)).toEqual(expected.gradTokens.subarray(16 * 18));
    expect(await differentiatePool(tested, data, entry, 1)).toEqual(expected);
  });

  it('names what does not fit', async () => {
    const tensor = (shape: number[]) => tested.parameter(new Float32Array(shape.reduce((a, b) => a * b, 1)), shape);
    const valid = {
      tokens: tensor([5, 6]),
      offsets: Int32Array.of(0, 2, 5),
      probeKeys: tensor([2, 6]),
      valueWeight: tensor([6, 6]),
      gradOutput: tensor([2, 6]),
    };
    await expect(mapPoolBackward(valid)).resolves.toBeDefined();
    for (const [name, shape] of [
      ['probeKeys', [2, 5]],
      ['valueWeight', [6, 5]],
      ['gradOutput', [3, 6]],
      ['gradOutput', [12]],
    ] as const)
      await expect(mapPoolBackward({ ...valid, [name]: tensor([...shape]) })).rejects.toThrow(name);
    await expect(mapPoolBackward({ ...valid, probeKeys: tensor([4, 6]) })).rejects.toThrow(/multiple of 4 heads/);
    await expect(mapPoolBackward({ ...valid, offsets: Int32Array.of(0, 2, 6) })).rejects.toThrow(/offsets/);
    await expect(mapPoolBackward({ ...valid, gradOutput: undefined } as never)).rejects.toThrow(TypeError);
  });
});

function probeData(width: number) {
  const random = draw(width);
  return {
    probe: random.floats(width),
    queryWeight: random.floats(width * width, width ** -0.5),
    queryBias: random.floats(width),
    keyWeight: random.floats(width * width, width ** -0.5),
  };
}

function probeTensors({ probe, queryWeight, queryBias, keyWeight }: ReturnType<typeof probeData>, place: Place) {
  const width = probe.length;
  return {
    probe: place.parameter(probe, [width]),
    queryWeight: place.parameter(queryWeight, [width, width]),
    queryBias: place.parameter(queryBias, [width]),
    keyWeight: place.parameter(keyWeight, [width, width]),
  };
}

/** The formula of the probe keys in double precision. */
function probeKeysOf(data: Record<keyof ReturnType<typeof probeData>, ArrayLike<number>>, heads: number) {
  const width = data.probe.length;
  const headDim = width / heads;
  const keys = new Float64Array(heads * width);
  for (let row = 0; row < width; row++) {
    let query = data.queryBias[row] as number;
    for (let i = 0; i < width; i++) query += (data.queryWeight[row * width + i] as number) * (data.probe[i] as number);
    const target = Math.floor(row / headDim) * width;
    for (let i = 0; i < width; i++)
      keys[target + i] =
        (keys[target + i] as number) + (query * (data.keyWeight[row * width + i] as number)) / Math.sqrt(headDim);
  }
  return keys;
}

const probeCases: [number, number][] = [
  [1, 1],
  [3, 27],
  [7, 91],
  ...shapesFor<[number, number]>([[12, 768]], [[4, 128]]),
];

describe('probeKeys', () => {
  it.each(probeCases)('%i heads, width %i', async (heads, width) => {
    const data = probeData(width);
    for (const [, place] of places) {
      const { output } = await probeKeys({ ...probeTensors(data, place), heads });
      expect(output.shape).toEqual([heads, width]);
      // Rounded to float32 once.
      expect(relativeError(await output.read(), probeKeysOf(data, heads))).toBeLessThan(6.1e-8);
    }
  });

  it('names what does not fit', async () => {
    const tensors = probeTensors(probeData(6), tested);
    await expect(probeKeys({ ...tensors, heads: 4 })).rejects.toThrow(/multiple of 4 heads/);
    await expect(probeKeys({ ...tensors, heads: 7 })).rejects.toThrow(RangeError);
    await expect(probeKeys({ ...tensors, queryBias: tensors.keyWeight, heads: 2 })).rejects.toThrow(/queryBias/);
  });
});

describe('probeKeysBackward', () => {
  const differentiate = async (
    data: ReturnType<typeof probeData>,
    gradProbeKeys: Float32Array,
    place: Place,
    threads = 2,
  ) => {
    const width = data.probe.length;
    const gradient = place.parameter(gradProbeKeys, [gradProbeKeys.length / width, width]);
    return readAll(await probeKeysBackward({ ...probeTensors(data, place), gradProbeKeys: gradient, threads }));
  };

  it.each(probeCases)('%i heads, width %i', async (heads, width) => {
    const data = probeData(width);
    const gradProbeKeys = draw(1).floats(heads * width);
    const actual = await differentiate(data, gradProbeKeys, tested);
    const expected = await differentiate(data, gradProbeKeys, reference);
    // Both accumulate in double precision; chunks of the probe's gradient are added in float32.
    for (const [name, values] of Object.entries(expected) as [keyof typeof expected, Float32Array][])
      expect(relativeError(actual[name], values), name).toBeLessThan(2.5e-7);
    for (const threads of threadCounts)
      expectSameBits(await differentiate(data, gradProbeKeys, tested, threads), actual);
  });

  it.each(places)('is the slope of probeKeys on %s', async (_, place) => {
    const [heads, width] = [2, 6];
    const data = probeData(width);
    const gradProbeKeys = draw(2).floats(heads * width);
    const values = {
      probe: Float64Array.from(data.probe),
      queryWeight: Float64Array.from(data.queryWeight),
      queryBias: Float64Array.from(data.queryBias),
      keyWeight: Float64Array.from(data.keyWeight),
    };
    const loss = () => probeKeysOf(values, heads).reduce((sum, u, i) => sum + u * (gradProbeKeys[i] as number), 0);
    const gradients = await differentiate(data, gradProbeKeys, place);
    // The rest is float32 rounding: gradients are differences of products of size 1 to 30.
    expect(largestDifference(gradients.gradProbe, centralDifferences(loss, values.probe))).toBeLessThan(5e-7);
    expect(largestDifference(gradients.gradQueryWeight, centralDifferences(loss, values.queryWeight))).toBeLessThan(
      5e-7,
    );
    expect(largestDifference(gradients.gradQueryBias, centralDifferences(loss, values.queryBias))).toBeLessThan(5e-7);
    expect(largestDifference(gradients.gradKeyWeight, centralDifferences(loss, values.keyWeight))).toBeLessThan(5e-7);
  });

  it('names what does not fit', async () => {
    const tensors = probeTensors(probeData(6), tested);
    const gradient = (shape: number[]) => tested.parameter(new Float32Array(shape.reduce((a, b) => a * b, 1)), shape);
    await expect(probeKeysBackward({ ...tensors, gradProbeKeys: gradient([2, 5]) })).rejects.toThrow(/gradProbeKeys/);
    await expect(probeKeysBackward({ ...tensors, gradProbeKeys: gradient([4, 6]) })).rejects.toThrow(/multiple of 4/);
    await expect(probeKeysBackward({ ...tensors, gradProbeKeys: undefined } as never)).rejects.toThrow(TypeError);
  });
});
