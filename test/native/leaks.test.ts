/** Memory stays flat over thousands of calls. */
import { describe, expect, it } from 'vitest';
import { describeEnd, runProgram, sanitized } from '../support/child.js';
import { checkpointFolder } from '../support/golden.js';

/** Bytes a call; the smallest of the core's objects with its inputs is larger. */
const smallLimit = 1024;
/** A model's smallest parts, its mapped files and packed towers, take hundreds of kilobytes; their allocations are noisy. */
const modelLimit = 8192;
/** Abandoned tensors are of a megabyte, and some wait for their finalizers at any time. */
const abandonedLimit = 65_536;

// A sanitizer keeps freed memory for a while, to catch its use.
describe.skipIf(sanitized)('memory is flat over', () => {
  it.each([
    ['embedImages', 1500, smallLimit],
    ['visionForward', 1500, smallLimit],
    ['textForward', 1500, smallLimit],
    ['kernels', 1500, smallLimit],
    ['tensors', 3000, smallLimit],
    ['abandonedTensors', 1500, abandonedLimit],
    ['failures', 1500, smallLimit],
    ['models', 200, modelLimit],
  ])(
    '%s',
    async (scenario, calls, limit) => {
      const args = [scenario, String(calls), String(limit), checkpointFolder('naflex_hd64')];
      const outcome = await runProgram('leaks', args, { execArgv: ['--expose-gc'], timeout: 180_000 });
      expect(describeEnd(outcome)).toBe('exit 0');
      const rounds = JSON.parse(outcome.stdout) as { native: number; heap: number }[];
      const flat = rounds.some(({ native, heap }) => native < limit && heap < limit);
      expect(flat, `bytes gained per call after each round: ${outcome.stdout}`).toBe(true);
    },
    200_000,
  );
});
