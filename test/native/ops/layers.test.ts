/** The smaller operations against the double-precision reference. */
import { describe, expect, it } from 'vitest';
import {
  gelu,
  l2Normalize,
  layerNorm,
  mapPool,
  positionEmbedding,
  Tensor,
  tokenEmbedding,
} from '../../../lib/kernels/index.js';
import { largestDifference, relativeError } from '../../support/compare.js';
import {
  type ActivationType,
  activationTypes,
  draw,
  emulated,
  Place,
  rounded,
  roundedOnce,
  shapesFor,
  testDevice,
  threadCounts,
} from '../../support/devices.js';

const both = async (run: (place: Place) => Promise<{ output: Tensor }>, dtype: ActivationType = 'float32') => {
  const { output } = await run(Place.tested(dtype));
  expect(output.dtype).toBe(dtype);
  return { actual: await output.read(), expected: await (await run(Place.reference(dtype))).output.read() };
};
const device = testDevice;
const shapes: [number, number][] = [
  [0, 8],
  [1, 1],
  [3, 7],
  [1, 1152],
  ...shapesFor<[number, number]>(
    [
      [129, 768],
      [17, 1537],
    ],
    [
      [33, 64],
      [5, 257],
      [2, 1537],
    ],
  ),
];
const shapesAndTypes = activationTypes.flatMap((dtype) =>
  shapes.map(([rows, width]) => [rows, width, dtype] as [number, number, ActivationType]),
);

describe('layerNorm', () => {
  it.each(shapesAndTypes)('%i rows of %i in %s', async (rows, width, dtype) => {
    const random = draw(rows + width);
    const [data, weight, bias] = [random.floats(rows * width, 3), random.floats(width), random.floats(width)];
    const { actual, expected } = await both(
      (place) =>
        layerNorm({
          input: place.activation(data, [rows, width]),
          weight: place.parameter(weight, [width]),
          bias: place.parameter(bias, [width]),
        }),
      dtype,
    );
    if (dtype === 'float32') expect(largestDifference(actual, expected)).toBeLessThan(4e-6);
    else expect(relativeError(actual, expected)).toBeLessThan(roundedOnce(dtype, 4e-6));
  });

  it('keeps its precision when the mean is much larger than the deviation', async () => {
    const width = 768;
    const data = draw(4)
      .floats(width, 0.1)
      .map((value) => value + 100);
    const { actual, expected } = await both((place) =>
      layerNorm({
        input: place.activation(data, [1, width]),
        weight: place.parameter(new Float32Array(width).fill(1), [width]),
        bias: place.parameter(new Float32Array(width), [width]),
      }),
    );
    // The mean is off by up to 3.4 · 100 · 2⁻²⁴ on CPUs (the most of 3000 draws with 4, 8 and 16
    // lanes), and the output by as much over a deviation of 0.098; GPUs take that out again. Without care (the mean of
    // squares less the square of the mean) it would be some percent.
    expect(largestDifference(actual, expected)).toBeLessThan(testDevice === 'cpu' ? 5e-4 : 1e-4);
  });

  it('gives the bias for a constant row', async () => {
    const place = Place.tested('float32');
    const ones = place.activation(new Float32Array(9).fill(5), [1, 9]);
    const weight = place.parameter(new Float32Array(9).fill(2), [9]);
    const bias = place.parameter(
      Float32Array.from({ length: 9 }, (_, i) => i),
      [9],
    );
    expect([...(await (await layerNorm({ input: ones, weight, bias })).output.read())]).toEqual([
      0, 1, 2, 3, 4, 5, 6, 7, 8,
    ]);
  });
});

