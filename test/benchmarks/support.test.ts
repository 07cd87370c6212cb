/** What keeps benchmarks honest: the correctness gate, the writer of results, the order of turns, dead contestants. */
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { temporaryFolder } from '../support/folders.js';
import { fixtures } from '../support/golden.js';

const support = async (name: string) => import(path.join(fixtures, '..', '..', 'benchmarks', 'support', `${name}.mjs`));
const { compareRows, distinctRows, identical } = await support('compare');
const { interleave, ofSingleCalls, pairedRatios } = await support('timing');
const { drawGrids, mixes } = await support('pictures');
const { quantile, spread } = await support('statistics');
const { Contestant } = await support('contestant');
const { format, report } = await support('results');

const rows = Float32Array.from({ length: 64 }, (_, i) => Math.sin(i * i + 1));

describe('compareRows', () => {
  it('accepts equal rows and rounding', () => {
    expect(compareRows('', rows, rows, 16).passed).toBe(true);
    expect(
      compareRows(
        '',
        rows.map((value) => value * (1 + 1e-6)),
        rows,
        16,
      ).passed,
    ).toBe(true);
  });

  const wrong: [string, (values: Float32Array) => Float32Array][] = [
    ['one element off', (values) => values.with(17, values[17]! + 0.01)],
    ['one that is not a number', (values) => values.with(40, Number.NaN)],
    [
      'rows in another order',
      (values) => Float32Array.from([...values.subarray(16, 32), ...values.subarray(0, 16), ...values.subarray(32)]),
    ],
    ['a row missing', (values) => values.subarray(0, 48)],
    ['zeros', (values) => values.map(() => 0)],
  ];
  it.each(wrong)('refuses %s', (_, spoil) => {
    expect(compareRows('', spoil(rows), rows, 16).passed).toBe(false);
  });

  it('refuses when nothing is compared, or the expected values are broken', () => {
    expect(compareRows('', new Float32Array(), new Float32Array(), 16).passed).toBe(false);
    expect(compareRows('', rows, rows.with(3, Number.NaN), 16).passed).toBe(false);
  });
});

it('distinctRows and identical tell rows apart', () => {
  expect(distinctRows('', rows, 16).passed).toBe(true);
  expect(distinctRows('', Float32Array.from([...rows.subarray(0, 16), ...rows.subarray(0, 16)]), 16).passed).toBe(
    false,
  );
  expect(identical('', rows, rows.slice()).passed).toBe(true);
  expect(identical('', rows, rows.with(63, rows[63]! + 1e-7)).passed).toBe(false);
});

it('quantiles are interpolated and do not depend on the order', () => {
  expect(quantile([4, 1, 3, 2], 0.5)).toBe(2.5);
  expect(quantile([10, 2], 0.2)).toBeCloseTo(3.6);
  expect(quantile([7], 0.8)).toBe(7);
  expect(spread([100, 100, 100])).toBe(0);
  expect(() => quantile([], 0.5)).toThrow(RangeError);
  expect([1234.5, 12.345, 0.012345, 0].map(format)).toEqual(['1235', '12.3', '0.0123', '0.00']);
});

describe('interleave', () => {
  const plan = {
    rounds: { hurried: 2, least: 4, most: 6 },
    seconds: 60,
    spread: 0.03,
    roundMilliseconds: 10,
    pause: 0,
  };
  const fake = (name: string, turns: string[], times: number[]) => ({
    name,
    async time(repeats: number) {
      turns.push(`${name}${repeats}`);
      const milliseconds = new Array(repeats).fill(times.length > 1 ? times.shift() : times[0]);
      return { milliseconds, cpuMilliseconds: 2 * repeats };
    },
  });

  it('warms up, sizes turns, rotates their order and stops when all are steady', async () => {
    const turns: string[] = [];
    const { samples, cpu, rounds } = await interleave([fake('a', turns, [90, 5]), fake('b', turns, [9, 2])], plan);
    expect(turns).toEqual(['a1', 'b1', 'b1', 'a1', 'b5', 'b5', 'a1', 'a1', 'b5', 'b5', 'a1']);
    expect(rounds).toBe(4);
    expect(samples.get('a')).toEqual([5, 5, 5, 5]);
    expect(cpu.get('b')).toEqual([2, 2, 2, 2]);
    expect(pairedRatios(samples.get('a'), samples.get('b'))).toEqual([2.5, 2.5, 2.5, 2.5]);
  });

  it('goes on to the most rounds while one is unsteady', async () => {
    const restless = fake('a', [], [1, 10, 10, 20, 10, 20, 10, 20]);
    expect((await interleave([restless], plan)).rounds).toBe(6);
  });

  it('repeats a call for its percentiles unless it is slow, and keeps every one', async () => {
    const [quick, slow] = [fake('quick', [], [20]), fake('slow', [], [50])];
    const { samples, calls, rounds } = await interleave([quick, slow], ofSingleCalls(plan));
    expect(rounds).toBe(6);
    expect(calls.get('quick')).toEqual(new Array(24).fill(20));
    expect(calls.get('slow')).toEqual(new Array(6).fill(50));
    expect(samples.get('quick')).toHaveLength(6);
  });

  it('makes fewer rounds when the time is up', async () => {
    expect((await interleave([fake('a', [], [5])], { ...plan, seconds: 0 })).rounds).toBe(2);
  });
});

