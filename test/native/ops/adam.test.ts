/** The optimiser's operations: against the double-precision reference, against torch, and on sparse gradients. */
import { describe, expect, it } from 'vitest';
import { adamw, sumOfSquares, Tensor } from '../../../lib/kernels/index.js';
import { native } from '../../../lib/native.js';
import { draw, emulated, testDevice, threadCounts } from '../../support/devices.js';
import { expectSiglipError } from '../../support/errors.js';
import type { Random } from '../../support/random.js';

const device = testDevice;
const outputNames = ['parameter', 'firstMoment', 'secondMoment', 'average'] as const;
type Name = (typeof outputNames)[number];
type Arrays = Record<Name, Float32Array>;
const scalars = {
  ...{ step: 1, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, stepSize: 1e-3, decay: 0 },
  ...{ gradientScale: 1, averageDecay: 0.999 },
};

/** One step through the addon's function, which offers all that the operation does. */
async function step(
  state: Arrays,
  shape: number[],
  gradient: { data: Float32Array; shape: number[]; rows?: Int32Array },
  options: Partial<typeof scalars> = {},
  { device = testDevice as string, threads = 2 } = {},
): Promise<Arrays> {
  const handle = (data: Float32Array, size = shape) => Tensor.from(data, size, { device: device as 'cpu' }).handle();
  const outputs = await native().adam({
    ...Object.fromEntries(outputNames.map((name) => [name, handle(state[name])])),
    gradient: handle(gradient.data, gradient.shape),
    gradientRows: gradient.rows,
    ...scalars,
    ...options,
    threads,
  });
  const read = async (name: Name) => native().readTensorValues((outputs[name] as { handle: object }).handle);
  return Object.fromEntries(await Promise.all(outputNames.map(async (name) => [name, await read(name)]))) as Arrays;
}

function randomState(random: Random, count: number): Arrays {
  return {
    parameter: random.floats(count),
    firstMoment: random.floats(count, 0.1),
    secondMoment: random.floats(count, 0.1).map((value) => value * value),
    average: random.floats(count),
  };
}

/** Requires the same bits. */
function expectSame(actual: Arrays, expected: Arrays): void {
  for (const name of outputNames) {
    expect(actual[name].length).toBe(expected[name].length);
    expect(Buffer.compare(new Uint8Array(actual[name].buffer), new Uint8Array(expected[name].buffer)), name).toBe(0);
  }
}

/** The distance of two numbers in float32 units in the last place of `magnitude`. */
function units(actual: number, expected: number, magnitude: number): number {
  if (actual === expected) return 0;
  const exponent = Math.max(Math.floor(Math.log2(magnitude)), -126);
  return Math.abs(actual - expected) / 2 ** (exponent - 23);
}

