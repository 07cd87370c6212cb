/** The smaller operations on the CPU against the double-precision reference. */
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
import { Random } from '../../support/random.js';

type DeviceName = 'cpu' | 'reference';
const tensorOf = (data: Float32Array, shape: number[], device: DeviceName) => Tensor.from(data, shape, { device });
const both = async (run: (device: DeviceName) => Promise<{ output: Tensor }>) => ({
  actual: await (await run('cpu')).output.read(),
  expected: await (await run('reference')).output.read(),
});
const shapes: [number, number][] = [
  [0, 8],
  [1, 1],
  [3, 7],
  [1, 1152],
  [129, 768],
  [17, 1537],
];

describe('layerNorm', () => {
  it.each(shapes)('%i rows of %i', async (rows, width) => {
    const random = new Random(rows + width);
    const [data, weight, bias] = [random.floats(rows * width, 3), random.floats(width), random.floats(width)];
    const { actual, expected } = await both((device) =>
      layerNorm({
        input: tensorOf(data, [rows, width], device),
        weight: tensorOf(weight, [width], device),
        bias: tensorOf(bias, [width], device),
      }),
    );
    expect(largestDifference(actual, expected)).toBeLessThan(4e-6);
  });

  it('keeps its precision when the mean is much larger than the deviation', async () => {
    const width = 768;
    const data = new Random(4).floats(width, 0.1).map((value) => value + 100);
    const { actual, expected } = await both((device) =>
      layerNorm({
        input: tensorOf(data, [1, width], device),
        weight: tensorOf(new Float32Array(width).fill(1), [width], device),
        bias: tensorOf(new Float32Array(width), [width], device),
      }),
    );
    expect(largestDifference(actual, expected)).toBeLessThan(1e-4);
  });

  it('gives the bias for a constant row', async () => {
    const ones = Tensor.from(new Float32Array(9).fill(5), [1, 9]);
    const weight = Tensor.from(new Float32Array(9).fill(2), [9]);
    const bias = Tensor.from(
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
    const { actual, expected } = await both((device) => gelu({ input: tensorOf(data, [1, data.length], device) }));
    for (const [i, value] of expected.entries()) {
      const error = Math.abs((actual[i] as number) - value);
      // Below the smallest normal number the unit in the last place no longer shrinks with the value.
      expect(error).toBeLessThanOrEqual(Math.max(4e-7 * Math.abs(value), 1.5e-45));
    }
  });

  it('treats zeros, infinities and NaN as its formula does', async () => {
    const data = Float32Array.of(0, -0, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, Number.NaN, 1e30, -1e30);
    const { output } = await gelu({ input: Tensor.from(data, [1, 7]) });
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
  it.each(shapes)('%i rows of %i', async (rows, width) => {
    const data = new Random(rows * width).floats(rows * width, 20);
    const { actual, expected } = await both((device) => l2Normalize({ input: tensorOf(data, [rows, width], device) }));
    expect(largestDifference(actual, expected)).toBeLessThan(2e-7);
  });

  it('neither overflows nor vanishes, and keeps rows of zeros', async () => {
    const data = Float32Array.of(3e38, 3e38, 1e-40, 0, 0, 0);
    const rows = await (await l2Normalize({ input: Tensor.from(data, [3, 2]) })).output.read();
    expect(rows[0]).toBeCloseTo(Math.SQRT1_2, 6);
    expect(rows[2]).toBeCloseTo(1, 6);
    expect([rows[4], rows[5]]).toEqual([0, 0]);
  });
});

describe('mapPool', () => {
  it.each([
    [[1], 1, 1],
    [[5, 0, 300], 3, 72],
    [[196, 256, 1], 12, 768],
    [[729], 16, 1152],
    [[63, 17], 7, 91],
  ] as [number[], number, number][])('sequences of %j, %i heads, width %i', async (lengths, heads, width) => {
    const random = new Random(width);
    const rows = lengths.reduce((a, b) => a + b, 0);
    const offsets = Int32Array.from([0, ...lengths.map((_, i) => lengths.slice(0, i + 1).reduce((a, b) => a + b, 0))]);
    const data = {
      tokens: random.floats(rows * width),
      probeKeys: random.floats(heads * width, 3 * width ** -0.5),
      valueWeight: random.floats(width * width, width ** -0.5),
      valueBias: random.floats(width),
    };
    const run = (device: DeviceName, threads = 2) =>
      mapPool({
        tokens: tensorOf(data.tokens, [rows, width], device),
        probeKeys: tensorOf(data.probeKeys, [heads, width], device),
        valueWeight: tensorOf(data.valueWeight, [width, width], device),
        valueBias: tensorOf(data.valueBias, [width], device),
        offsets,
        threads,
      });
    const { actual, expected } = await both(run);
    expect(relativeError(actual, expected)).toBeLessThan(3e-6);
    for (const threads of [1, 3]) expect(await (await run('cpu', threads)).output.read()).toEqual(actual);
  });
});

describe('positionEmbedding', () => {
  it('agrees with the reference for any table and grids', async () => {
    const random = new Random(11);
    for (let round = 0; round < 40; round++) {
      const [rows, columns, width] = [random.integer(1, 20), random.integer(1, 20), random.integer(1, 40)];
      const table = random.floats(rows * columns * width);
      const spatialShapes = Int32Array.from({ length: 2 * random.integer(0, 3) }, () => random.integer(1, 40));
      const { actual, expected } = await both((device) =>
        positionEmbedding({ table: tensorOf(table, [rows, columns, width], device), spatialShapes }),
      );
      expect(largestDifference(actual, expected), `${rows}×${columns}×${width} → ${spatialShapes}`).toBeLessThan(2e-6);
    }
  });

  it('copies the table where the grid is its own', async () => {
    const table = new Random(2).floats(5 * 3 * 9);
    const { output } = await positionEmbedding({
      table: Tensor.from(table, [5, 3, 9]),
      spatialShapes: Int32Array.of(5, 3),
    });
    expect(await output.read()).toEqual(table);
  });

  it('refuses grids without patches', async () => {
    const table = Tensor.from(new Float32Array(4), [2, 2, 1]);
    for (const spatialShapes of [Int32Array.of(0, 3), Int32Array.of(2, -1), Int32Array.of(2)])
      await expect(positionEmbedding({ table, spatialShapes })).rejects.toThrow(/spatialShapes/);
  });
});

describe('tokenEmbedding', () => {
  it.each(['float32', 'bfloat16', 'float16'] as const)('gathers from a table in %s', async (dtype) => {
    const random = new Random(8);
    const [vocabulary, width, length] = [37, 45, 6];
    const stored =
      dtype === 'float32'
        ? random.floats(vocabulary * width)
        : // Every bit pattern of a finite number: the exponent's highest bit is clear.
          Uint16Array.from({ length: vocabulary * width }, () => random.integer(0, 65535) & 0xbfff);
    const positions = random.floats(length * width);
    const ids = Int32Array.from({ length: 3 * length }, () => random.integer(0, vocabulary - 1));
    const run = (device: DeviceName) =>
      tokenEmbedding({
        ids,
        table: Tensor.from(stored, [vocabulary, width], { dtype, device }),
        positions: tensorOf(positions, [length, width], device),
      });
    const { actual, expected } = await both(run);
    expect(actual).toEqual(expected);
    const wide = await Tensor.from(stored, [vocabulary, width], { dtype }).read();
    actual.forEach((value, i) => {
      const [row, column] = [Math.floor(i / width), i % width];
      const token = wide[(ids[row] as number) * width + column] as number;
      expect(value).toBe(Math.fround(token + (positions[(row % length) * width + column] as number)));
    });
  });

  it('refuses ids outside the vocabulary', async () => {
    const table = Tensor.from(new Float32Array(8), [4, 2]);
    const positions = Tensor.from(new Float32Array(2), [1, 2]);
    for (const id of [-1, 4, 2147483647])
      await expect(tokenEmbedding({ ids: Int32Array.of(0, id), table, positions })).rejects.toThrow(/ids/);
  });
});
