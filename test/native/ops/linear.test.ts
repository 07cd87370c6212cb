/** Linear layers on the CPU against the double-precision reference. */
import { describe, expect, it } from 'vitest';
import { linear, Tensor } from '../../../lib/kernels/index.js';
import { relativeError } from '../../support/compare.js';
import { Random } from '../../support/random.js';

interface Case {
  rows: number;
  inputs: number;
  outputs: number;
  bias?: boolean;
  residual?: boolean;
  activation?: 'none' | 'gelu';
}

async function run(device: 'cpu' | 'reference', seed: number, entry: Case, threads?: number): Promise<Float32Array> {
  const random = new Random(seed);
  const { rows, inputs, outputs } = entry;
  const tensor = (shape: number[], scale = 1) =>
    Tensor.from(
      random.floats(
        shape.reduce((a, b) => a * b, 1),
        scale,
      ),
      shape,
      { device },
    );
  const input = tensor([rows, inputs]);
  const weight = tensor([outputs, inputs], inputs ** -0.5);
  const bias = tensor([outputs]);
  const residual = tensor([rows, outputs]);
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

const everything = { bias: true, residual: true, activation: 'gelu' } as const;
const cases: [string, Case][] = [
  ['1 × 1 × 1', { rows: 1, inputs: 1, outputs: 1, ...everything }],
  ['no rows', { rows: 0, inputs: 5, outputs: 3, bias: true }],
  ['one row, as the pooling head', { rows: 1, inputs: 768, outputs: 3072, ...everything }],
  ['primes', { rows: 131, inputs: 257, outputs: 61, ...everything }],
  ['B/16 attention', { rows: 196, inputs: 768, outputs: 2304, bias: true }],
  ['So400m MLP, up', { rows: 33, inputs: 1152, outputs: 4304, bias: true, activation: 'gelu' }],
  ['So400m MLP, down', { rows: 33, inputs: 4304, outputs: 1152, bias: true, residual: true }],
  ['patch 14', { rows: 50, inputs: 588, outputs: 1152, bias: true }],
  ['fewer outputs than a vector', { rows: 9, inputs: 40, outputs: 3, bias: true }],
  ['product alone', { rows: 64, inputs: 100, outputs: 100 }],
];

describe('linear', () => {
  it.each(cases)('%s', async (_, entry) => {
    const actual = await run('cpu', 5, entry);
    expect(relativeError(actual, await run('reference', 5, entry))).toBeLessThan(2e-6);
  });

  it('agrees with the reference on random shapes', async () => {
    const random = new Random(99);
    for (let round = 0; round < 60; round++) {
      const entry = {
        rows: random.integer(1, 150),
        inputs: random.integer(1, 900),
        outputs: random.integer(1, 200),
        bias: random.next() < 0.5,
        residual: random.next() < 0.5,
        activation: random.next() < 0.5 ? 'gelu' : 'none',
      } as const;
      const actual = await run('cpu', round, entry);
      expect(relativeError(actual, await run('reference', round, entry)), JSON.stringify(entry)).toBeLessThan(2e-6);
    }
  });

  it('gives the same bits on any number of threads, and for a row in any batch', async () => {
    const entry = { rows: 300, inputs: 770, outputs: 500, ...everything };
    const expected = await run('cpu', 1, entry, 1);
    for (const threads of [2, 3, 8]) expect(await run('cpu', 1, entry, threads)).toEqual(expected);

    const random = new Random(1);
    const input = random.floats(300 * 770);
    const weight = Tensor.from(random.floats(500 * 770), [500, 770]);
    const product = async (first: number, rows: number) => {
      const part = Tensor.from(input.slice(first * 770, (first + rows) * 770), [rows, 770]);
      return (await linear({ input: part, weight })).output.read();
    };
    const whole = await product(0, 300);
    for (const [first, rows] of [
      [0, 1],
      [299, 1],
      [7, 13],
      [100, 150],
    ] as const)
      expect(await product(first, rows)).toEqual(whole.slice(first * 500, (first + rows) * 500));
  });

  it('passes NaN and infinities on', async () => {
    const input = Tensor.from(Float32Array.of(1, Number.NaN, 2, 3, Number.POSITIVE_INFINITY, 1), [3, 2]);
    const weight = Tensor.from(Float32Array.of(1, 1), [1, 2]);
    expect([...(await (await linear({ input, weight })).output.read())]).toEqual([
      Number.NaN,
      5,
      Number.POSITIVE_INFINITY,
    ]);
  });

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
