/** Gradients of the embedding tables: against the reference, and the reference against sums made here. */
import { describe, expect, it } from 'vitest';
import { positionEmbedding, positionEmbeddingBackward, tokenEmbeddingBackward } from '../../../lib/kernels/index.js';
import { relativeError } from '../../support/compare.js';
import {
  type ActivationType,
  activationTypes,
  draw,
  emulated,
  Place,
  rounded,
  testDevice,
  threadCounts,
} from '../../support/devices.js';
import { expectSiglipError } from '../../support/errors.js';

const tested = Place.tested('float32');
const reference = Place.reference('float32');

describe('tokenEmbeddingBackward', () => {
  interface Case {
    texts: number;
    length: number;
    width: number;
    vocabularySize: number;
  }
  async function run(
    { texts, length, width, vocabularySize }: Case,
    ids: Int32Array,
    data: Float32Array,
    { place = tested, threads = 2 } = {},
  ) {
    const gradOutput = place.activation(data, [texts * length, width]);
    const { gradTable, gradPositions } = await tokenEmbeddingBackward({
      ...{ ids, gradOutput, vocabularySize, length, threads },
    });
    expect(gradTable.shape).toEqual([vocabularySize, width]);
    expect(gradPositions.shape).toEqual([length, width]);
    return { table: await gradTable.read(), positions: await gradPositions.read() };
  }

  it.each([
    { texts: 0, length: 3, width: 5, vocabularySize: 4 },
    { texts: 1, length: 1, width: 1, vocabularySize: 1 },
    { texts: 3, length: 7, width: 13, vocabularySize: 2 },
    { texts: 2, length: 5, width: 2083, vocabularySize: 31 },
    { texts: emulated ? 2 : 9, length: 64, width: 96, vocabularySize: emulated ? 100 : 1000 },
    { texts: 1, length: 4, width: 5003, vocabularySize: 3 },
  ])('sums rows by token and by position: %j', async (sizes) => {
    const { texts, length, width, vocabularySize } = sizes;
    const random = draw(texts + width);
    const ids = Int32Array.from({ length: texts * length }, () => random.integer(0, vocabularySize - 1));
    const data = random.floats(ids.length * width);
    for (const dtype of activationTypes) await check(sizes, ids, rounded(data, dtype), dtype);
  });

  async function check(sizes: Case, ids: Int32Array, data: Float32Array, dtype: ActivationType): Promise<void> {
    const { length, width, vocabularySize } = sizes;
    const table = new Float64Array(vocabularySize * width);
    const positions = new Float64Array(length * width);
    data.forEach((value, i) => {
      const [row, column] = [Math.floor(i / width), i % width];
      table[(ids[row] as number) * width + column] = (table[(ids[row] as number) * width + column] as number) + value;
      const position = (row % length) * width + column;
      positions[position] = (positions[position] as number) + value;
    });
    const expected = await run(sizes, ids, data, { place: reference });
    expect(expected).toEqual({ table: Float32Array.from(table), positions: Float32Array.from(positions) });
    const place = Place.tested(dtype);
    const actual = await run(sizes, ids, data, { place });
    // Once rounded, as the reference, but for sums that lie between two float32 numbers to the last digit.
    expect(relativeError(actual.table, expected.table)).toBeLessThan(1.2e-7);
    expect(relativeError(actual.positions, expected.positions)).toBeLessThan(1.2e-7);
    for (const threads of threadCounts) expect(await run(sizes, ids, data, { place, threads })).toEqual(actual);
  }

  it('loses nothing over many rows of one token', async () => {
    const sizes = { texts: emulated ? 300 : 3000, length: 20, width: 3, vocabularySize: 2 };
    const ids = new Int32Array(sizes.texts * sizes.length).fill(1);
    // 60,000 times 0.1 after a large value that is taken back: plain float32 is off in the third digit.
    const data = new Float32Array(ids.length * sizes.width).fill(0.1);
    data.fill(1e5, 0, 3);
    data.fill(-1e5, data.length - 3);
    const { table } = await run(sizes, ids, data);
    const expected = Math.fround((ids.length - 2) * Math.fround(0.1));
    expect([...table]).toEqual([0, 0, 0, expected, expected, expected]);
  });

  it('refuses ids outside the vocabulary and lengths that do not fit', async () => {
    const gradOutput = tested.activation(new Float32Array(8), [4, 2]);
    const call = (ids: number[], length = 2, vocabularySize = 3) =>
      tokenEmbeddingBackward({ ids: Int32Array.from(ids), gradOutput, length, vocabularySize });
    for (const id of [-1, 3, 2147483647])
      await expectSiglipError(() => call([0, 1, id, 2]), 'ERR_SIGLIP_SHAPE', 'args.ids[2]', `got ${id}`);
    await expectSiglipError(() => call([0, 1, 2]), 'ERR_SIGLIP_SHAPE', 'args.ids', 'got 3');
    await expectSiglipError(() => call([0, 1, 2, 0], 3), 'ERR_SIGLIP_SHAPE', 'multiple of 3');
    await expect(call([0, 1, 2, 0], 0)).rejects.toThrow(/args\.length/);
    await expect(call([0, 1, 2, 0], 2, 0)).rejects.toThrow(/args\.vocabularySize/);
    await expect(call([0, 1, 2, 0], 2, 1e9)).rejects.toThrow(/args\.vocabularySize/);
  });
});

