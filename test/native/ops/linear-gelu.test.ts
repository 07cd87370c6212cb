/** Linear layers with GELU of their input, forward and backward, against the operations one after the other. */
import { describe, expect, it } from 'vitest';
import { gelu, geluBackward, linear, linearBackward, type WeightDType } from '../../../lib/kernels/index.js';
import { largestDifference, relativeError, sameBits } from '../../support/compare.js';
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
  vendorProducts,
} from '../../support/devices.js';

interface Shape {
  rows: number;
  inputs: number;
  outputs: number;
}
interface Data {
  shape: Shape;
  input: Float32Array;
  weight: Float32Array;
  bias: Float32Array;
  residual: Float32Array;
  gradOutput: Float32Array;
}
interface Options {
  threads?: number;
  weightDtype?: WeightDType;
}

function makeData(seed: number, shape: Shape): Data {
  const { rows, inputs, outputs } = shape;
  const random = draw(seed);
  return {
    shape,
    input: random.floats(rows * inputs, 3),
    weight: random.floats(outputs * inputs, inputs ** -0.5),
    bias: random.floats(outputs),
    residual: random.floats(rows * outputs),
    gradOutput: random.floats(rows * outputs),
  };
}

function forwardArguments(place: Place, { shape, ...data }: Data) {
  const { rows, inputs, outputs } = shape;
  return {
    input: place.activation(data.input, [rows, inputs]),
    weight: place.activation(data.weight, [outputs, inputs]),
    bias: place.parameter(data.bias, [outputs]),
    residual: place.activation(data.residual, [rows, outputs]),
  };
}

async function forward(place: Place, data: Data, options: Options = {}): Promise<Float32Array> {
  const { output } = await linear({ ...forwardArguments(place, data), inputActivation: 'gelu', ...options });
  return output.read();
}

async function forwardApart(place: Place, data: Data, options: Options = {}): Promise<Float32Array> {
  const { input, ...others } = forwardArguments(place, data);
  const activated = await gelu({ input });
  const { output } = await linear({ input: activated.output, ...others, ...options });
  return output.read();
}

interface BackwardOptions {
  threads?: number;
  weightDtype?: ActivationType;
}
const names = ['gradInput', 'gradWeight', 'gradBias'] as const;
type Gradients = Record<(typeof names)[number], Float32Array>;

function backwardArguments(place: Place, { shape, ...data }: Data) {
  const { rows, inputs, outputs } = shape;
  return {
    input: place.activation(data.input, [rows, inputs]),
    weight: place.activation(data.weight, [outputs, inputs]),
    gradOutput: place.activation(data.gradOutput, [rows, outputs]),
  };
}

async function backward(place: Place, data: Data, options: BackwardOptions = {}): Promise<Gradients> {
  const { gradInput, gradWeight, gradBias } = await linearBackward({
    ...backwardArguments(place, data),
    inputActivation: 'gelu',
    ...options,
  });
  return { gradInput: await gradInput.read(), gradWeight: await gradWeight.read(), gradBias: await gradBias.read() };
}

async function backwardApart(place: Place, data: Data, options: BackwardOptions = {}): Promise<Gradients> {
  const { input, weight, gradOutput } = backwardArguments(place, data);
  const activated = await gelu({ input });
  const gradients = await linearBackward({ input: activated.output, weight, gradOutput, ...options });
  const { gradInput } = await geluBackward({ input, gradOutput: gradients.gradInput });
  return {
    gradInput: await gradInput.read(),
    gradWeight: await gradients.gradWeight.read(),
    gradBias: await gradients.gradBias.read(),
  };
}

const packedTypes: ('bfloat16' | 'int8')[] = testDevice === 'cpu' ? ['bfloat16', 'int8'] : [];
const tested = Place.tested('float32');
const reference = Place.reference('float32');

