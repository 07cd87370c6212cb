/** The roof of arithmetic that benchmarks divide by: it counts what it does, and no product is above it. */
import { describe, expect, it } from 'vitest';
import { runArithmeticRoof } from '../../lib/bench/roof.js';
import { linear, Tensor, type WeightDType } from '../../lib/kernels/index.js';
import { timeKernel } from '../../lib/kernels/timing.js';
import { native } from '../../lib/native.js';
import { draw } from '../support/devices.js';
import { expectSiglipError } from '../support/errors.js';

const { instructionSet } = native().describe();
/** What products are made of, by the chosen instruction set. */
const instructions: Record<string, Partial<Record<WeightDType, string>>> = {
  baseline: { float32: 'mulps and addps', bfloat16: 'mulps and addps' },
  wide16: { float32: 'mulps and addps', bfloat16: 'mulps and addps' },
  avx2: { float32: 'vfmadd231ps', bfloat16: 'vfmadd231ps', int8: 'vpmaddwd and vpaddd' },
  avx512: { float32: 'vfmadd231ps', bfloat16: 'vfmadd231ps', int8: 'vpmaddwd and vpaddd' },
  avx512vnni: { float32: 'vfmadd231ps', bfloat16: 'vfmadd231ps', int8: 'vpdpbusd' },
  amx: { float32: 'vfmadd231ps', bfloat16: 'tdpbf16ps', int8: 'tdpbssd' },
  avx512bf16: { float32: 'vfmadd231ps', bfloat16: 'vdpbf16ps', int8: 'vpdpbusd' },
};
const known = instructions[instructionSet] ?? {};

describe.skipIf(process.arch !== 'x64')('arithmeticRoof', () => {
  it.each(['float32', 'bfloat16', 'int8'] as const)('is never below a product with weights in %s', async (dtype) => {
    if (known[dtype] === undefined) {
      await expectSiglipError(() => runArithmeticRoof({ dtype, turns: 1 }), 'ERR_SIGLIP_UNSUPPORTED', instructionSet);
      return;
    }
    const [rows, inputs, outputs] = [128, 512, 512];
    const random = draw(1);
    using input = Tensor.from(random.floats(rows * inputs), [rows, inputs]);
    using weight = Tensor.from(random.floats(outputs * inputs), [outputs, inputs]);
    const best = { roof: 0, product: 0 };
    // The best of many short turns, which another process seldom meets all of.
    for (let turn = 0; turn < 20; turn++) {
      const roof = await runArithmeticRoof({ dtype, turns: 100_000, threads: 1 });
      expect(roof.instruction).toContain(known[dtype]);
      best.roof = Math.max(best.roof, roof.operations / roof.milliseconds);
      const timed = await timeKernel({ repeats: 3, cold: false }, () =>
        linear({ input, weight, weightDtype: dtype, threads: 1 }),
      );
      timed.result.output.dispose();
      best.product = Math.max(best.product, (2 * rows * inputs * outputs) / Math.min(...timed.milliseconds));
    }
    expect(best.product).toBeLessThan(1.05 * best.roof);
  });

  it('does what it is asked for', async () => {
    const one = await runArithmeticRoof({ dtype: 'float32', turns: 1600, threads: 1 });
    const other = await runArithmeticRoof({ dtype: 'float32', turns: 3200, threads: 3 });
    expect(other.operations).toBe(6 * one.operations);
    const half = () => native().arithmeticRoof({ dtype: 'float16', turns: 1, threads: 1 });
    await expectSiglipError(half, 'ERR_SIGLIP_UNSUPPORTED', 'float16');
  });
});
