/** Changes of element type against the double-precision reference's. */
import { describe, expect, it } from 'vitest';
import { convert, Tensor } from '../../../lib/kernels/index.js';
import { sameBits } from '../../support/compare.js';
import { rounded, testDevice } from '../../support/devices.js';
import { Random } from '../../support/random.js';

const types = ['float32', 'bfloat16'] as const;
const shapes: [number, number][] = [
  [0, 8],
  [1, 1],
  [3, 7],
  [5, 64],
  [17, 1537],
];

describe('convert', () => {
  it.each(shapes)('%i rows of %i', async (rows, columns) => {
    const values = new Random(rows + columns).floats(rows * columns, 100);
    for (const from of types) {
      const { output: input } = await convert({
        input: Tensor.from(values, [rows, columns], { device: testDevice }),
        dtype: from,
      });
      for (const to of types) {
        const { output } = await convert({ input, dtype: to });
        expect(output.dtype).toBe(to);
        expect(sameBits(await output.read(), rounded(rounded(values, from), to)), `${from} to ${to}`).toBe(true);
      }
    }
  });

  it.each([[[5]], [[3, 4, 2]], [[2, 0, 7]]])('takes shape %j', async (shape) => {
    const values = new Random(5).floats(shape.reduce((a, b) => a * b, 1));
    const { output } = await convert({ input: Tensor.from(values, shape, { device: testDevice }), dtype: 'bfloat16' });
    expect(output.shape).toEqual(shape);
    expect(sameBits(await output.read(), rounded(values, 'bfloat16'))).toBe(true);
  });

  it('rounds to nearest, ties to even, and keeps infinities, zeros and NaN', async () => {
    const values = Float32Array.of(
      ...[1 + 2 ** -8, 1 + 3 * 2 ** -8, 1 + 2 ** -8 + 2 ** -20, -1 - 2 ** -8],
      ...[3.4e38, -3.4e38, Infinity, -Infinity, NaN, 0, -0, 1e-45, 2 ** -133],
    );
    const expected = [1, 1 + 2 ** -6, 1 + 2 ** -7, -1, Infinity, -Infinity, Infinity, -Infinity, NaN, 0, -0, 0];
    const input = Tensor.from(values, [1, values.length], { device: testDevice });
    const { output } = await convert({ input, dtype: 'bfloat16' });
    expect([...(await output.read())]).toEqual([...expected, 2 ** -133]);
  });

  it('names what it cannot do', async () => {
    const input = Tensor.from(new Float32Array(6), [2, 3], { device: testDevice });
    await expect(convert({ input, dtype: 'int8' as never })).rejects.toThrow(/dtype/);
    await expect(convert({ input: Tensor.from(new Int32Array(4), [2, 2]), dtype: 'float32' })).rejects.toThrow(/input/);
  });
});