describe('adam', () => {
  it.each([
    [[0, 3], 1],
    [[1], 1],
    [[7], 2],
    [[3, 5, 11], 3],
    [[4099], 1000],
    [emulated ? [29, 57] : [129, 257], 1_000_000],
  ] as [number[], number][])('shape %j at step %i: a few units from the reference', async (shape, t) => {
    const count = shape.reduce((a, b) => a * b, 1);
    const random = draw(count + t);
    const state = randomState(random, count);
    const gradient = random.floats(count).map((value) => value * 10 ** random.integer(-4, 1));
    const options = { step: t, beta2: 0.999, decay: 1e-4, gradientScale: 0.37, stepSize: 0.01 };
    const run = (device: string, threads = 2) =>
      step(state, shape, { data: gradient, shape }, options, { device, threads });
    const [actual, expected] = [await run(testDevice), await run('reference')];
    const worst: Record<Name, number> = { parameter: 0, firstMoment: 0, secondMoment: 0, average: 0 };
    for (let i = 0; i < count; i++) {
      const value = (array: Float32Array): number => array[i] as number;
      const g = 0.37 * value(gradient);
      // Where terms cancel, what is left is judged by the larger one.
      const first = Math.max(Math.abs(0.9 * value(state.firstMoment)), Math.abs(0.1 * g));
      const root = Math.sqrt(value(expected.secondMoment) / (1 - 0.999 ** t));
      const largest: Record<Name, number> = {
        parameter: Math.max(Math.abs(value(state.parameter)), (0.01 * first) / (1 - 0.9 ** t) / root),
        firstMoment: first,
        secondMoment: value(expected.secondMoment),
        average: Math.max(Math.abs(value(state.average)), 0.001 * Math.abs(value(expected.parameter))),
      };
      for (const name of outputNames)
        worst[name] = Math.max(worst[name], units(value(actual[name]), value(expected[name]), largest[name]));
    }
    // Half a unit for every rounding of a constant or an operation: about 8 of them, 15 for the parameter; of those, some
    // are of numbers whose unit is twice as large.
    expect(Math.max(worst.firstMoment, worst.secondMoment, worst.average)).toBeLessThanOrEqual(5);
    expect(worst.parameter).toBeLessThanOrEqual(10);
    for (const threads of threadCounts) expectSame(await run(testDevice, threads), actual);
  });

  it('computes its formula', async () => {
    // By hand, at β₁ = β₂ = ½ and step 2: m = 1 + 1, v = 2 + 2; m̂ = 2/¾, v̂ = 4/¾.
    const state = {
      parameter: Float32Array.of(3),
      firstMoment: Float32Array.of(2),
      secondMoment: Float32Array.of(4),
      average: Float32Array.of(5),
    };
    const halves = { beta1: 0.5, beta2: 0.5, step: 2, stepSize: 0.25, decay: 0.125, averageDecay: 0.75 };
    const gradient = { data: Float32Array.of(4), shape: [1] };
    const parameter = 3 - 0.375 - (0.25 * (2 / 0.75)) / (Math.sqrt(4 / 0.75) + 1);
    const result = await step(state, [1], gradient, { ...halves, epsilon: 1, gradientScale: 0.5 });
    expect([...result.firstMoment, ...result.secondMoment]).toEqual([2, 4]);
    expect(result.parameter[0]).toBeCloseTo(parameter, 6);
    expect(result.average[0]).toBeCloseTo(0.75 * 5 + 0.25 * parameter, 6);
  });

  it('rounds neither the factors of running means nor the share that decays', async () => {
    const count = 10_000;
    const random = draw(6);
    const fromOneToTwo = () => Float32Array.from({ length: count }, () => 1 + random.next());
    const shape = [count];
    const state = Object.fromEntries(outputNames.map((name) => [name, fromOneToTwo()])) as Arrays;
    const data = fromOneToTwo();
    const means = await step(state, shape, { data, shape }, { stepSize: 0, beta2: 0.999, averageDecay: 0.9999 });
    for (const [name, factor, fresh] of [
      ['firstMoment', 0.9, data],
      ['secondMoment', 0.999, Float64Array.from(data, (value) => value * value)],
      ['average', 0.9999, state.parameter],
    ] as const) {
      let error = 0;
      for (let i = 0; i < count; i++) {
        const exact = factor * (state[name][i] as number) + (1 - factor) * (fresh[i] as number);
        error += ((means[name][i] as number) - exact) / 2 ** -23;
      }
      // Roundings to either side average out, to about 0.04 with that of 1 − 0.9; those of the factor itself would
      // leave 0.15 to 0.3 units.
      expect(Math.abs(error / count), name).toBeLessThan(0.08);
    }

    // 1 − 1e-7 is 1 − 1.19e-7 in float32, a fifth too much: a mean of 1.5 units. Parameters move by one unit or two, but
    // their mean, by 1.215 units, is close to what it should be, 1.26; another draw changes it by some 0.004.
    const many = state.parameter;
    const zero = new Float32Array(count);
    const initial = { parameter: many, firstMoment: zero, secondMoment: zero, average: many };
    const { parameter } = await step(initial, shape, { data: zero, shape }, { decay: 1e-7 });
    const decayed = many.reduce((sum, value, i) => sum + value - (parameter[i] as number), 0);
    const expected = 1e-7 * many.reduce((sum, value) => sum + value, 0);
    expect(Math.abs(decayed / expected - 1)).toBeLessThan(0.1);
  });

  it('lets tiny moments end at 0 unless epsilon is tiny too', async () => {
    const tiny = Float32Array.of(1e-38, -1e-38, 1e-40, 0);
    const state = { parameter: tiny, firstMoment: tiny, secondMoment: tiny.map(Math.abs), average: tiny };
    const gradient = { data: new Float32Array(4), shape: [4] };
    const ended = await step(state, [4], gradient);
    expect([...ended.firstMoment, ...ended.secondMoment].every((value) => value === 0)).toBe(true);
    const kept = await step(state, [4], gradient, { epsilon: 1e-30 });
    const expected = await step(state, [4], gradient, { epsilon: 1e-30 }, { device: 'reference' });
    expect(kept.secondMoment[0]).toBeGreaterThan(0);
    for (const [i, value] of expected.secondMoment.entries())
      expect(Math.abs((kept.secondMoment[i] as number) - value)).toBeLessThan(3e-45);
  });

  it('passes what is not finite on', async () => {
    const zero = new Float32Array(3);
    const state = { parameter: zero, firstMoment: zero, secondMoment: zero, average: zero };
    const data = Float32Array.of(Number.NaN, Number.POSITIVE_INFINITY, 1);
    const { parameter, firstMoment } = await step(state, [3], { data, shape: [3] });
    expect(firstMoment[0]).toBeNaN();
    expect(firstMoment[1]).toBe(Number.POSITIVE_INFINITY);
    expect([...parameter].map(Number.isFinite)).toEqual([false, false, true]);
  });

  it.each([testDevice, 'reference'])('takes sparse gradients as dense ones with zeros (%s)', async (device) => {
    const random = draw(9);
    for (const [rows, width] of [
      [1, 1],
      [9, 13],
      [57, 45],
      [5, emulated ? 1638 : 16384],
    ] as const) {
      const slots = random.integer(1, rows);
      const data = random.floats(slots * width);
      // Every slot once, zeros elsewhere, in random order.
      const gradientRows = Int32Array.from({ length: rows }, (_, row) => (row < slots ? row : -1));
      for (let i = rows - 1; i > 0; i--) {
        const j = random.integer(0, i);
        [gradientRows[i], gradientRows[j]] = [gradientRows[j] as number, gradientRows[i] as number];
      }
      const dense = new Float32Array(rows * width);
      gradientRows.forEach((slot, row) => {
        if (slot >= 0) dense.set(data.subarray(slot * width, (slot + 1) * width), row * width);
      });
      const state = randomState(random, rows * width);
      const sparse = { data, shape: [slots, width], rows: gradientRows };
      const options = { decay: 1e-4 };
      const expected = await step(state, [rows, width], { data: dense, shape: [rows, width] }, options, { device });
      for (const threads of [1, 2])
        expectSame(await step(state, [rows, width], sparse, options, { device, threads }), expected);
    }
  });

  it.each([testDevice, 'reference'])('leaves untouched rows as they are, as the formula would (%s)', async (device) => {
    const random = draw(10);
    const [rows, width] = [6, 19];
    const untouched = [1, 4];
    const state = randomState(random, rows * width);
    for (const row of untouched)
      for (const name of ['firstMoment', 'secondMoment'] as const) state[name].fill(0, row * width, (row + 1) * width);
    const data = random.floats(2 * width);
    const gradient = { data, shape: [2, width], rows: Int32Array.of(0, -2, -1, 1, -2, -1) };
    const zeroed = { ...gradient, rows: gradient.rows.map((slot) => Math.max(slot, -1)) };
    const actual = await step(state, [rows, width], gradient, {}, { device });
    const expected = await step(state, [rows, width], zeroed, {}, { device });
    for (const name of ['parameter', 'firstMoment', 'secondMoment'] as const)
      expect(actual[name]).toEqual(expected[name]);
    // Rows that are not looked at keep moments that no formula would.
    state.firstMoment.fill(7);
    const { firstMoment } = await step(state, [rows, width], gradient, {}, { device });
    for (let row = 0; row < rows; row++)
      expect(firstMoment.subarray(row * width, (row + 1) * width).every((value) => value === 7)).toBe(
        untouched.includes(row),
      );
  });

  it('refuses gradient rows that do not exist, and untouched rows that would decay', async () => {
    const state = randomState(draw(1), 6);
    const run = (rows: Int32Array, options = {}) =>
      step(state, [3, 2], { data: new Float32Array(4), shape: [2, 2], rows }, options);
    for (const slot of [2, -3, 2147483647])
      await expectSiglipError(() => run(Int32Array.of(0, slot, 1)), 'ERR_SIGLIP_SHAPE', `gradient_rows[1]`, `${slot}`);
    await expectSiglipError(() => run(Int32Array.of(0, 1)), 'ERR_SIGLIP_SHAPE', 'gradientRows');
    await expectSiglipError(() => run(Int32Array.of(0, -2, 1), { decay: 0.1 }), 'ERR_SIGLIP_SHAPE', 'untouched');
    await expectSiglipError(() => run(Int32Array.of(0, -1, 1), { step: 0 }), 'ERR_SIGLIP_SHAPE', 'step');
  });
});

