import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { defineConfig } from 'vitest/config';

const addon = new URL('./build/Release/siglip2.node', import.meta.url);
if (!existsSync(process.env.SIGLIP2_NATIVE ?? addon))
  throw new Error('the addon is not built: run npm run build:native');

/** Instruction sets that this machine can run: the one that is chosen by itself, and the others. */
function findInstructionSets(): { chosen: string; others: string[] } {
  const { describe } = createRequire(import.meta.url)(process.env.SIGLIP2_NATIVE ?? addon.pathname) as {
    describe(): { instructionSet: string; instructionSets: { name: string; compiled: boolean; supported: boolean }[] };
  };
  const { instructionSet, instructionSets } = describe();
  const others = instructionSets
    .filter(({ name, compiled, supported }) => compiled && supported && name !== instructionSet)
    .map(({ name }) => name);
  return { chosen: instructionSet, others };
}
const { chosen, others } = findInstructionSets();

/** What differs in single functions is one build of the kernels; see docs/cpu.md. */
const buildOf = (isa: string): string => (/^(avx512|amx)/.test(isa) ? 'avx512' : isa.replace(/vnni$/, ''));

/** All in which they differ. */
const narrowProducts = [
  'test/native/ops/linear*.test.ts',
  'test/native/ops/attention.test.ts',
  'test/native/ops/mlp.test.ts',
  'test/native/ops/self-attention.test.ts',
  'test/model/automatic-type.test.ts',
  'test/model/golden.test.ts',
];

/** What depends on the CPU kernels: run once on every instruction set. */
const kernelTests = [
  'test/native/ops/**/*.test.ts',
  'test/kernels/**/*.test.ts',
  'test/model/automatic-type.test.ts',
  'test/model/golden.test.ts',
  'test/training/gradients.test.ts',
];

/** Whether a set differs only in products from the chosen one, or from one that is listed before it. */
const differsInProducts = (isa: string, index: number): boolean =>
  isa === 'amxemulated' ||
  [chosen, ...others.slice(0, index)].some((other) => other !== 'amxemulated' && buildOf(other) === buildOf(isa));

/** What runs on every device; see test/support/devices.ts. */
const deviceTests = [
  'test/kernels/sigmoid-loss-golden.test.ts',
  'test/native/ops/**/*.test.ts',
  'test/model/golden.test.ts',
  'test/model/token-buckets.test.ts',
  'test/training/gradients.test.ts',
  'test/training/positives.test.ts',
];
/** Where this names a device (`npm run test:gpu`: cuda), these alone, on it. */
const onlyDevice = process.env.SIGLIP2_TEST_DEVICE;

export default defineConfig({
  test: {
    // Native work uses every core itself: more than two test processes only fight for them.
    maxWorkers: 2,
    projects: onlyDevice
      ? [{ extends: true, test: { name: onlyDevice, include: deviceTests } }]
      : [
          { extends: true, test: { name: 'siglip2', include: ['test/**/*.test.ts'] } },
          ...others.map((isa, index) => ({
            extends: true as const,
            test: {
              name: isa,
              include: differsInProducts(isa, index) ? narrowProducts : kernelTests,
              env: { SIGLIP2_ISA: isa },
            },
          })),
          // The emulated GPU.
          {
            extends: true,
            test: {
              name: 'simt',
              include: [...deviceTests, 'test/native/mutation.test.ts'],
              env: { SIGLIP2_TEST_DEVICE: 'simt' },
            },
          },
          // The same with products made by a library, as cuBLASLt makes them on a card (native/simt/simt_runtime.cc).
          {
            extends: true,
            test: {
              name: 'simtproducts',
              include: [
                'test/native/ops/sigmoid-loss*.test.ts',
                'test/native/ops/linear-backward.test.ts',
                'test/training/gradients.test.ts',
              ],
              env: { SIGLIP2_TEST_DEVICE: 'simt', SIGLIP2_CUBLASLT: 'emulated' },
            },
          },
        ],
    testTimeout: 60_000,
    hookTimeout: 60_000,
    // A CommonJS file that knows where it lies on disk must be loaded as it is, not transformed.
    server: { deps: { external: [/native-loader\.cjs$/] } },
  },
});
