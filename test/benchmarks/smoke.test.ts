/** Every benchmark runs, on inputs so small that it takes seconds, and leaves no result behind. */
import { execFile } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import { Siglip2 } from '../../lib/index.js';
import { temporaryFolder } from '../support/folders.js';
import { fixtures, parseSafetensors } from '../support/golden.js';

const benchmarks = path.join(fixtures, '..', '..', 'benchmarks');
const results = path.join(benchmarks, 'results');
/** Programs that benchmarks start. */
const helpers = [
  'contestant.mjs',
  'load-once.mjs',
  'preprocessing-contestant.mjs',
  'sigmoid-loss-contestant.mjs',
  'tokenizer-contestant.mjs',
  'training-contestant.mjs',
];
const programs = ['model', 'kernels'].flatMap((folder) =>
  readdirSync(path.join(benchmarks, folder))
    .filter((name) => !helpers.includes(name))
    .map((name) => `${folder}/${name}`),
);

async function run(program: string, ...options: string[]): Promise<string> {
  expect(existsSync(path.join(benchmarks, '..', 'dist')), 'dist/ is missing: run npm run build:ts').toBe(true);
  const { stdout } = await promisify(execFile)(process.execPath, [path.join(benchmarks, program), ...options]);
  return stdout;
}

describe('benchmarks', () => {
  it('are found', () => expect(programs.length).toBeGreaterThanOrEqual(11));

  it.each(programs)(
    '%s',
    async (program) => {
      const before = readdirSync(results);
      const markdown = await run(program, '--smoke');
      expect(markdown).toMatch(/^# .*\n\n\d{4}-\d\d-\d\d, commit /);
      expect(markdown).toMatch(/\n\| ---[^\n]*\n\| [^\n]*\d[^\n]* \|\n/);
      expect(markdown).toMatch(/\n## Checks of the outputs\n\n- \S/);
      expect(markdown).not.toMatch(/NaN|undefined|Infinity/);
      expect(readdirSync(results)).toEqual(before);
    },
    300_000,
  );
});

describe('make-checkpoint.mjs', () => {
  it('writes a checkpoint that loads, the same one for the same seed', async () => {
    const folder = await temporaryFolder();
    const make = async (name: string, ...options: string[]): Promise<Buffer> => {
      await run('make-checkpoint.mjs', path.join(folder, name), '--size', 'tiny', ...options);
      return readFileSync(path.join(folder, name, 'model.safetensors'));
    };
    const first = await make('first');
    expect(await make('again')).toEqual(first);
    expect(await make('other', '--seed', '2')).not.toEqual(first);

    const { tensors } = parseSafetensors(first);
    const weight = tensors.get('vision_model.encoder.layers.0.mlp.fc1.weight')!;
    const meanSquare = weight.values.reduce((sum, value) => sum + value * value, 0) / weight.values.length;
    expect(meanSquare * 64).toBeCloseTo(1, 1); // 1 / fan-in
    for (const { values } of tensors.values())
      expect(values.every((value) => Number.isFinite(value) && value !== 0)).toBe(true);

    using model = await Siglip2.load(path.join(folder, 'first'));
    const { pooled } = await model.text.forward(
      Int32Array.from({ length: 128 }, (_, i) => i),
      [2, 64],
    );
    expect(pooled.shape).toEqual([2, 64]);
    expect(pooled.data.every(Number.isFinite)).toBe(true);
  });

  it('rounds to bfloat16 and writes one tower alone', async () => {
    const folder = await temporaryFolder();
    const read = (name: string) => parseSafetensors(readFileSync(path.join(folder, name, 'model.safetensors'))).tensors;
    await run('make-checkpoint.mjs', path.join(folder, 'wide'), '--size', 'tiny', '--towers', 'vision');
    await run(
      'make-checkpoint.mjs',
      path.join(folder, 'half'),
      '--size',
      'tiny',
      '--towers',
      'vision',
      '--dtype',
      'bfloat16',
    );
    const [wide, half] = [read('wide'), read('half')];
    expect([...half.keys()]).toEqual([...wide.keys()]);
    expect([...half.keys()].some((name) => name.startsWith('text_model'))).toBe(false);
    for (const [name, { dtype, values }] of half) {
      expect(dtype).toBe('BF16');
      values.forEach((value, i) => {
        const exact = wide.get(name)!.values[i]!;
        if (Math.abs(value - exact) > Math.abs(exact) / 256) throw new Error(`${name}[${i}]: ${value} for ${exact}`);
      });
    }
  });
});