const cases: [string, Shape][] = [
  ['1 × 1 × 1', { rows: 1, inputs: 1, outputs: 1 }],
  ['no rows', { rows: 0, inputs: 5, outputs: 3 }],
  ['one input', { rows: 70, inputs: 1, outputs: 130 }],
  ['one output', { rows: 70, inputs: 130, outputs: 1 }],
  ...shapesFor<[string, Shape]>(
    [
      ['one row', { rows: 1, inputs: 3072, outputs: 768 }],
      ['primes', { rows: 131, inputs: 257, outputs: 61 }],
      ['So400m MLP, down', { rows: 33, inputs: 4304, outputs: 1152 }],
      ['several blocks of rows', { rows: 1100, inputs: 70, outputs: 48 }],
      [
        'blocks of outputs for each of whose weight gradients the input is packed',
        { rows: 40, inputs: 96, outputs: 801 },
      ],
    ],
    [
      ['primes', { rows: 131, inputs: 67, outputs: 61 }],
      ['several tiles', { rows: 137, inputs: 72, outputs: 136 }],
    ],
  ),
];

function randomShapes(seed: number): Shape[] {
  const random = draw(seed);
  return Array.from({ length: emulated ? 6 : 40 }, () => ({
    rows: random.integer(1, emulated ? 40 : 150),
    inputs: random.integer(1, emulated ? 90 : 700),
    outputs: random.integer(1, emulated ? 70 : 200),
  }));
}

/** How far results may be from the reference's where the input is rounded behind GELU. */
function roundingBound({ inputs }: Shape): number {
  // GELU of a value differs by some 2⁻²² of the largest, so that one in some thousand is rounded to the other neighbour,
  // half of 2⁻⁸ of it away: a few of a sum's terms, each at most 3 · 3/√inputs, against results of order 1.
  return 2e-6 + bfloat16Rounding * Math.min(1, (3 * 9) / Math.sqrt(inputs));
}

