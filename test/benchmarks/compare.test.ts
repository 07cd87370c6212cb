/** `benchmarks/compare.mjs`: what it calls a difference, what noise, and what it refuses to compare. */
import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { draw } from '../support/devices.js';
import { temporaryFolder } from '../support/folders.js';
import { fixtures } from '../support/golden.js';

const benchmarks = path.join(fixtures, '..', '..', 'benchmarks');
const { compareResults, ratioOf, readResult } = await import(path.join(benchmarks, 'support', 'comparison.mjs'));

const machine = {
  slug: 'chip-2-cores',
  cpu: { model: 'Chip', cores: 2, instructionSet: 'avx2' },
  load: [1.5, 1, 1],
  node: 'v20.0.0',
  commit: 'abc',
};
const settings = { dtype: 'float32', threads: 2, rounds: 5 };
const resultOf = (raw: unknown, changes: object = {}) => ({
  name: 'linear',
  date: '2026-01-02',
  machine,
  settings,
  raw,
  ...changes,
});
const read = (result: unknown) => readResult(JSON.stringify(result), 'result.json');
const compare = (before: unknown, after: unknown) => compareResults(read(before), read(after));
const verdicts = (before: unknown, after: unknown): Record<string, string> =>
  Object.fromEntries(
    compare(before, after).cases.map(({ name, verdict }: { name: string; verdict: string }) => [name, verdict]),
  );

/** Samples around 100 with the noise of a shared machine: a tenth up or down, and now and then half as much again. */
function samples(count: number, factor: number, stream: number): number[] {
  const random = draw(stream);
  return Array.from({ length: count }, () => factor * (90 + 20 * random.next() + (random.next() < 0.1 ? 50 : 0)));
}

describe('ratioOf', () => {
  it('is the exact interval of Mann and Whitney: the ranks of published tables', () => {
    // Two-sided 5 %: U ≤ 2 for 5 and 5 samples, ≤ 13 for 8 and 8, ≤ 5 for 5 and 7. So the interval starts after U ratios.
    for (const [n, m, critical] of [
      [5, 5, 2],
      [8, 8, 13],
      [5, 7, 5],
    ] as const) {
      const before = Array.from({ length: n }, (_, i) => 1 + i * 1e-3);
      const after = Array.from({ length: m }, (_, i) => 2 + i * i * 1e-2);
      const ratios = after.flatMap((value) => before.map((old) => value / old)).sort((a, b) => a - b);
      const { low, high, confidence } = ratioOf(before, after);
      expect([low, high]).toEqual([ratios[critical], ratios[n * m - 1 - critical]]);
      expect(confidence).toBeGreaterThanOrEqual(0.95);
    }
  });

  it('says how little three samples can tell', () => {
    const { ratio, low, high, confidence } = ratioOf([10, 10, 10], [19, 20, 21]);
    expect([ratio, low, high]).toEqual([2, 1.9, 2.1]);
    expect(confidence).toBeCloseTo(1 - 2 / 20); // one order of six in twenty for either side
  });

  it('holds the true ratio as often as it says, for few samples and for many', () => {
    for (const count of [4, 6, 11, 60]) {
      let held = 0;
      const trials = 400;
      for (let trial = 0; trial < trials; trial++) {
        const { low, high } = ratioOf(samples(count, 1, 2 * trial + 1), samples(count, 1.3, 2 * trial + 2));
        if (low <= 1.3 && high >= 1.3) held++;
      }
      // Five deviations of a binomial below 95 %.
      expect(held / trials).toBeGreaterThan(0.895);
    }
  });
});