describe('adamw', () => {
  const start = [0.5, -1.25, 3, 1e-3];
  const gradients = [
    [0.1, -2, 1e-6, 0],
    [-0.3, 0.5, 2e-6, 1e-4],
    [0.2, 0.25, -3e-6, -1e-4],
  ];

  it.each([
    ['learning-rate', 0.1],
    ['decoupled', 0.001],
  ] as const)('takes the steps of torch.optim.AdamW (%s)', async (decay, weightDecay) => {
    // torch 2.13 in float64: AdamW([start], lr=1e-2, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1), the parameter
    // after each step() with these gradients, then exp_avg and exp_avg_sq.
    const expected = [
      [0.4895000009999999, -1.23875000005, 2.98709900990099, 0.000999],
      [0.4939523991110065, -1.2328165683700836, 2.9745207414133352, -0.006442315279138586],
      [0.4932705697764824, -1.2287509706057487, 2.972209142970649, -0.005984105882197872],
    ];
    const moments = [
      [0.0011, -0.092, -3.9e-8, -1e-6],
      [1.3989001e-4, 4.304254e-3, 1.3994001e-14, 1.999e-11],
    ] as const;
    let state = {
      parameter: Tensor.from(Float32Array.from(start), [2, 2], { device }),
      firstMoment: Tensor.from(new Float32Array(4), [2, 2], { device }),
      secondMoment: Tensor.from(new Float32Array(4), [2, 2], { device }),
    };
    for (const [index, values] of gradients.entries()) {
      const gradient = Tensor.from(Float32Array.from(values), [2, 2], { device });
      const options = { step: index + 1, learningRate: 1e-2, betas: [0.9, 0.999] as const, weightDecay, decay };
      state = await adamw({ ...state, gradient, ...options });
      expect(state.parameter.shape).toEqual([2, 2]);
      const parameter = await state.parameter.read();
      // Rounding to float32 a few times a step, of the parameter and of an update of up to 0.01.
      for (const [i, value] of (expected[index] as number[]).entries())
        expect(Math.abs((parameter[i] as number) - value)).toBeLessThan(1e-7 * Math.max(3 * Math.abs(value), 0.1));
    }
    const [first, second] = [await state.firstMoment.read(), await state.secondMoment.read()];
    for (let i = 0; i < 4; i++) {
      expect((first[i] as number) / (moments[0][i] as number)).toBeCloseTo(1, 5);
      expect((second[i] as number) / (moments[1][i] as number)).toBeCloseTo(1, 5);
    }
  });

  it('changes nothing in place', async () => {
    const make = (values: number[]) => Tensor.from(Float32Array.from(values), [2], { device });
    const given = { parameter: make([1, 2]), firstMoment: make([3, 4]), secondMoment: make([5, 6]) };
    await adamw({ ...given, gradient: make([7, 8]), step: 1, learningRate: 0.1 });
    expect([...(await given.parameter.read()), ...(await given.firstMoment.read())]).toEqual([1, 2, 3, 4]);
    expect([...(await given.secondMoment.read())]).toEqual([5, 6]);
  });

  it.each([
    [{ step: 0 }, RangeError, /args\.step.*got 0/],
    [{ step: 1.5 }, RangeError, /args\.step/],
    [{ learningRate: -1 }, RangeError, /args\.learningRate.*got -1/],
    [{ learningRate: Number.NaN }, RangeError, /args\.learningRate/],
    [{ learningRate: '1' }, TypeError, /args\.learningRate.*"1"/],
    [{ betas: [0.9] }, TypeError, /args\.betas/],
    [{ betas: [0.9, 1] }, RangeError, /args\.betas\[1\].*got 1/],
    [{ epsilon: 0 }, RangeError, /args\.epsilon/],
    [{ weightDecay: Number.POSITIVE_INFINITY }, RangeError, /args\.weightDecay/],
    [{ decay: 'none' }, RangeError, /args\.decay.*"none"/],
    [{ beta1: 0.9 }, RangeError, /args\.beta1/],
    [{ gradient: [1] }, TypeError, /args\.gradient.*Tensor/],
  ])('refuses %j', async (wrong, type, message) => {
    const one = Tensor.from(new Float32Array(1), [1], { device });
    const given = { parameter: one, gradient: one, firstMoment: one, secondMoment: one, step: 1, learningRate: 1 };
    const call = adamw({ ...given, ...wrong } as Parameters<typeof adamw>[0]);
    await expect(call).rejects.toThrow(type);
    await expect(call).rejects.toThrow(message);
  });

  it('refuses tensors of other shapes', async () => {
    const [one, two] = [
      Tensor.from(new Float32Array(1), [1], { device }),
      Tensor.from(new Float32Array(2), [2], { device }),
    ];
    const given = { parameter: one, gradient: one, firstMoment: one, secondMoment: one, step: 1, learningRate: 1 };
    for (const name of ['gradient', 'firstMoment', 'secondMoment'])
      await expectSiglipError(() => adamw({ ...given, [name]: two }), 'ERR_SIGLIP_SHAPE', name);
  });
});

