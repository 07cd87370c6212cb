/** Gradients of linear layers against the double-precision reference, and that against its formula. */
import { describe, expect, it } from 'vitest';
import { linear, linearBackward, Tensor } from '../../../lib/kernels/index.js';
import { relativeError, sameBits } from '../../support/compare.js';
import {
  type ActivationType,
  activationTypes,
  draw,
  emulated,
  Place,
  roundedOnce,
  shapesFor,
  testDevice,
  threadCounts,
} from '../../support/devices.js';

interface Shape {
  rows: number;
  inputs: number;
  outputs: number;
}
interface Data {
  input: Float32Array;
  weight: Float32Array;
  gradOutput: Float32Array;
}
interface Gradients {
  gradInput: Float32Array;
  gradWeight: Float32Array;
  gradBias: Float32Array;
}
const names = ['gradInput', 'gradWeight', 'gradBias'] as const;

function makeData(seed: number, { rows, inputs, outputs }: Shape): Data {
  const random = draw(seed);
  return {
    input: random.floats(rows * inputs),
    weight: random.floats(outputs * inputs),
    gradOutput: random.floats(rows * outputs),
  };
}

async function run(
  place: Place,
  shape: Shape,
  data: Data,
  threads?: number,
  weightDtype?: ActivationType,
): Promise<Gradients> {
  const { rows, inputs, outputs } = shape;
  const gradients = await linearBackward({
    input: place.activation(data.input, [rows, inputs]),
    weight: place.activation(data.weight, [outputs, inputs]),
    gradOutput: place.activation(data.gradOutput, [rows, outputs]),
    ...(threads === undefined ? {} : { threads }),
    ...(weightDtype === undefined ? {} : { weightDtype }),
  });
  expect(gradients.gradInput.shape).toEqual([rows, inputs]);
  expect(gradients.gradWeight.shape).toEqual([outputs, inputs]);
  expect(gradients.gradBias.shape).toEqual([outputs]);
  return {
    gradInput: await gradients.gradInput.read(),
    gradWeight: await gradients.gradWeight.read(),
    gradBias: await gradients.gradBias.read(),
  };
}

async function expectAgreement(
  dtype: ActivationType,
  seed: number,
  shape: Shape,
  weightDtype?: ActivationType,
): Promise<void> {
  const data = makeData(seed, shape);
  const actual = await run(Place.tested(dtype), shape, data, undefined, weightDtype);
  const expected = await run(Place.reference(dtype), shape, data, undefined, weightDtype);
  for (const name of names) {
    // Gradients of parameters are float32 whatever the activations are. Tensor cores cut sums off instead of rounding
    // them: half a unit in the last place, always downwards, for each 16 rows.
    const cut = testDevice === 'cuda' && dtype === 'bfloat16' ? (shape.rows / 16) * 2 ** -24 : 0;
    const bound = name === 'gradInput' ? roundedOnce(dtype, 2e-6) : 2e-6 + cut;
    // Sums of n random terms are of size √n, but a lone one may be near 0.
    const size = Math.sqrt(name === 'gradInput' ? shape.outputs : shape.rows);
    expect(relativeError(actual[name], expected[name], size), `${name} of ${JSON.stringify(shape)}`).toBeLessThan(
      bound,
    );
  }
}

const tested = Place.tested('float32');
const reference = Place.reference('float32');

/** Types of the operands of products beside float32 tensors. */
const productTypes: ActivationType[] = testDevice === 'cpu' ? ['float32', 'bfloat16'] : ['float32'];

const cases: [string, Shape][] = [
  ['1 × 1 × 1', { rows: 1, inputs: 1, outputs: 1 }],
  ['rows in parts', { rows: 2100, inputs: 40, outputs: 136 }],
  ['large tiles', { rows: 24, inputs: 1160, outputs: 1288 }],
  ['one row', { rows: 1, inputs: emulated ? 96 : 768, outputs: emulated ? 40 : 300 }],
  ['one input', { rows: 70, inputs: 1, outputs: 130 }],
  ['one output', { rows: 70, inputs: 130, outputs: 1 }],
  ...shapesFor<[string, Shape]>(
    [
      ['primes', { rows: 131, inputs: 257, outputs: 61 }],
      ['two blocks of rows', { rows: 257, inputs: 48, outputs: 24 }],
      ['many blocks of rows', { rows: 3001, inputs: 33, outputs: 17 }],
      ['a row more than two blocks of pairs', { rows: 1025, inputs: 31, outputs: 29 }],
      ['several blocks of outputs and groups of inputs', { rows: 40, inputs: 330, outputs: 1201 }],
      ['B/16 MLP', { rows: 30, inputs: 768, outputs: 3072 }],
      ['patch 14', { rows: 50, inputs: 588, outputs: 1152 }],
    ],
    [
      ['primes', { rows: 131, inputs: 67, outputs: 61 }],
      ['many rows', { rows: 601, inputs: 33, outputs: 17 }],
      ['several tiles', { rows: 40, inputs: 140, outputs: 136 }],
    ],
  ),
];

