/** Linear layers against the double-precision reference. */
import { describe, expect, it } from 'vitest';
import { linear, Tensor, type WeightDType } from '../../../lib/kernels/index.js';
import { relativeError } from '../../support/compare.js';
import {
  type ActivationType,
  activationTypes,
  bfloat16Rounding,
  draw,
  emulated,
  Place,
  roundedOnce,
  shapesFor,
  testDevice,
  threadCounts,
  vendorProducts,
} from '../../support/devices.js';

interface Case {
  rows: number;
  inputs: number;
  outputs: number;
  bias?: boolean;
  residual?: boolean;
  activation?: 'none' | 'gelu';
}

async function run(
  place: Place,
  seed: number,
  entry: Case,
  threads?: number,
  weightDtype?: WeightDType,
): Promise<Float32Array> {
  const random = draw(seed);
  const { rows, inputs, outputs } = entry;
  const values = (count: number, scale = 1) => random.floats(count, scale);
  const input = place.activation(values(rows * inputs), [rows, inputs]);
  const weight = place.activation(values(outputs * inputs, inputs ** -0.5), [outputs, inputs]);
  const bias = place.parameter(values(outputs), [outputs]);
  const residual = place.activation(values(rows * outputs), [rows, outputs]);
  const { output } = await linear({
    input,
    weight,
    ...(entry.bias ? { bias } : {}),
    ...(entry.residual ? { residual } : {}),
    ...(entry.activation ? { activation: entry.activation } : {}),
    ...(threads === undefined ? {} : { threads }),
    ...(weightDtype === undefined ? {} : { weightDtype }),
  });
  expect(output.dtype).toBe(place.device === 'reference' ? 'float32' : place.dtype);
  return output.read();
}

/** Of a usual result. That of 1 × 1 × 1 is the only one, and now and then a sum whose terms all but cancel. */
const usualSize = 0.3;

async function expectAgreement(dtype: ActivationType, seed: number, entry: Case): Promise<void> {
  const actual = await run(Place.tested(dtype), seed, entry);
  const expected = await run(Place.reference(dtype), seed, entry);
  // cuBLASLt rounds the bias to bfloat16 before it is added, and its GELU takes the chip's tanh, of 2⁻¹¹. Its sums are in an order
  // of its own, in the worst case one after the other: errors of float32 then grow with the root of their number.
  const rounding = (entry.bias ? bfloat16Rounding : 0) + (entry.activation === 'gelu' ? 2 ** -11 : 0);
  const order = 2 ** -24 * Math.sqrt(entry.inputs);
  const vendor = !vendorProducts ? 0 : dtype === 'bfloat16' ? rounding : order;
  expect(relativeError(actual, expected, usualSize), JSON.stringify(entry)).toBeLessThan(
    roundedOnce(dtype, 2e-6) + vendor,
  );
}

/** What weights may be packed in beside float32 activations. */
const packedTypes: WeightDType[] = testDevice === 'cpu' ? ['bfloat16', 'int8'] : [];
const weightTypes: WeightDType[] = ['float32', ...packedTypes];

/**
 * Operands are rounded in the same way on both devices: what is left is float32 rounding, of sums in bfloat16 and of the
 * scales in int8, and residuals, which are float32.
 */
async function expectPackedAgreement(weightDtype: WeightDType, seed: number, entry: Case): Promise<void> {
  const actual = await run(Place.tested('float32'), seed, entry, undefined, weightDtype);
  const expected = await run(Place.reference('float32'), seed, entry, undefined, weightDtype);
  expect(relativeError(actual, expected, usualSize), JSON.stringify(entry)).toBeLessThan(2e-6);
}

