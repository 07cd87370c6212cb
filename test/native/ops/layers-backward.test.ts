/**
 * Gradients of layer norm, GELU and L2 normalisation against the double-precision reference, and those of
 * the reference against central differences of the forward pass.
 */
import { describe, expect, it } from 'vitest';
import {
  gelu,
  geluBackward,
  l2Normalize,
  l2NormalizeBackward,
  layerNorm,
  layerNormBackward,
  Tensor,
} from '../../../lib/kernels/index.js';
import { largestDifference, relativeError, sameBits } from '../../support/compare.js';
import {
  type ActivationType,
  activationTypes,
  draw,
  Place,
  roundedOnce,
  shapesFor,
  testDevice,
  threadCounts,
} from '../../support/devices.js';

type Matrix = [number, number];
const shapes: Matrix[] = [
  [0, 8],
  [1, 1],
  [3, 7],
  [1, 1152],
  ...shapesFor<Matrix>(
    [
      [131, 768],
      [17, 1537],
      [1000, 61],
    ],
    [
      [35, 64],
      [2, 1537],
      [300, 13],
    ],
  ),
];
const shapesAndTypes = activationTypes.flatMap((dtype) =>
  shapes.map(([rows, width]) => [rows, width, dtype] as [number, number, ActivationType]),
);
const tested = Place.tested('float32');
const reference = Place.reference('float32');

const readAll = async <Name extends string>(tensors: Record<Name, Tensor>): Promise<Record<Name, Float32Array>> => {
  const entries = Object.entries<Tensor>(tensors);
  return Object.fromEntries(
    await Promise.all(entries.map(async ([name, tensor]) => [name, await tensor.read()])),
  ) as Record<Name, Float32Array>;
};

/** The slopes of `loss` along each value of `point`. The steps are those that float32 can represent. */
async function centralDifferences(
  point: Float32Array,
  size: number,
  loss: (changed: Float32Array) => Promise<number>,
): Promise<number[]> {
  const slopes = [];
  for (const i of point.keys()) {
    const [above, below] = [point.slice(), point.slice()];
    above[i] = (above[i] as number) + size;
    below[i] = (below[i] as number) - size;
    slopes.push(((await loss(above)) - (await loss(below))) / ((above[i] as number) - (below[i] as number)));
  }
  return slopes;
}
const weighted = (values: Float32Array, weights: Float32Array): number =>
  values.reduce((total, value, i) => total + value * (weights[i] as number), 0);

const wrongShapes = async (
  run: (args: { input: Tensor; gradOutput: Tensor }) => Promise<unknown>,
  sizes: Matrix = [2, 3],
): Promise<void> => {
  const tensor = (shape: number[]) => tested.parameter(new Float32Array(shape.reduce((a, b) => a * b, 1)), shape);
  const input = tensor(sizes);
  await expect(run({ input, gradOutput: tensor([sizes[1], sizes[0]]) })).rejects.toThrow(/gradOutput/);
  await expect(run({ input, gradOutput: tensor([sizes[0] * sizes[1]]) })).rejects.toThrow(/gradOutput/);
  await expect(run({ input, gradOutput: new Float32Array(6) as never })).rejects.toThrow(/gradOutput/);
  await expect(run({ input, gradOutput: input, extra: 1 } as never)).rejects.toThrow(/extra/);
};

