/** `npm run gpu`, with programs in place of the card, the sanitizer and Python. */
import { spawnSync } from 'node:child_process';
import { chmodSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { temporaryFolder } from '../support/folders.js';

const script = path.resolve(import.meta.dirname, '../../scripts/gpu.mjs');

/** An addon that says why there is no CUDA device (or has one), and programs by name. */
function machine(noCuda: string | undefined, programs: Record<string, string> = {}) {
  const scripts = Object.fromEntries(Object.entries(programs).map(([name, body]) => [name, `#!/bin/sh\n${body}\n`]));
  const folder = temporaryFolder({
    'addon.cjs': `exports.describe = () => (${JSON.stringify({ noCuda })});`,
    ...scripts,
  });
  for (const name of Object.keys(programs)) chmodSync(path.join(folder, name), 0o755);
  const run = (...operands: string[]) => {
    const { status, stdout, stderr } = spawnSync(process.execPath, [script, ...operands], {
      encoding: 'utf8',
      env: { PATH: `${folder}:/usr/bin:/bin`, SIGLIP2_NATIVE: path.join(folder, 'addon.cjs') },
    });
    return { status, stdout, stderr };
  };
  return { folder, run };
}

describe('npm run gpu', () => {
  it('shows its command lines in order, or those of some parts, and refuses others', () => {
    const { run } = machine(undefined);
    const parts = (stdout: string) => [...stdout.matchAll(/^([a-z0-9-]+): /gm)].map(([, part]) => part);
    const sanitizers = ['memcheck', 'racecheck', 'initcheck', 'synccheck'];
    const measured = ['bench-bfloat16', 'bench-float32', 'peers-bfloat16', 'peers-float32'];
    expect(parts(run('--dry-run').stdout)).toEqual(['test-products', 'test-own', ...sanitizers, ...measured]);
    expect(parts(run('peers-float32', 'sanitize', '--dry-run').stdout)).toEqual([...sanitizers, 'peers-float32']);
    const other = run('fly');
    expect(other.status).toBe(2);
    expect(other.stderr).toContain('"fly" is no part');
  });

  it('is skipped without a card, and fails where the card has no library', () => {
    const without = machine('no driver', { 'nvidia-smi': 'exit 9' }).run();
    expect(without.stdout).toBe('skipped: there is no CUDA device here: no driver\n');
    expect(without.status).toBe(0);
    const unbuilt = machine('build it', { 'nvidia-smi': 'echo NVIDIA L4' }).run();
    expect(unbuilt.stdout).toBe('cannot run: there is no CUDA device here: build it\n');
    expect(unbuilt.status).toBe(2);
  });

  it('runs sanitizers, keeps logs, and believes their summaries more than their exit codes', () => {
    const body = `case "$2" in
      memcheck) echo "$SIGLIP2_TEST_DEVICE $SIGLIP2_TEST_SHAPES $*"; echo "========= ERROR SUMMARY: 0 errors";;
      racecheck) echo "========= RACECHECK SUMMARY: 3 hazards displayed (1 error, 2 warnings)";;
      initcheck) echo "========= ERROR SUMMARY: 0 errors"; exit 3;;
      synccheck) echo nothing;; esac`;
    const { folder, run } = machine(undefined, { 'compute-sanitizer': body });
    const logs = path.join(folder, 'logs');
    const { status, stdout } = run('sanitize', '--logs', logs);
    expect(status).toBe(1);
    expect(stdout).toMatch(
      /^cuda small --tool memcheck --target-processes all --error-exitcode 3 .*vitest\.mjs run test/m,
    );
    expect(stdout).toMatch(/^memcheck +\d+ {2}passed$/m);
    expect(stdout).toMatch(/^racecheck +\d+ {2}the sanitizer found errors$/m);
    expect(stdout).toMatch(/^initcheck +\d+ {2}failed with exit code 3$/m);
    expect(stdout).toMatch(/^synccheck +\d+ {2}the sanitizer printed no summary$/m);
    expect(readFileSync(path.join(logs, 'racecheck.log'), 'utf8')).toContain('3 hazards');
    expect(run('memcheck').status).toBe(0);
  });

  it('takes the newest result of a card in the type to the peers', () => {
    const { folder, run } = machine(undefined, { snake: 'echo "peers of $2"' });
    const out = temporaryFolder({
      'kernels-cpu-float32-1.json': JSON.stringify({ device: 'cpu', dtype: 'float32' }),
      'kernels-l4-bfloat16-1.json': JSON.stringify({ device: 'cuda', dtype: 'bfloat16' }),
      'kernels-l4-bfloat16-1-peers.json': '{}',
    });
    const { status, stdout } = run('peers', '--out', out, '--python', path.join(folder, 'snake'));
    expect(stdout).toContain(`peers of ${path.join(out, 'kernels-l4-bfloat16-1.json')}`);
    expect(stdout).toMatch(/^peers-bfloat16 +\d+ {2}passed$/m);
    expect(stdout).toMatch(/^peers-float32 +\d+ {2}no float32 result of a GPU in .*; run bench-float32$/m);
    expect(status).toBe(1);
  });
});