const casesAndTypes = activationTypes.flatMap((dtype) =>
  cases.map(([name, shape]) => [name, dtype, shape] as [string, ActivationType, Shape]),
);

describe('linearBackward', () => {
  it.each(casesAndTypes)('%s in %s', async (_, dtype, shape) => expectAgreement(dtype, 5, shape));

  it.each(activationTypes)('agrees with the reference on random shapes in %s', async (dtype) => {
    const random = draw(17);
    for (let round = 0; round < (emulated ? 8 : 60); round++)
      await expectAgreement(dtype, round, {
        rows: random.integer(1, emulated ? 90 : 300),
        inputs: random.integer(1, emulated ? 60 : 200),
        outputs: random.integer(1, emulated ? 60 : 200),
      });
  });

  describe.skipIf(testDevice !== 'cpu')('with products in bfloat16', () => {
    it.each(cases)('%s', async (_, shape) => expectAgreement('float32', 6, shape, 'bfloat16'));

    it('agrees with the reference on random shapes', async () => {
      const random = draw(18);
      for (let round = 0; round < (emulated ? 8 : 60); round++) {
        const [rows, inputs, outputs] = [random.integer(1, 300), random.integer(1, 200), random.integer(1, 200)];
        await expectAgreement('float32', round, { rows, inputs, outputs }, 'bfloat16');
      }
    });

    it('agrees with the reference for every number of rows up to 20', async () => {
      for (let rows = 1; rows <= 20; rows++)
        await expectAgreement('float32', rows, { rows, inputs: 37, outputs: 19 }, 'bfloat16');
    });

    it('is close to float32, and its bias gradient is as exact', async () => {
      const shape = { rows: 700, inputs: 50, outputs: 90 };
      const data = makeData(8, shape);
      for (const place of [tested, reference]) {
        const [exact, rounded] = [await run(place, shape, data), await run(place, shape, data, undefined, 'bfloat16')];
        for (const name of ['gradInput', 'gradWeight'] as const) {
          // Half a unit of 2⁻⁸, random: sums are no worse than one product.
          const error = relativeError(rounded[name], exact[name]);
          expect(error, name).toBeLessThan(0.005);
          expect(error, name).toBeGreaterThan(1e-4);
        }
        // The rows are summed up in other blocks, and not rounded before.
        expect(relativeError(rounded.gradBias, exact.gradBias, Math.sqrt(shape.rows))).toBeLessThan(3e-7);
      }
    });
  });

  it.each(productTypes)('gives zeros for no rows, products in %s', async (type) => {
    const shape = { rows: 0, inputs: 5, outputs: 3 };
    for (const place of [tested, reference])
      expect(await run(place, shape, makeData(1, shape), undefined, type)).toEqual({
        gradInput: new Float32Array(0),
        gradWeight: new Float32Array(15),
        gradBias: new Float32Array(3),
      });
  });

  it('has a reference that follows the formula', async () => {
    const shape = { rows: 7, inputs: 5, outputs: 3 };
    const { rows, inputs, outputs } = shape;
    const data = makeData(3, shape);
    const sum = (count: number, term: (i: number) => number) => {
      let total = 0;
      for (let i = 0; i < count; i++) total += term(i);
      return Math.fround(total);
    };
    const at = (array: Float32Array, index: number) => array[index] as number;
    const { input, weight, gradOutput } = data;
    expect(await run(reference, shape, data)).toEqual({
      gradInput: Float32Array.from({ length: rows * inputs }, (_, i) => {
        const [row, column] = [Math.floor(i / inputs), i % inputs];
        return sum(outputs, (o) => at(gradOutput, row * outputs + o) * at(weight, o * inputs + column));
      }),
      gradWeight: Float32Array.from({ length: outputs * inputs }, (_, i) => {
        const [output, column] = [Math.floor(i / inputs), i % inputs];
        return sum(rows, (r) => at(gradOutput, r * outputs + output) * at(input, r * inputs + column));
      }),
      gradBias: Float32Array.from({ length: outputs }, (_, o) => sum(rows, (r) => at(gradOutput, r * outputs + o))),
    });
  });

  it('is the gradient of the layer: what changes when an argument does', async () => {
    // The layer is linear in each argument, so a step of any size gives the exact derivative; what is left is the
    // rounding of some 20 outputs of order 1 to float32.
    const shape = { rows: 4, inputs: 6, outputs: 5 };
    const data = { ...makeData(8, shape), bias: draw(2).floats(5) };
    const gradients = await run(reference, shape, data);
    const loss = async ({ input, weight, bias }: typeof data) => {
      const { output } = await linear({
        input: Tensor.from(input, [4, 6], { device: 'reference' }),
        weight: Tensor.from(weight, [5, 6], { device: 'reference' }),
        bias: Tensor.from(bias, [5], { device: 'reference' }),
      });
      return (await output.read()).reduce((total, y, i) => total + y * (data.gradOutput[i] as number), 0);
    };
    for (const [argument, name] of [
      ['input', 'gradInput'],
      ['weight', 'gradWeight'],
      ['bias', 'gradBias'],
    ] as const)
      for (const i of data[argument].keys()) {
        const changed = (step: number) => {
          const copy = data[argument].slice();
          copy[i] = (copy[i] as number) + step;
          return { ...data, [argument]: copy };
        };
        const [above, below] = [changed(1), changed(-1)];
        const step = (above[argument][i] as number) - (below[argument][i] as number);
        const slope = ((await loss(above)) - (await loss(below))) / step;
        expect(Math.abs(slope - (gradients[name][i] as number)), `${name}[${i}]`).toBeLessThan(2e-6);
      }
  });

  it('multiplies by the transposed weight as linear does, bit for bit', async () => {
    for (const shape of [
      { rows: 9, inputs: 1, outputs: 1 },
      { rows: 5, inputs: 7, outputs: 33 },
      { rows: 20, inputs: 61, outputs: 130 },
      { rows: 3, inputs: emulated ? 76 : 768, outputs: emulated ? 77 : 769 },
    ]) {
      const { rows, inputs, outputs } = shape;
      const data = makeData(inputs, shape);
      const transposed = Float32Array.from(
        { length: inputs * outputs },
        (_, i) => data.weight[(i % outputs) * inputs + Math.floor(i / outputs)] as number,
      );
      const { output } = await linear({
        input: tested.activation(data.gradOutput, [rows, outputs]),
        weight: tested.activation(transposed, [inputs, outputs]),
      });
      expect((await run(tested, shape, data)).gradInput).toEqual(await output.read());
    }
  });

  it.each(productTypes)('gives the same bits on any number of threads, products in %s', async (type) => {
    for (const shape of shapesFor(
      [
        { rows: 300, inputs: 770, outputs: 500 },
        { rows: 600, inputs: 70, outputs: 40 },
      ],
      [{ rows: 300, inputs: 35, outputs: 20 }],
    )) {
      const data = makeData(1, shape);
      const expected = await run(tested, shape, data, 1, type);
      for (const threads of [2, ...threadCounts, 8]) {
        const actual = await run(tested, shape, data, threads, type);
        for (const name of names) expect(sameBits(actual[name], expected[name]), `${name}, ${threads}`).toBe(true);
      }
    }
  });

  it.each(productTypes)(
    'keeps NaN and infinities to the gradients that depend on them, products in %s',
    async (type) => {
      const shape = { rows: 301, inputs: 37, outputs: 29 };
      const { rows, inputs, outputs } = shape;
      const data = makeData(6, shape);
      const clean = await run(tested, shape, data, undefined, type);
      const [row, column, output] = [rows - 1, inputs - 1, outputs - 1];
      data.input[row * inputs + column] = Number.POSITIVE_INFINITY;
      data.gradOutput[row * outputs + output] = Number.NaN;
      const { gradInput, gradWeight, gradBias } = await run(tested, shape, data, undefined, type);
      gradInput.forEach((value, i) => {
        if (Math.floor(i / inputs) === row) expect(value).toBeNaN();
        else expect(value).toBe(clean.gradInput[i]);
      });
      gradWeight.forEach((value, i) => {
        if (Math.floor(i / inputs) === output) expect(value).toBeNaN();
        else if (i % inputs === column) expect(Math.abs(value)).toBe(Number.POSITIVE_INFINITY);
        else expect(value).toBe(clean.gradWeight[i]);
      });
      expect(gradBias.findIndex(Number.isNaN)).toBe(output);
      expect(gradBias.slice(0, output)).toEqual(clean.gradBias.slice(0, output));
    },
  );

  it('names what does not fit', async () => {
    const tensor = (...shape: number[]) => tested.parameter(new Float32Array(shape.reduce((a, b) => a * b, 1)), shape);
    const [input, weight, gradOutput] = [tensor(2, 3), tensor(4, 3), tensor(2, 4)];
    await expect(linearBackward({ input, weight: tensor(4, 2), gradOutput })).rejects.toThrow(/weight/);
    await expect(linearBackward({ input, weight, gradOutput: tensor(2, 3) })).rejects.toThrow(/gradOutput/);
    await expect(linearBackward({ input, weight, gradOutput: tensor(3, 4) })).rejects.toThrow(/gradOutput/);
    await expect(linearBackward({ input: tensor(6), weight, gradOutput })).rejects.toThrow(/input/);
    await expect(linearBackward({ input, weight, gradOutput, bias: input } as never)).rejects.toThrow(/bias/);
    await expect(linearBackward({ input: tensor(2, 0), weight: tensor(4, 0), gradOutput })).rejects.toMatchObject({
      code: 'ERR_SIGLIP_SHAPE',
    });
  });
});
