/** Every program in examples/ runs and prints what it should. */
import { execFile } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { expect, it } from 'vitest';
import { fixtures } from '../support/golden.js';

const root = path.join(fixtures, '..', '..');
const expected: Record<string, RegExp> = {
  'attention-kernel.mjs': /output \[660,12,64\], logSumExp \[660,12\]\n[\d.]+ ms, [\d.]+ GFLOP\/s/,
  'cancel.mjs': /8 of 16\n16 of 16\nshape \[ 16, 128 \]\n(stopped: .*timeout|finished within)/,
  'classify.mjs': /(cat|cup of coffee|mountain) +[\d.]+ % +logit -?[\d.]+\n.*\n.*\n/,
  'commonjs.cjs': /siglip2 \d+\.\d+\.\d+, \w+, \d+ cores\ntext embedding \[ 1, 128 \]/,
  'dense-features.mjs': /@@/,
  'fine-tune.mjs':
    /step 1: loss [\d.]+\n(step \d+: loss [\d.]+\n)+20 steps, loss [\d.]+\n.*after step 20\nbest label: a tabby cat/,
  'search.mjs':
    /a cat:\n( +-?[\d.]+ {2}\S+\.png\n){3}a cup of coffee on a wooden table:\n( +-?[\d.]+ {2}\S+\.png\n){3}/,
  'worker-pool.mjs': /a cat: an embedding of 128 numbers\n(.*\n){3}/,
};

it.each(readdirSync(path.join(root, 'examples')).filter((name) => /\.[cm]js$/.test(name)))('%s', async (name) => {
  expect(existsSync(path.join(root, 'dist')), 'dist/ is missing: run npm run build:ts').toBe(true);
  const { stdout } = await promisify(execFile)(process.execPath, [path.join(root, 'examples', name)], { cwd: root });
  expect(stdout).toMatch(expected[name] as RegExp);
});