describe('compareResults', () => {
  it('tells a difference from noise', () => {
    const before = resultOf({ same: [100, 104, 97, 110, 99, 102], slower: [100, 104, 97, 110, 99, 102] });
    const after = resultOf({ same: [90, 125, 96, 140, 118, 108], slower: [123, 126, 128, 120, 125, 138] });
    expect(verdicts(before, after)).toEqual({ same: 'noise', slower: '**slower**' });
    expect(verdicts(after, before).slower).toBe('**faster**');
  });

  it('calls nothing a difference that is below what two runs differ by, or that few samples show', () => {
    const steady = [100, 100.1, 100.2, 99.9, 99.8, 100];
    const before = resultOf({ steady, few: [100, 101, 102] });
    const after = resultOf({ steady: steady.map((value) => value * 1.04), few: [200, 201, 202] });
    expect(verdicts(before, after)).toEqual({ steady: 'noise', few: 'too few samples' });
    expect(verdicts(before, resultOf({ steady: steady.map((value) => value * 1.06) })).steady).toBe('**slower**');
  });

  it('knows a busier machine by the roof and the peers of the same rounds', () => {
    const times = [100, 104, 97, 110, 99, 102];
    const twice = times.map((value) => 2 * value);
    const kernel = (roof: number[], fast: number[]) => resultOf({ 'roof of int8': roof, fast });
    expect(verdicts(kernel(times, times), kernel(twice, twice)).fast).toBe('as roof of int8: the machine');
    expect(verdicts(kernel(times, times), kernel(times, twice)).fast).toBe('**slower**');
    expect(verdicts(kernel(times, times), kernel(twice, times)).fast).toBe('**faster** against roof of int8');
    // Another roof is no measure of the same.
    expect(verdicts(resultOf({ roof: times, fast: times }), kernel(twice, twice)).fast).toBe('**slower**');
    const model = (siglip2: number[], torch: number[]) => resultOf({ 'batch 1': { milliseconds: { siglip2, torch } } });
    expect(verdicts(model(times, times), model(twice, twice))).toEqual({
      'batch 1, siglip2': 'as torch: the machine',
      'batch 1, torch': '**slower**',
    });
  });

  it('reads runs with several quantities and their units', () => {
    const run = (loading: number, peak: number) => ({ loading, finite: true, rootMeanSquare: 1, afterBatch: { peak } });
    const runs = [100, 101, 102, 103, 104].map((loading) => run(loading, 5e8));
    const { cases } = compare(resultOf({ vision: runs }), resultOf({ vision: runs.map(() => run(100, 4e8)) }));
    expect(cases).toMatchObject([
      { name: 'vision, loading', unit: 'ms', before: { median: 102, samples: 5 }, verdict: 'noise' },
      { name: 'vision, afterBatch, peak', unit: 'MB', after: { median: 400, spread: 0 }, verdict: '**less**' },
    ]);
  });

  it('reads results of siglip2 bench', () => {
    const bench = (cold: number[]) => ({
      device: 'cuda',
      description: 'H100',
      dtype: 'bfloat16',
      repeats: cold.length,
      machine: { date: '2026-01-02T03:04:05Z', node: 'v20', processor: 'Chip', commit: 'abc', gpu: { name: 'H100' } },
      measurements: [{ kernel: 'linear', name: 'QKV', samples: { cold, warm: [1, 2, 3, 4, 5] } }],
    });
    expect(verdicts(bench([5, 5.1, 5.2, 5.3, 5.4]), bench([3, 3.1, 3.2, 3.3, 3.4]))).toEqual({
      'linear, QKV, cold': '**faster**',
      'linear, QKV, warm': 'noise',
    });
  });

  it('warns of other machines, settings, uncommitted changes, loads, and cases that one result lacks', () => {
    const times = [1, 2, 3, 4, 5];
    const { warnings } = compare(
      resultOf({ both: times, gone: times }),
      resultOf(
        { both: times, added: times },
        {
          machine: { ...machine, cpu: { ...machine.cpu, instructionSet: 'avx512' }, load: [7, 1, 1], commit: 'abd+' },
          settings: { ...settings, threads: 1, rounds: 9, torch: 'PyTorch 2' },
        },
      ),
    );
    expect(warnings).toEqual([
      'the machine differs: instructionSet was "avx2", is "avx512"',
      'a setting differs: threads was 2, is 1',
      'a setting differs: torch was nothing, is "PyTorch 2"',
      'the new result holds changes that were not committed',
      'the new result was measured at a load of 7 on 2 cores',
      'only the old result has gone, ms',
      'only the new result has added, ms',
    ]);
    expect(compare(resultOf({ both: times }), resultOf({ both: times })).warnings).toEqual([]);
  });
});

describe('compare.mjs', () => {
  const run = (files: Record<string, unknown>, ...names: string[]) => {
    const folder = temporaryFolder(files);
    const program = path.join(benchmarks, 'compare.mjs');
    return spawnSync(process.execPath, [program, ...names.map((name) => path.join(folder, name))], {
      encoding: 'utf8',
    });
  };
  const good = resultOf({ fast: [10, 11, 12, 13, 14] });

  it('prints a table', () => {
    const after = resultOf({ fast: [20, 21, 22, 23, 24] });
    const { status, stdout } = run({ 'old.json': good, 'new.json': after }, 'old.json', 'new.json');
    expect(status).toBe(0);
    expect(stdout).toMatch(/^# linear: 2026-01-02, commit abc → 2026-01-02, commit abc\n/);
    expect(stdout).toContain(
      '| fast | ms | 12.0 (20 % of 5) | 22.0 (11 % of 5) | +83.3 % (+53.8 % to +120.0 %) | **slower** |',
    );
  });

  it.each([
    [{ 'b.json': { ...good, name: 'attention' } }, /one benchmark, got linear and attention/],
    [{ 'b.json': { hello: 1 } }, /b\.json: expected a result of a benchmark .* got other JSON/],
    [{ 'b.json': '# Linear' }, /b\.json: expected a result of a benchmark, got no JSON/],
    [{ 'b.json': resultOf({}) }, /b\.json: expected samples, got none/],
    [{ 'b.json': resultOf({ other: [1, 2] }) }, /no case in common/],
    [{}, /b\.json: there is no such file/],
  ])('refuses %j', (files, message) => {
    const { status, stdout, stderr } = run({ 'a.json': good, ...files }, 'a.json', 'b.json');
    expect([status, stdout]).toEqual([2, '']);
    expect(stderr).toMatch(message);
    expect(stderr).not.toMatch(/\n +at /);
  });

  it('asks for two files', () => {
    expect(run({ 'a.json': good }, 'a.json').stderr).toContain('compare.mjs OLD.json NEW.json');
  });
});