describe('drawGrids', () => {
  const drawn = Object.entries(mixes as Record<string, { most: number }>).map(
    ([name, mix]) => [name, mix, drawGrids(mix, 400, 16, 7)] as const,
  );

  it.each(drawn)('%s: fits the padded length, the same for the same seed', (_, mix, grids) => {
    const tokens = grids.map(([rows, columns]: [number, number]) => rows * columns);
    expect(Math.max(...tokens)).toBeLessThanOrEqual(mix.most);
    expect(Math.min(...tokens)).toBeGreaterThanOrEqual(1);
    expect(drawGrids(mix, 400, 16, 7)).toEqual(grids);
    expect(drawGrids(mix, 400, 16, 8)).not.toEqual(grids);
    const landscape = grids.filter(([rows, columns]: [number, number]) => columns > rows).length;
    expect(landscape).toBeGreaterThan(180); // 52 of 100 have such a ratio, but small grids are squarer
    expect(landscape).toBeLessThanOrEqual(208);
  });

  it('is a fair sample of eight', () => {
    const tokens = drawGrids(mixes['photographs, 128 to 1024 patches'], 8, 16, 1).map(
      ([rows, columns]: [number, number]) => rows * columns,
    );
    for (const budget of [128, 256, 576, 784, 1024])
      expect(tokens.some((count: number) => count <= budget && count > 0.75 * budget)).toBe(true);
  });

  it('fills the budget with enlarged pictures only', () => {
    const share = drawn.map(
      ([, { most }, grids]) =>
        grids.reduce((sum: number, [rows, columns]: [number, number]) => sum + rows * columns, 0) / (most * 400),
    );
    expect(share[0]).toBeGreaterThan(0.9);
    expect(share[1]).toBeLessThan(0.8);
    expect(share[2]).toBeLessThan(0.65); // (128 + 256 + 576 + 784 + 1024) / 5 of 1024 is 0.54
  });
});

describe('report', () => {
  const result = {
    name: 'sample',
    title: 'Sample',
    settings: { threads: 2 },
    checks: [{ name: 'outputs', passed: true, detail: 'fine' }],
    limits: [{ name: 'time', value: 2, unit: 's', limit: '< 1 s', met: false }],
    tables: [{ title: 'Table', columns: ['case', 'ms'], rows: [['one', 1.2345]] }],
    notes: [],
    raw: { one: [1.2, 1.3] },
  };

  it('writes Markdown and JSON that name the machine and the day', async () => {
    const folder = await temporaryFolder();
    await report(result, folder);
    const names = readdirSync(folder).sort();
    expect(names).toEqual([
      expect.stringMatching(/^sample-.+-cores?-\w+-\d{4}-\d\d-\d\d\.json$/),
      expect.stringMatching(/\.md$/),
    ]);
    const [json, markdown] = names.map((name) => readFileSync(path.join(folder, name), 'utf8'));
    expect(JSON.parse(json!)).toMatchObject({ ...result, machine: { node: process.version } });
    expect(markdown).toContain('| one | 1.23 |');
    expect(markdown).toContain('| time | 2.00 s | < 1 s | **missed** |');
  });

  it('refuses to write when an output is wrong or was not checked', async () => {
    const folder = await temporaryFolder();
    const failed = { name: 'embeddings', passed: false, detail: 'cosine 0.2' };
    await expect(report({ ...result, checks: [...result.checks, failed] }, folder)).rejects.toThrow(
      /embeddings: cosine 0.2/,
    );
    await expect(report({ ...result, checks: [] }, folder)).rejects.toThrow(/needs a check/);
    expect(readdirSync(folder)).toEqual([]);
  });
});

describe('Contestant', () => {
  const start = async (program: string) =>
    new Contestant('peer', process.execPath, ['--input-type=module', '-e', program], await temporaryFolder());

  it('reports a process that dies, with what it wrote', async () => {
    const contestant = await start('console.error("no such graph"); process.exit(3)');
    await expect(contestant.load({})).rejects.toThrow(/peer: it ended with status 3\n(.*\n)*no such graph/);
  });

  it('reports an error that the contestant answers, and ends it', async () => {
    const contestant = await start(
      'process.stdin.once("data", () => console.log(JSON.stringify({ error: "wrong shape" })));',
    );
    await expect(contestant.load({})).rejects.toThrow('peer: wrong shape');
    await contestant.close();
  });

  it('reports a command that does not exist', async () => {
    const contestant = new Contestant('peer', '/no/such/python', [], await temporaryFolder());
    await expect(contestant.load({})).rejects.toThrow(/peer: .*ENOENT/);
  });
});