describe('layerNormBackward', () => {
  interface Data {
    input: Float32Array;
    weight: Float32Array;
    gradOutput: Float32Array;
  }
  const makeData = (seed: number, [rows, width]: Matrix): Data => {
    const random = draw(seed);
    return {
      input: random.floats(rows * width, 3),
      weight: random.floats(width),
      gradOutput: random.floats(rows * width),
    };
  };
  const run = async (place: Place, shape: Matrix, data: Data, options: { threads?: number; epsilon?: number } = {}) =>
    readAll(
      await layerNormBackward({
        input: place.activation(data.input, shape),
        weight: place.parameter(data.weight, [shape[1]]),
        gradOutput: place.activation(data.gradOutput, shape),
        ...options,
      }),
    );

  it.each(shapesAndTypes)('%i rows of %i in %s', async (rows, width, dtype) => {
    const shape: Matrix = [rows, width];
    const data = makeData(rows + width, shape);
    const actual = await run(Place.tested(dtype), shape, data);
    const expected = await run(Place.reference(dtype), shape, data);
    // A value alone is its mean: its gradient is what is left of a product after its rounding, over √epsilon.
    const alone = width === 1 ? Math.abs((data.gradOutput[0] as number) * (data.weight[0] as number)) * 1e3 : 0;
    for (const name of ['gradInput', 'gradWeight', 'gradBias'] as const)
      expect(relativeError(actual[name], expected[name], name === 'gradInput' ? alone : 0), name).toBeLessThan(
        name === 'gradInput' ? roundedOnce(dtype, 2e-6) : 2e-6,
      );
  });

  it('keeps its precision when the mean is much larger than the deviation', async () => {
    const shape: Matrix = [2, 768];
    const data = makeData(4, shape);
    data.input = draw(4)
      .floats(2 * 768, 0.1)
      .map((value) => value + 100);
    const [actual, expected] = [await run(tested, shape, data), await run(reference, shape, data)];
    // The mean of numbers near 100 is off by up to 3.4 · 100 · 2⁻²⁴ on CPUs, as in the forward pass, of a deviation of
    // 0.098; GPUs take that out again.
    for (const name of ['gradInput', 'gradWeight'] as const)
      expect(relativeError(actual[name], expected[name]), name).toBeLessThan(testDevice === 'cpu' ? 5e-4 : 1e-4);
  });

  it('has a reference that is the gradient of layerNorm', async () => {
    const shape: Matrix = [3, 6];
    const data = { ...makeData(21, shape), bias: draw(1).floats(6) };
    const gradients = await run(reference, shape, data, { epsilon: 0.5 });
    const loss = async (args: typeof data) => {
      const { output } = await layerNorm({
        input: Tensor.from(args.input, shape, { device: 'reference' }),
        weight: Tensor.from(args.weight, [6], { device: 'reference' }),
        bias: Tensor.from(args.bias, [6], { device: 'reference' }),
        epsilon: 0.5,
      });
      return weighted(await output.read(), data.gradOutput);
    };
    for (const [argument, name] of [
      ['input', 'gradInput'],
      ['weight', 'gradWeight'],
      ['bias', 'gradBias'],
    ] as const) {
      // Rounding of the outputs to float32 over the step, 1e-7/1e-2, and the third derivative, times 1e-2 squared.
      const slopes = await centralDifferences(data[argument], 1e-2, (changed) =>
        loss({ ...data, [argument]: changed }),
      );
      expect(largestDifference(slopes, gradients[name]), name).toBeLessThan(1e-4);
    }
  });

  it('passes the deviations of the gradient on for a constant row, as steeply as epsilon allows', async () => {
    const data = {
      input: new Float32Array(5).fill(7),
      weight: new Float32Array(5).fill(2),
      gradOutput: Float32Array.of(1, 2, 3, 4, 5),
    };
    const { gradInput, gradWeight, gradBias } = await run(tested, [1, 5], data, { epsilon: 0.0625 });
    expect([...gradInput]).toEqual([-16, -8, 0, 8, 16]);
    expect([...gradWeight]).toEqual([0, 0, 0, 0, 0]);
    expect([...gradBias]).toEqual([1, 2, 3, 4, 5]);
  });

  it('gives the same bits on any number of threads', async () => {
    const shape: Matrix = shapesFor<Matrix>([[333, 391]], [[33, 39]])[0] as Matrix;
    const data = makeData(9, shape);
    const expected = await run(tested, shape, data, { threads: 1 });
    for (const threads of [2, ...threadCounts, 8]) {
      const actual = await run(tested, shape, data, { threads });
      for (const name of ['gradInput', 'gradWeight', 'gradBias'] as const)
        expect(sameBits(actual[name], expected[name]), `${name}, ${threads}`).toBe(true);
    }
  });

  it('keeps NaN to its row and column', async () => {
    const shape: Matrix = [5, 37];
    const data = makeData(2, shape);
    const clean = await run(tested, shape, data);
    data.gradOutput[36] = Number.NaN;
    const { gradInput, gradWeight, gradBias } = await run(tested, shape, data);
    expect(gradInput.slice(0, 37).every(Number.isNaN)).toBe(true);
    expect(gradInput.slice(37)).toEqual(clean.gradInput.slice(37));
    for (const [values, expected] of [
      [gradWeight, clean.gradWeight],
      [gradBias, clean.gradBias],
    ] as const) {
      expect(values[36]).toBeNaN();
      expect(values.slice(0, 36)).toEqual(expected.slice(0, 36));
    }
  });

  it('names what does not fit', async () => {
    const weight = tested.parameter(new Float32Array(3), [3]);
    await wrongShapes((args) => layerNormBackward({ weight, ...args }));
    const input = tested.parameter(new Float32Array(8), [2, 4]);
    await expect(layerNormBackward({ input, weight, gradOutput: input })).rejects.toThrow(/weight/);
    await expect(layerNormBackward({ input, weight, gradOutput: input, epsilon: '1' as never })).rejects.toThrow(
      /epsilon/,
    );
  });
});