const everything = { bias: true, residual: true, activation: 'gelu' } as const;
const cases: [string, Case][] = [
  ['1 × 1 × 1', { rows: 1, inputs: 1, outputs: 1, ...everything }],
  ['no rows', { rows: 0, inputs: 5, outputs: 3, bias: true }],
  ...shapesFor<[string, Case]>(
    [
      ['one row, as the pooling head', { rows: 1, inputs: 768, outputs: 3072, ...everything }],
      ['primes', { rows: 131, inputs: 257, outputs: 61, ...everything }],
      ['B/16 attention', { rows: 196, inputs: 768, outputs: 2304, bias: true }],
      ['So400m MLP, up', { rows: 33, inputs: 1152, outputs: 4304, bias: true, activation: 'gelu' }],
      ['So400m MLP, down', { rows: 33, inputs: 4304, outputs: 1152, bias: true, residual: true }],
      ['patch 14', { rows: 50, inputs: 588, outputs: 1152, bias: true }],
    ],
    [
      ['one row, as the pooling head', { rows: 1, inputs: 64, outputs: 256, ...everything }],
      ['primes', { rows: 131, inputs: 67, outputs: 61, ...everything }],
      ['several tiles', { rows: 137, inputs: 72, outputs: 136, bias: true }],
      ['deep', { rows: 3, inputs: 1052, outputs: 40, bias: true, residual: true }],
      // Enough rows and outputs for large tiles, with rows that are aligned and that are not.
      ['large tiles', { rows: 1153, inputs: 40, outputs: 1288, ...everything }],
      ['large tiles without alignment', { rows: 1281, inputs: 19, outputs: 1155, ...everything }],
    ],
  ),
  ['fewer outputs than a vector', { rows: 9, inputs: 40, outputs: 3, bias: true }],
  ['product alone', { rows: 64, inputs: 100, outputs: 100 }],
];
const casesAndTypes = activationTypes.flatMap((dtype) =>
  cases.map(([name, entry]) => [name, dtype, entry] as [string, ActivationType, Case]),
);

