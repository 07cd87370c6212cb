/** Threads and processes that end in the middle of native work. */
import { describe, expect, it } from 'vitest';
import { describeEnd, runProgram, sanitized } from '../support/child.js';
import { checkpointFolder } from '../support/golden.js';

const folder = checkpointFolder('naflex_hd64');

describe('worker threads', () => {
  it.each([
    ['beside', 'beside a main thread that works too', 12],
    ['only', 'when only they have loaded the addon', 18],
  ])(
    'may be terminated in the middle of work, %s: %s',
    async (mode, _, rounds) => {
      const outcome = await runProgram('workers', [mode, String(sanitized ? 3 : rounds), folder], { timeout: 120_000 });
      expect(describeEnd(outcome)).toBe('exit 0');
      expect(outcome.stdout).toContain('all rounds done');
    },
    700_000,
  );

  it('may load the addon alone and end', async () => {
    const outcome = await runProgram('workers', ['alone', '4', folder]);
    expect(describeEnd(outcome)).toBe('exit 0');
  }, 300_000);

  it('may call process.exit in the middle of work', async () => {
    const outcome = await runProgram('exit', ['workerExit', folder]);
    expect(describeEnd(outcome)).toBe('exit 0');
    expect(outcome.stdout).toContain('worker ended with 5');
  }, 300_000);
});

describe('a process', () => {
  it.each(['exit', 'exitAtOnce'])(
    'ends in the middle of work with its exit code (%s)',
    async (mode) => {
      const outcome = await runProgram('exit', [mode, folder]);
      expect([outcome.signal, outcome.code, outcome.stderr]).toEqual([null, 7, '']);
      expect(outcome.milliseconds).toBeLessThan(60_000);
    },
    300_000,
  );

  it('ends on an uncaught exception in the middle of work, and reports it', async () => {
    const outcome = await runProgram('exit', ['throw', folder]);
    expect([outcome.signal, outcome.code]).toEqual([null, 1]);
    expect(outcome.stderr).toContain('uncaught on purpose');
  }, 300_000);

  it('lives until its native work is done', async () => {
    const outcome = await runProgram('exit', ['finish', folder]);
    expect(describeEnd(outcome)).toBe('exit 0');
    expect(outcome.stdout).toContain('done 8');
  }, 300_000);

  it('ends by itself when there is none', async () => {
    const outcome = await runProgram('exit', ['idle', folder]);
    expect(describeEnd(outcome)).toBe('exit 0');
    expect(outcome.stdout).toBe('idle\n');
  }, 300_000);
});