describe('geluBackward', () => {
  const run = async (place: Place, shape: Matrix, input: Float32Array, gradOutput: Float32Array, threads = 2) =>
    (
      await geluBackward({
        input: place.activation(input, shape),
        gradOutput: place.activation(gradOutput, shape),
        threads,
      })
    ).gradInput.read();

  it.each(shapesAndTypes)('%i rows of %i in %s', async (rows, width, dtype) => {
    const shape: Matrix = [rows, width];
    const random = draw(rows * width);
    const [input, gradOutput] = [random.floats(rows * width, 2), random.floats(rows * width)];
    const actual = await run(Place.tested(dtype), shape, input, gradOutput);
    const expected = await run(Place.reference(dtype), shape, input, gradOutput);
    // Rounding is relative to slopes of size 1, also where a lone slope is near 0.
    const size = gradOutput.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    expect(relativeError(actual, expected, size)).toBeLessThan(roundedOnce(dtype, 4e-7));
    for (const threads of threadCounts)
      expect(sameBits(await run(Place.tested(dtype), shape, input, gradOutput, threads), actual)).toBe(true);
  });

  it('is accurate from large negative to large positive values', async () => {
    const input = Float32Array.from({ length: 40001 }, (_, i) => (i - 20000) / 1500);
    const ones = new Float32Array(input.length).fill(1);
    const actual = await run(tested, [1, input.length], input, ones);
    expect(largestDifference(actual, await run(reference, [1, input.length], input, ones))).toBeLessThan(3e-7);
  });

  it.each([
    [testDevice, tested],
    ['reference', reference],
  ] as [string, Place][])('has its limits at infinities and NaN at NaN (%s)', async (_, device) => {
    const input = Float32Array.of(0, -0, Infinity, -Infinity, NaN, 3e38, -3e38, 20, -20);
    const values = await run(device, [1, 9], input, new Float32Array(9).fill(2));
    expect([...values].map((value) => value + 0)).toEqual([1, 1, 2, 0, NaN, 2, 0, 2, expect.closeTo(0, 30)]);
    const grads = Float32Array.of(NaN, Infinity, NaN, -Infinity);
    expect([...(await run(device, [1, 4], Float32Array.of(1, 1, -3, 2), grads))]).toEqual([
      NaN,
      Infinity,
      NaN,
      -Infinity,
    ]);
  });

  it('has a reference that is the gradient of gelu', async () => {
    const input = Float32Array.from({ length: 81 }, (_, i) => (i - 40) / 10);
    const ones = new Float32Array(81).fill(1);
    const values = async (offset: number) => {
      const moved = input.map((z) => z + offset);
      const { output } = await gelu({ input: Tensor.from(moved, [1, 81], { device: 'reference' }) });
      return { moved, output: await output.read() };
    };
    const [above, below] = [await values(1e-2), await values(-1e-2)];
    const slopes = input.map(
      (_, i) =>
        ((above.output[i] as number) - (below.output[i] as number)) /
        ((above.moved[i] as number) - (below.moved[i] as number)),
    );
    // Rounding of outputs up to 4 over the step, 2.4e-7/1e-2, and the third derivative, below 3, times 1e-4/6.
    expect(largestDifference(await run(reference, [1, 81], input, ones), slopes)).toBeLessThan(7e-5);
  });

  it('names what does not fit', async () => wrongShapes(geluBackward));
});