describe('positionEmbeddingBackward', () => {
  async function backward(
    data: Float32Array,
    width: number,
    spatialShapes: Int32Array,
    tableShape: [number, number],
    { place = tested, threads = 2 } = {},
  ): Promise<Float32Array> {
    const gradTokens = place.activation(data, [data.length / width, width]);
    const { gradTable } = await positionEmbeddingBackward({ gradTokens, spatialShapes, tableShape, threads });
    expect(gradTable.shape).toEqual([...tableShape, width]);
    return gradTable.read();
  }
  const tokensOf = (spatialShapes: Int32Array): number => {
    let tokens = 0;
    for (let i = 0; i < spatialShapes.length; i += 2)
      tokens += (spatialShapes[i] as number) * (spatialShapes[i + 1] as number);
    return tokens;
  };

  it.each(activationTypes)(
    'agrees with the reference for any table, grids and number of threads in %s',
    async (dtype) => {
      const random = draw(21);
      for (let round = 0; round < (emulated ? 8 : 40); round++) {
        const tableShape: [number, number] = [random.integer(1, 20), random.integer(1, 20)];
        const width = random.integer(1, round % 10 === 0 && !emulated ? 700 : 40);
        const spatialShapes = Int32Array.from({ length: 2 * random.integer(0, 3) }, () =>
          random.integer(1, emulated ? 20 : 40),
        );
        const tokens = tokensOf(spatialShapes);
        const data = random.floats(tokens * width);
        // Of the size of the sum of so many numbers of both signs.
        const terms = Math.sqrt(tokens / (tableShape[0] * tableShape[1]));
        const run = (place: Place, threads = 2) => backward(data, width, spatialShapes, tableShape, { place, threads });
        const actual = await run(Place.tested(dtype));
        const name = `${spatialShapes} → ${tableShape} of ${width}`;
        expect(relativeError(actual, await run(Place.reference(dtype)), terms), name).toBeLessThan(1e-6);
        for (const threads of threadCounts) expect(await run(Place.tested(dtype), threads), name).toEqual(actual);
      }
    },
  );

  it.each([
    [testDevice, tested],
    ['reference', reference],
  ] as [string, Place][])('is the transpose of the forward pass (%s)', async (_, place) => {
    // The forward pass is linear, so its derivative along any table is the forward pass of that table: the derivative
    // of Σ gradient · forward(table) must be Σ backward(gradient) · table, for every entry of the table alone.
    const [rows, columns, width] = [3, 5, 2];
    const spatialShapes = Int32Array.of(7, 2, 2, 9, 3, 5, 1, 1);
    const gradient = draw(3).floats(tokensOf(spatialShapes) * width);
    const actual = await backward(gradient, width, spatialShapes, [rows, columns], { place });
    for (let entry = 0; entry < rows * columns * width; entry++) {
      const table = new Float32Array(rows * columns * width);
      table[entry] = 1;
      const { output } = await positionEmbedding({
        table: place.parameter(table, [rows, columns, width]),
        spatialShapes,
      });
      const derivative = (await output.read()).reduce((sum, value, i) => sum + value * (gradient[i] as number), 0);
      // Weights of the forward pass, rounded to float32, times gradients of up to 7, some of which cancel.
      expect(Math.abs((actual[entry] as number) - derivative)).toBeLessThan(4e-6);
    }
  });

  it('sums images where the grid is the table', async () => {
    const images = emulated ? 50 : 500;
    const spatialShapes = Int32Array.from({ length: 2 * images }, (_, i) => 3 - (i % 2));
    const data = new Float32Array(images * 6 * 5).fill(0.1);
    const table = await backward(data, 5, spatialShapes, [3, 2]);
    expect(new Set(table)).toEqual(new Set([Math.fround(images * Math.fround(0.1))]));
  });

  it('refuses grids that do not fit', async () => {
    const gradTokens = tested.activation(new Float32Array(12), [6, 2]);
    const call = (shapes: number[], tableShape: unknown = [2, 2]) =>
      positionEmbeddingBackward({
        gradTokens,
        spatialShapes: Int32Array.from(shapes),
        tableShape: tableShape as [number, number],
      });
    await expectSiglipError(() => call([2, 2]), 'ERR_SIGLIP_SHAPE', 'grad_tokens');
    await expectSiglipError(() => call([2, 3, 0, 1]), 'ERR_SIGLIP_SHAPE', 'spatial_shapes');
    await expectSiglipError(() => call([2]), 'ERR_SIGLIP_SHAPE', 'spatialShapes');
    await expect(call([2, 3], [2])).rejects.toThrow(/args\.tableShape/);
    await expect(call([2, 3], [2, 0])).rejects.toThrow(/args\.tableShape\[1\].*got 0/);
    await expectSiglipError(() => call([2, 3], [1024, 1025]), 'ERR_SIGLIP_SHAPE', 'tableShape');
  });

  it('refuses more tokens than 64 bits count, which would look like one', async () => {
    const spatialShapes = new Int32Array(2 * 131_075).fill(65_536);
    for (let image = 0; image < 131_072; image++) spatialShapes[2 * image] = 2 ** 31 - 1;
    spatialShapes.fill(1, -2);
    const gradTokens = tested.activation(new Float32Array(1), [1, 1]);
    await expectSiglipError(
      () => positionEmbeddingBackward({ gradTokens, spatialShapes, tableShape: [2, 2] }),
      'ERR_SIGLIP_SHAPE',
      'at most 2147483647 tokens',
    );
  });
});
