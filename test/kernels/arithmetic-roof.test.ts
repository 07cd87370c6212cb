/** The roof of arithmetic that benchmarks divide by: it counts what it does, with the instructions that kernels use. */
import { describe, expect, it } from 'vitest';
import { runArithmeticRoof } from '../../lib/bench/roof.js';
import type { WeightDType } from '../../lib/kernels/index.js';
import { native } from '../../lib/native.js';
import { expectSiglipError } from '../support/errors.js';

const { instructionSet } = native().describe();
/** What products are made of, by the chosen instruction set. */
const instructions: Record<string, Partial<Record<WeightDType, string>>> = {
  baseline: { float32: 'mulps and addps', bfloat16: 'mulps and addps' },
  wide16: { float32: 'mulps and addps', bfloat16: 'mulps and addps' },
  avx2: { float32: 'vfmadd231ps', bfloat16: 'vfmadd231ps', int8: 'vpmaddwd and vpaddd' },
  avx2vnni: { float32: 'vfmadd231ps', bfloat16: 'vfmadd231ps', int8: 'vpdpbusd' },
  avx512: { float32: 'vfmadd231ps', bfloat16: 'vfmadd231ps', int8: 'vpmaddwd and vpaddd' },
  avx512vnni: { float32: 'vfmadd231ps', bfloat16: 'vfmadd231ps', int8: 'vpdpbusd' },
  amx: { float32: 'vfmadd231ps', bfloat16: 'tdpbf16ps', int8: 'tdpbssd' },
  avx512bf16: { float32: 'vfmadd231ps', bfloat16: 'vdpbf16ps', int8: 'vpdpbusd' },
};
const known = instructions[instructionSet] ?? {};

describe.skipIf(process.arch !== 'x64')('arithmeticRoof', () => {
  it.each(['float32', 'bfloat16', 'int8'] as const)(
    'multiplies by the instruction of products in %s',
    async (dtype) => {
      if (known[dtype] === undefined) {
        await expectSiglipError(() => runArithmeticRoof({ dtype, turns: 1 }), 'ERR_SIGLIP_UNSUPPORTED', instructionSet);
        return;
      }
      const roof = await runArithmeticRoof({ dtype, turns: 1000, threads: 1 });
      expect(roof.instruction).toContain(known[dtype]);
      expect(roof.milliseconds).toBeGreaterThan(0);
    },
  );

  it('does what it is asked for', async () => {
    const one = await runArithmeticRoof({ dtype: 'float32', turns: 1600, threads: 1 });
    const other = await runArithmeticRoof({ dtype: 'float32', turns: 3200, threads: 3 });
    expect(other.operations).toBe(6 * one.operations);
    const half = () => native().arithmeticRoof({ dtype: 'float16', turns: 1, threads: 1 });
    await expectSiglipError(half, 'ERR_SIGLIP_UNSUPPORTED', 'float16');
  });
});