describe('gelu', () => {
  it('is accurate in relative terms from large negative to large positive values', async () => {
    const data = Float32Array.from({ length: 20001 }, (_, i) => (i - 10000) / 900);
    const { actual, expected } = await both((place) => gelu({ input: place.activation(data, [1, data.length]) }));
    for (const [i, value] of expected.entries()) {
      const error = Math.abs((actual[i] as number) - value);
      // Below the smallest normal number the unit in the last place no longer shrinks with the value.
      expect(error).toBeLessThanOrEqual(Math.max(4e-7 * Math.abs(value), 1.5e-45));
    }
  });

  it.skipIf(!activationTypes.includes('bfloat16'))('rounds once in bfloat16', async () => {
    const data = draw(77).floats(999, 3);
    const { actual, expected } = await both((place) => gelu({ input: place.activation(data, [27, 37]) }), 'bfloat16');
    for (const [i, value] of expected.entries())
      expect(Math.abs((actual[i] as number) - value)).toBeLessThanOrEqual(
        roundedOnce('bfloat16', 4e-7) * Math.abs(value) + 1e-38,
      );
  });

  it('treats zeros, infinities and NaN as its formula does', async () => {
    const data = Float32Array.of(0, -0, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, Number.NaN, 1e30, -1e30);
    const { output } = await gelu({ input: Tensor.from(data, [1, 7], { device }) });
    const values = await output.read();
    expect(values[0]).toBe(0);
    expect(values[1]).toBe(-0);
    expect(values[2]).toBe(Number.POSITIVE_INFINITY);
    expect(values[3]).toBe(-0);
    expect(values[4]).toBeNaN();
    expect(values[5]).toBe(Math.fround(1e30));
    expect(values[6]).toBe(-0);
  });
});

describe('l2Normalize', () => {
  it.each(shapesAndTypes)('%i rows of %i in %s', async (rows, width, dtype) => {
    const data = draw(rows * width).floats(rows * width, 20);
    const run = (place: Place) => l2Normalize({ input: place.activation(data, [rows, width]) });
    const { actual, expected } = await both(run, dtype);
    if (dtype === 'float32') expect(largestDifference(actual, expected)).toBeLessThan(2e-7);
    else expect(relativeError(actual, expected)).toBeLessThan(roundedOnce(dtype, 2e-7));
  });

  it.skipIf(!activationTypes.includes('bfloat16'))('may have another type than its input', async () => {
    const data = draw(5).floats(6 * 40);
    const run = (place: Place, from: Place) =>
      l2Normalize({
        input: from.activation(data, [6, 40]),
        ...(place.device === 'reference' ? {} : { dtype: place.dtype }),
      });
    for (const [from, to] of [
      ['float32', 'bfloat16'],
      ['bfloat16', 'float32'],
    ] as const) {
      const { output } = await run(Place.tested(to), Place.tested(from));
      expect(output.dtype).toBe(to);
      const expected = await (await run(Place.reference(to), Place.reference(from))).output.read();
      expect(relativeError(await output.read(), expected)).toBeLessThan(roundedOnce(to, 2e-7));
    }
  });

  it('neither overflows nor vanishes, and keeps rows of zeros', async () => {
    const data = Float32Array.of(3e38, 3e38, 1e-40, 0, 0, 0);
    const rows = await (await l2Normalize({ input: Tensor.from(data, [3, 2], { device }) })).output.read();
    expect(rows[0]).toBeCloseTo(Math.SQRT1_2, 6);
    expect(rows[2]).toBeCloseTo(1, 6);
    expect([rows[4], rows[5]]).toEqual([0, 0]);
  });
});

describe('mapPool', () => {
  const cases = [
    [[1], 1, 1],
    ...shapesFor(
      [
        [[5, 0, 300], 3, 72],
        [[196, 256, 1], 12, 768],
        [[729], 16, 1152],
      ],
      [
        [[5, 0, 70], 3, 72],
        [[33, 64, 1], 4, 128],
      ],
    ),
    [[63, 17], 7, 91],
  ] as [number[], number, number][];
  const casesAndTypes = activationTypes.flatMap((dtype) =>
    cases.map((entry) => [...entry, dtype] as [number[], number, number, ActivationType]),
  );
  it.each(casesAndTypes)('sequences of %j, %i heads, width %i in %s', async (lengths, heads, width, dtype) => {
    const random = draw(width);
    const rows = lengths.reduce((a, b) => a + b, 0);
    const offsets = Int32Array.from([0, ...lengths.map((_, i) => lengths.slice(0, i + 1).reduce((a, b) => a + b, 0))]);
    const data = {
      tokens: random.floats(rows * width),
      probeKeys: random.floats(heads * width, 3 * width ** -0.5),
      valueWeight: random.floats(width * width, width ** -0.5),
      valueBias: random.floats(width),
    };
    const run = (place: Place, threads = 2) =>
      mapPool({
        tokens: place.activation(data.tokens, [rows, width]),
        probeKeys: place.parameter(data.probeKeys, [heads, width]),
        valueWeight: place.parameter(data.valueWeight, [width, width]),
        valueBias: place.parameter(data.valueBias, [width]),
        offsets,
        threads,
      });
    const { actual, expected } = await both(run, dtype);
    // Scores are sums of `width` terms, most of which may be added one after the other: an error of √width units, which
    // the weights repeat. Values and their bias are of size 1 each and may cancel.
    const bound = 3e-6 + Math.sqrt(width) * 2 ** -23;
    expect(relativeError(actual, expected, 1)).toBeLessThan(roundedOnce(dtype, bound));
    for (const threads of threadCounts)
      expect(await (await run(Place.tested(dtype), threads)).output.read()).toEqual(actual);
  });
});