describe('linear', () => {
  it.each(casesAndTypes)('%s in %s', async (_, dtype, entry) => expectAgreement(dtype, 5, entry));

  it.each(activationTypes)('agrees with the reference on random shapes in %s', async (dtype) => {
    const random = draw(99);
    const limits = emulated ? [40, 90, 70] : [150, 900, 200];
    for (let round = 0; round < (emulated ? 10 : 60); round++) {
      const entry = {
        rows: random.integer(1, limits[0] as number),
        inputs: random.integer(1, limits[1] as number),
        outputs: random.integer(1, limits[2] as number),
        bias: random.next() < 0.5,
        residual: random.next() < 0.5,
        activation: random.next() < 0.5 ? 'gelu' : 'none',
      } as const;
      await expectAgreement(dtype, round, entry);
    }
  });

  const packedCases = packedTypes.flatMap((type) => cases.map(([name, entry]) => [name, type, entry] as const));
  it.each(packedCases)('%s with weights in %s', async (_, type, entry) => expectPackedAgreement(type, 6, entry));

  it.each(packedTypes)('agrees with the reference on random shapes with weights in %s', async (type) => {
    const random = draw(101);
    for (let round = 0; round < 60; round++) {
      const [rows, inputs, outputs] = [random.integer(1, 150), random.integer(1, 900), random.integer(1, 200)];
      await expectPackedAgreement(type, round, { rows, inputs, outputs, bias: random.next() < 0.5 });
    }
  });

  it.each(packedTypes)('is close to float32 with weights in %s', async (type) => {
    const entry = { rows: 50, inputs: 700, outputs: 90 };
    const place = Place.tested('float32');
    const error = relativeError(await run(place, 8, entry, undefined, type), await run(place, 8, entry));
    // Half a unit of 2⁻⁸, or of 1/127 of the largest value: random, so that sums of 700 are no worse than one.
    expect(error).toBeLessThan(type === 'int8' ? 0.02 : 0.005);
    expect(error).toBeGreaterThan(1e-4);
  });

  it.skipIf(packedTypes.length === 0)('refuses sums in int8 that 32 bits do not hold', async () => {
    const most = 132_104;
    const ones = (count: number) => Place.tested('float32').parameter(new Float32Array(count).fill(1), [1, count]);
    const { output } = await linear({ input: ones(most), weight: ones(most), weightDtype: 'int8' });
    expect((await output.read())[0]).toBeCloseTo(most, 0);
    const wider = linear({ input: ones(most + 1), weight: ones(most + 1), weightDtype: 'int8' });
    await expect(wider).rejects.toMatchObject({
      code: 'ERR_SIGLIP_SHAPE',
      message: expect.stringContaining('in_features in int8 must be from 1 to 132104, got 132105'),
    });
  });

  it.skipIf(packedTypes.length === 0)('has zeros for rows and outputs of zeros in int8', async () => {
    const tensor = (values: number[], shape: [number, number]) =>
      Place.tested('float32').parameter(Float32Array.from(values), shape);
    const input = tensor([0, 0, 0, 1e-38, 0, 0, 1, 2, 3], [3, 3]);
    const weight = tensor([0, 0, 0, 1, 1, 1], [2, 3]);
    const { output } = await linear({ input, weight, weightDtype: 'int8' });
    const values = [...(await output.read())];
    expect(values.slice(0, 5)).toEqual([0, 0, 0, 0, 0]);
    expect(values[5]).toBeCloseTo(6, 1);
  });

  it.each(weightTypes)(
    'gives the same bits on any number of threads, and for a row in any batch, weights in %s',
    async (weightDtype) => {
      const [count, inputs, outputs] = emulated ? [150, 70, 50] : [300, 770, 500];
      const entry = { rows: count, inputs, outputs, ...everything };
      const place = Place.tested('float32');
      const expected = await run(place, 1, entry, 1, weightDtype);
      for (const threads of threadCounts) expect(await run(place, 1, entry, threads, weightDtype)).toEqual(expected);

      if (vendorProducts) return;
      const random = draw(1);
      const input = random.floats(count * inputs);
      const weight = place.parameter(random.floats(outputs * inputs), [outputs, inputs]);
      const product = async (first: number, rows: number) => {
        const part = place.activation(input.slice(first * inputs, (first + rows) * inputs), [rows, inputs]);
        return (await linear({ input: part, weight, weightDtype })).output.read();
      };
      const whole = await product(0, count);
      for (const [first, rows] of [
        [0, 1],
        [count - 1, 1],
        [7, 13],
        [50, 100],
      ] as const)
        expect(await product(first, rows)).toEqual(whole.slice(first * outputs, (first + rows) * outputs));
    },
  );

  it.each(weightTypes)('passes NaN and infinities on, weights in %s', async (weightDtype) => {
    const input = Tensor.from(Float32Array.of(1, Number.NaN, 2, 3, Number.POSITIVE_INFINITY, 1), [3, 2], {
      device: testDevice,
    });
    const weight = Tensor.from(Float32Array.of(1, 1), [1, 2], { device: testDevice });
    const values = [...(await (await linear({ input, weight, weightDtype })).output.read())];
    // A row in int8 has no scale for an infinity.
    const infinity = weightDtype === 'int8' ? Number.NaN : Number.POSITIVE_INFINITY;
    expect([values[0], values[2]]).toEqual([Number.NaN, infinity]);
    expect(values[1]).toBeCloseTo(5, weightDtype === 'int8' ? 1 : 6);
  });

  it('names what does not fit', async () => {
    const tensor = (shape: number[]) =>
      Place.tested('float32').parameter(new Float32Array(shape.reduce((a, b) => a * b, 1)), shape);
    const [input, weight] = [tensor([2, 3]), tensor([4, 3])];
    await expect(linear({ input, weight: tensor([4, 2]) })).rejects.toThrow(/weight|input/);
    await expect(linear({ input, weight, bias: tensor([3]) })).rejects.toThrow(/bias/);
    await expect(linear({ input, weight, residual: tensor([4, 2]) })).rejects.toThrow(/residual/);
    await expect(linear({ input, weight, activation: 'relu' as never })).rejects.toThrow(/activation/);
    await expect(linear({ input, weight, weightDtype: 'int4' as never })).rejects.toThrow(/weightDtype/);
    if (testDevice !== 'cpu')
      await expect(linear({ input, weight, weightDtype: 'bfloat16' })).rejects.toThrow(/weight must be packed/);
    await expect(linear({ input, weight, threads: 0 })).rejects.toThrow(/threads/);
    const elsewhere = Tensor.from(new Float32Array(12), [4, 3], { device: 'reference' });
    await expect(linear({ input, weight: elsewhere })).rejects.toThrow(/device/);
    await expect(linear({ input, weight, bogus: 1 } as never)).rejects.toThrow(/bogus/);
  });
});