describe('sumOfSquares', () => {
  it.each([0, 1, 17, 32768, 32769, ...(emulated ? [] : [100_003])])(
    'of %i values, the same for any number of threads',
    async (count) => {
      const data = draw(count).floats(count, 30);
      const values = Tensor.from(data, [count], { device });
      const sum = await sumOfSquares({ values, threads: 2 });
      const expected = data.reduce((total, value) => total + value * value, 0);
      const reference = await sumOfSquares({ values: Tensor.from(data, [count], { device: 'reference' }) });
      expect(Math.abs(sum - reference)).toBeLessThanOrEqual(1e-14 * reference);
      expect(Math.abs(reference - expected)).toBeLessThanOrEqual(1e-12 * expected);
      for (const threads of threadCounts) expect(await sumOfSquares({ values, threads })).toBe(sum);
    },
  );

  it('neither overflows nor vanishes, and is not finite when an element is not', async () => {
    const of = (...values: number[]) =>
      sumOfSquares({ values: Tensor.from(Float32Array.from(values), [values.length], { device }) });
    const [huge, tiny] = [Math.fround(3e38), Math.fround(1e-45)];
    expect(await of(huge, huge)).toBe(2 * huge * huge);
    expect(await of(tiny)).toBe(tiny * tiny);
    expect(await of(1, Number.NaN)).toBeNaN();
    expect(await of(1, Number.NEGATIVE_INFINITY)).toBe(Number.POSITIVE_INFINITY);
  });

  it('refuses what is no tensor', async () => {
    await expect(sumOfSquares({ values: new Float32Array(2) as unknown as Tensor })).rejects.toThrow(/args\.values/);
  });
});
