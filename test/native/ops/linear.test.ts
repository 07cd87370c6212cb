/** Linear layers against the double-precision reference. */
import { describe, expect, it } from 'vitest';
import { linear, Tensor } from '../../../lib/kernels/index.js';
import { errorBeyondRounding } from '../../support/compare.js';
import { type ActivationType, activationTypes, bfloat16Rounding, emulated, Place } from '../../support/devices.js';
import { Random } from '../../support/random.js';

interface Case {
  rows: number;
  inputs: number;
  outputs: number;
  bias?: boolean;
  residual?: boolean;
  activation?: 'none' | 'gelu';
}

async function run(place: Place, seed: number, entry: Case, threads?: number): Promise<Float32Array> {
  const random = new Random(seed);
  const { rows, inputs, outputs } = entry;
  const input = place.activation(random.floats(rows * inputs), [rows, inputs]);
  const weight = place.activation(random.floats(outputs * inputs, inputs ** -0.5), [outputs, inputs]);
  const bias = place.parameter(random.floats(outputs), [outputs]);
  const residual = place.activation(random.floats(rows * outputs), [rows, outputs]);
  const { output } = await linear({
    input,
    weight,
    ...(entry.bias ? { bias } : {}),
    ...(entry.residual ? { residual } : {}),
    ...(entry.activation ? { activation: entry.activation } : {}),
    ...(threads === undefined ? {} : { threads }),
  });
  return output.read();
}

async function expectAgreement(dtype: ActivationType, seed: number, entry: Case): Promise<void> {
  const [actual, expected] = [
    await run(Place.tested(dtype), seed, entry),
    await run(Place.reference(dtype), seed, entry),
  ];
  const rounding = dtype === 'bfloat16' ? bfloat16Rounding : 0;
  expect(errorBeyondRounding(actual, expected, rounding), JSON.stringify(entry)).toBeLessThan(2e-6);
}

const everything = { bias: true, residual: true, activation: 'gelu' } as const;
const cases: [string, Case][] = [
  ['1 × 1 × 1', { rows: 1, inputs: 1, outputs: 1, ...everything }],
  ['no rows', { rows: 0, inputs: 5, outputs: 3, bias: true }],
  ['one row, as the pooling head', { rows: 1, inputs: 768, outputs: 3072, ...everything }],
  ['primes', { rows: 131, inputs: 257, outputs: 61, ...everything }],
  ['B/16 attention', { rows: emulated ? 40 : 196, inputs: 768, outputs: emulated ? 300 : 2304, bias: true }],
  ['So400m MLP, up', { rows: 33, inputs: 1152, outputs: emulated ? 304 : 4304, bias: true, activation: 'gelu' }],
  ['So400m MLP, down', { rows: 33, inputs: 4304, outputs: emulated ? 152 : 1152, bias: true, residual: true }],
  ['patch 14', { rows: 50, inputs: 588, outputs: emulated ? 152 : 1152, bias: true }],
  ['fewer outputs than a vector', { rows: 9, inputs: 40, outputs: 3, bias: true }],
  ['product alone', { rows: 64, inputs: 100, outputs: 100 }],
  ['many tiles', { rows: 1153, inputs: 72, outputs: 1288, ...everything }],
  ['many tiles without alignment', { rows: 1281, inputs: 35, outputs: 1155, ...everything }],
];

describe.each(activationTypes)('linear, %s', (dtype) => {
  it.each(cases)('%s', async (_, entry) => expectAgreement(dtype, 5, entry));

  it('agrees with the reference on random shapes', async () => {
    const random = new Random(99);
    for (let round = 0; round < 60; round++) {
      await expectAgreement(dtype, round, {
        rows: random.integer(1, 150),
        inputs: random.integer(1, emulated ? 200 : 900),
        outputs: random.integer(1, emulated ? 100 : 200),
        bias: random.next() < 0.5,
        residual: random.next() < 0.5,
        activation: random.next() < 0.5 ? 'gelu' : 'none',
      });
    }
  });

  it('gives the same bits on any number of threads, and for a row in any batch', async () => {
    const place = Place.tested(dtype);
    if (!emulated) {
      const entry = { rows: 300, inputs: 770, outputs: 500, ...everything };
      const expected = await run(place, 1, entry, 1);
      for (const threads of [2, 3, 8]) expect(await run(place, 1, entry, threads)).toEqual(expected);
    }

    // Enough rows and outputs for other tiles than those of a few rows.
    const [rows, inputs, outputs] = emulated ? [1200, 75, 1290] : [300, 770, 500];
    const random = new Random(1);
    const input = random.floats(rows * inputs);
    const weight = place.activation(random.floats(outputs * inputs), [outputs, inputs]);
    const product = async (first: number, count: number) => {
      const part = place.activation(input.slice(first * inputs, (first + count) * inputs), [count, inputs]);
      return (await linear({ input: part, weight })).output.read();
    };
    const whole = await product(0, rows);
    for (const [first, count] of [
      [0, 1],
      [rows - 1, 1],
      [7, 13],
      [100, 150],
    ] as const)
      expect(await product(first, count)).toEqual(whole.slice(first * outputs, (first + count) * outputs));
  });

  it('passes NaN and infinities on', async () => {
    const place = Place.tested(dtype);
    const input = place.activation(Float32Array.of(1, Number.NaN, 2, 3, Number.POSITIVE_INFINITY, 1), [3, 2]);
    const weight = place.activation(Float32Array.of(1, 1), [1, 2]);
    expect([...(await (await linear({ input, weight })).output.read())]).toEqual([
      Number.NaN,
      5,
      Number.POSITIVE_INFINITY,
    ]);
    // GELU of ±∞ is ∞ and 0, not NaN.
    const infinite = place.activation(Float32Array.of(Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY), [2, 1]);
    const one = place.activation(Float32Array.of(1), [1, 1]);
    const { output } = await linear({ input: infinite, weight: one, activation: 'gelu' });
    const [below, above] = await output.read();
    expect(Math.abs(below as number)).toBe(0);
    expect(above).toBe(Number.POSITIVE_INFINITY);
  });
});

describe('linear', () => {
  it('names what does not fit', async () => {
    const tensor = (shape: number[]) => Tensor.from(new Float32Array(shape.reduce((a, b) => a * b, 1)), shape);
    const [input, weight] = [tensor([2, 3]), tensor([4, 3])];
    await expect(linear({ input, weight: tensor([4, 2]) })).rejects.toThrow(/weight|input/);
    await expect(linear({ input, weight, bias: tensor([3]) })).rejects.toThrow(/bias/);
    await expect(linear({ input, weight, residual: tensor([4, 2]) })).rejects.toThrow(/residual/);
    await expect(linear({ input, weight, activation: 'relu' as never })).rejects.toThrow(/activation/);
    await expect(linear({ input, weight, threads: 0 })).rejects.toThrow(/threads/);
    const elsewhere = Tensor.from(new Float32Array(12), [4, 3], { device: 'reference' });
    await expect(linear({ input, weight: elsewhere })).rejects.toThrow(/device/);
    await expect(linear({ input, weight, bogus: 1 } as never)).rejects.toThrow(/bogus/);
  });
});