describe('l2NormalizeBackward', () => {
  /** Four units of double precision of gradients over lengths, the most of any row of one value. */
  const roundingOfOne = (input: Float32Array, gradOutput: Float32Array) =>
    Math.max(...input.map((x, row) => (4 * Number.EPSILON * Math.abs(gradOutput[row] as number)) / Math.abs(x)));

  const run = async (place: Place, shape: Matrix, input: Float32Array, gradOutput: Float32Array, threads = 2) =>
    (
      await l2NormalizeBackward({
        input: place.activation(input, shape),
        gradOutput: place.activation(gradOutput, shape),
        threads,
      })
    ).gradInput.read();

  it.each(shapesAndTypes)('%i rows of %i in %s', async (rows, width, dtype) => {
    const shape: Matrix = [rows, width];
    const random = draw(rows * width);
    const [input, gradOutput] = [random.floats(rows * width, 20), random.floats(rows * width)];
    const actual = await run(Place.tested(dtype), shape, input, gradOutput);
    const expected = await run(Place.reference(dtype), shape, input, gradOutput);
    // A row of one value keeps its length whatever it is: (g - y (y g)) / |x| is 0 but for rounding in double precision.
    if (width === 1) expect(largestDifference(actual, expected)).toBeLessThan(roundingOfOne(input, gradOutput));
    else expect(relativeError(actual, expected)).toBeLessThan(roundedOnce(dtype, 1e-7));
    for (const threads of threadCounts)
      expect(sameBits(await run(Place.tested(dtype), shape, input, gradOutput, threads), actual)).toBe(true);
  });

  it('neither overflows nor vanishes, and is 0 for rows of zeros', async () => {
    const input = Float32Array.of(3e38, 3e38, 1e-40, 0, 0, 0, 3, 4);
    const gradOutput = Float32Array.of(1e38, -1e38, 1, 1e-3, 1, 2, 1, 0);
    for (const place of [tested, reference]) {
      const rows = await run(place, [4, 2], input, gradOutput);
      expect(rows[0]).toBeCloseTo(Math.SQRT1_2 / 3, 6);
      expect(rows[1]).toBeCloseTo(-Math.SQRT1_2 / 3, 6);
      // Across (x, 0) there is nothing along x, but for rounding in double precision.
      expect(Math.abs(rows[2] as number)).toBeLessThan(2 ** -52 / 1e-40);
      // 1e-40 is a subnormal number of five digits.
      expect((rows[3] as number) / 1e37).toBeCloseTo(1, 4);
      expect([rows[4], rows[5]]).toEqual([0, 0]);
      // (g − (g·y) y)/5 with y = (0.6, 0.8).
      expect(rows[6]).toBeCloseTo(0.128, 7);
      expect(rows[7]).toBeCloseTo(-0.096, 7);
    }
  });

  it('has a reference that is the gradient of l2Normalize', async () => {
    const shape: Matrix = [3, 5];
    const random = draw(12);
    // Rows of length 3.6 and more: the third derivative falls with its cube.
    const input = random.floats(15).map((value, i) => (i % 5 === 0 ? value + 7 : value));
    const gradOutput = random.floats(15);
    const slopes = await centralDifferences(input, 1e-2, async (changed) => {
      const { output } = await l2Normalize({ input: Tensor.from(changed, shape, { device: 'reference' }) });
      return weighted(await output.read(), gradOutput);
    });
    // Rounding of the outputs to float32 over the step, 6e-8/1e-2, and the third derivative, times 1e-2 squared.
    expect(largestDifference(slopes, await run(reference, shape, input, gradOutput))).toBeLessThan(5e-5);
  });

  it('names what does not fit', async () => wrongShapes(l2NormalizeBackward));
});