describe('positionEmbedding', () => {
  it.each(activationTypes)('agrees with the reference for any table and grids in %s', async (dtype) => {
    const random = draw(11);
    for (let round = 0; round < (emulated ? 8 : 40); round++) {
      const [rows, columns, width] = [random.integer(1, 20), random.integer(1, 20), random.integer(1, 40)];
      const table = random.floats(rows * columns * width);
      const most = emulated ? 20 : 40;
      const spatialShapes = Int32Array.from({ length: 2 * random.integer(0, 3) }, () => random.integer(1, most));
      const run = (place: Place) =>
        positionEmbedding({
          table: place.parameter(table, [rows, columns, width]),
          spatialShapes,
          ...(place.device === 'reference' ? {} : { dtype }),
        });
      const { actual, expected } = await both(run, dtype);
      const context = `${rows}×${columns}×${width} → ${spatialShapes}`;
      if (dtype === 'float32') expect(largestDifference(actual, expected), context).toBeLessThan(2e-6);
      else expect(relativeError(actual, expected), context).toBeLessThan(roundedOnce(dtype, 2e-6));
    }
  });

  it('copies the table where the grid is its own', async () => {
    const table = draw(2).floats(5 * 3 * 9);
    const { output } = await positionEmbedding({
      table: Tensor.from(table, [5, 3, 9], { device }),
      spatialShapes: Int32Array.of(5, 3),
    });
    expect(await output.read()).toEqual(table);
  });

  it('refuses grids without patches', async () => {
    const table = Tensor.from(new Float32Array(4), [2, 2, 1], { device });
    for (const spatialShapes of [Int32Array.of(0, 3), Int32Array.of(2, -1), Int32Array.of(2)])
      await expect(positionEmbedding({ table, spatialShapes })).rejects.toThrow(/spatialShapes/);
  });
});

describe('tokenEmbedding', () => {
  const types = activationTypes.flatMap((type) =>
    (['float32', 'bfloat16', 'float16'] as const).map((dtype) => [dtype, type] as const),
  );
  it.each(types)('gathers from a table in %s to %s', async (dtype, type) => {
    const random = draw(8);
    const [vocabulary, width, length] = [37, 45, 6];
    const stored =
      dtype === 'float32'
        ? random.floats(vocabulary * width)
        : // Every bit pattern of a finite number: the exponent's highest bit is clear.
          Uint16Array.from({ length: vocabulary * width }, () => random.integer(0, 65535) & 0xbfff);
    const positions = random.floats(length * width);
    const ids = Int32Array.from({ length: 3 * length }, () => random.integer(0, vocabulary - 1));
    const run = (place: Place) =>
      tokenEmbedding({
        ids,
        table: Tensor.from(stored, [vocabulary, width], { dtype, device: place.device }),
        positions: place.parameter(positions, [length, width]),
        ...(place.device === 'reference' ? {} : { dtype: type }),
      });
    const { actual, expected } = await both(run, type);
    expect(actual).toEqual(rounded(expected, type));
    const wide = await Tensor.from(stored, [vocabulary, width], { dtype }).read();
    expected.forEach((value, i) => {
      const [row, column] = [Math.floor(i / width), i % width];
      const token = wide[(ids[row] as number) * width + column] as number;
      expect(value).toBe(Math.fround(token + (positions[(row % length) * width + column] as number)));
    });
  });

  it('refuses ids outside the vocabulary', async () => {
    const table = Tensor.from(new Float32Array(8), [4, 2], { device });
    const positions = Tensor.from(new Float32Array(2), [1, 2], { device });
    for (const id of [-1, 4, 2147483647])
      await expect(tokenEmbedding({ ids: Int32Array.of(0, id), table, positions })).rejects.toThrow(/ids/);
  });
});