describe('linear with GELU of its input', () => {
  const casesAndTypes = activationTypes.flatMap((dtype) =>
    cases.map(([name, shape]) => [name, dtype, shape] as [string, ActivationType, Shape]),
  );

  it.each(casesAndTypes)('%s in %s: the same bits as one after the other', async (_, dtype, shape) => {
    const data = makeData(3, shape);
    const place = Place.tested(dtype);
    expect(sameBits(await forward(place, data), await forwardApart(place, data))).toBe(true);
    const [actual, expected] = [await backward(place, data), await backwardApart(place, data)];
    for (const name of names) expect(sameBits(actual[name], expected[name]), name).toBe(true);
  });

  it('has the same bits as one after the other on random shapes', async () => {
    for (const [round, shape] of randomShapes(21).entries()) {
      const data = makeData(round, shape);
      const message = JSON.stringify(shape);
      expect(sameBits(await forward(tested, data), await forwardApart(tested, data)), message).toBe(true);
      const [actual, expected] = [await backward(tested, data), await backwardApart(tested, data)];
      for (const name of names) expect(sameBits(actual[name], expected[name]), `${name}, ${message}`).toBe(true);
    }
  });

  it('agrees with the reference, which is its operations one after the other', async () => {
    for (const [round, shape] of randomShapes(22).entries()) {
      const data = makeData(round, shape);
      const message = JSON.stringify(shape);
      const expected = await forward(reference, data);
      expect(sameBits(expected, await forwardApart(reference, data)), message).toBe(true);
      expect(relativeError(await forward(tested, data), expected, 1), message).toBeLessThan(2e-6);
      const [actual, gradients, apart] = [
        await backward(tested, data),
        await backward(reference, data),
        await backwardApart(reference, data),
      ];
      for (const name of names) {
        const size = Math.sqrt(name === 'gradInput' ? 1 : shape.rows);
        expect(relativeError(actual[name], gradients[name], size), `${name}, ${message}`).toBeLessThan(3e-6);
        // One after the other rounds the gradient once more; the derivative is at most 1.13.
        expect(relativeError(gradients[name], apart[name], size), `${name}, ${message}`).toBeLessThan(2.2 * 2 ** -24);
      }
    }
  });

  const packedCases = packedTypes.flatMap((type) => cases.map(([name, shape]) => [name, type, shape] as const));
  it.each(packedCases)('%s with weights in %s agrees with the reference', async (_, weightDtype, shape) => {
    const data = makeData(4, shape);
    const options = { weightDtype };
    const [actual, expected] = [await forward(tested, data, options), await forward(reference, data, options)];
    // An integer of a row in int8 that is rounded to the other neighbour is off by 1/127 of the row's largest value.
    const bound = roundingBound(shape) * (weightDtype === 'int8' ? 2 : 1);
    expect(relativeError(actual, expected, 1)).toBeLessThan(bound);
  });

  it.each(packedTypes)('rounds few inputs otherwise than the reference, weights in %s', async (weightDtype) => {
    const shape = { rows: 400, inputs: 120, outputs: 30 };
    const data = makeData(5, shape);
    const [actual, expected] = [
      await forward(tested, data, { weightDtype }),
      await forward(reference, data, { weightDtype }),
    ];
    const rows = Array.from({ length: shape.rows }, (_, row) =>
      largestDifference(
        actual.subarray(row * shape.outputs, (row + 1) * shape.outputs),
        expected.subarray(row * shape.outputs, (row + 1) * shape.outputs),
      ),
    );
    const others = rows.filter((difference) => difference > 4e-6).length;
    expect(others).toBeLessThan(shape.rows / 4);
  });

  describe.skipIf(testDevice !== 'cpu')('with products in bfloat16', () => {
    it.each(cases)('%s: gradients agree with the reference', async (_, shape) => {
      const data = makeData(6, shape);
      const options = { weightDtype: 'bfloat16' } as const;
      const [actual, expected] = [await backward(tested, data, options), await backward(reference, data, options)];
      const rows = Math.sqrt(shape.rows);
      // The derivative is multiplied behind the product, so that nothing is rounded after it.
      expect(relativeError(actual.gradInput, expected.gradInput, 1)).toBeLessThan(3e-6);
      expect(relativeError(actual.gradBias, expected.gradBias, rows)).toBeLessThan(2e-6);
      expect(relativeError(actual.gradWeight, expected.gradWeight, rows)).toBeLessThan(
        2e-6 + bfloat16Rounding * Math.min(1, 27 / Math.max(1, shape.rows)),
      );
    });
  });

  it.each(['float32', ...packedTypes] as const)(
    'gives the same bits on any number of threads, and for a row in any batch, weights in %s',
    async (weightDtype) => {
      const shape = emulated ? { rows: 150, inputs: 70, outputs: 50 } : { rows: 300, inputs: 770, outputs: 500 };
      const data = makeData(7, shape);
      const expected = await forward(tested, data, { threads: 1, weightDtype });
      for (const threads of threadCounts)
        expect(sameBits(await forward(tested, data, { threads, weightDtype }), expected)).toBe(true);
      const parts = [
        [0, 1],
        [shape.rows - 1, 1],
        [7, 13],
        [50, 100],
      ] as const;
      for (const [first, rows] of vendorProducts ? [] : parts) {
        const rowsOf = (values: Float32Array, width: number) => values.slice(first * width, (first + rows) * width);
        const part = {
          ...data,
          shape: { ...shape, rows },
          input: rowsOf(data.input, shape.inputs),
          residual: rowsOf(data.residual, shape.outputs),
        };
        expect(sameBits(await forward(tested, part, { weightDtype }), rowsOf(expected, shape.outputs))).toBe(true);
      }
      if (weightDtype === 'int8') return;
      const gradients = await backward(tested, data, { threads: 1, weightDtype });
      for (const threads of threadCounts) {
        const actual = await backward(tested, data, { threads, weightDtype });
        for (const name of names) expect(sameBits(actual[name], gradients[name]), name).toBe(true);
      }
    },
  );

  it('passes NaN and infinities on, and takes −∞ for 0', async () => {
    const data = makeData(8, { rows: 4, inputs: 2, outputs: 1 });
    data.weight.fill(1);
    data.input.set([Number.NaN, 1, Number.POSITIVE_INFINITY, 1, Number.NEGATIVE_INFINITY, 0, 0, 0]);
    data.bias.fill(0);
    data.residual.fill(0);
    data.gradOutput.fill(1);
    expect([...(await forward(tested, data))]).toEqual([Number.NaN, Number.POSITIVE_INFINITY, 0, 0]);
    const { gradInput } = await backward(tested, data);
    expect([gradInput[0], gradInput[2], gradInput[4], gradInput[6]]).toEqual([Number.NaN, 1, 0, 0.5]);
  });

  it('names an activation that there is not', async () => {
    const data = makeData(9, { rows: 2, inputs: 3, outputs: 4 });
    const inputActivation = 'relu' as never;
    await expect(linear({ ...forwardArguments(tested, data), inputActivation })).rejects.toThrow(/inputActivation/);
    await expect(linearBackward({ ...backwardArguments(tested, data), inputActivation })).rejects.toThrow(
      /inputActivation/,
    );
  });
});
