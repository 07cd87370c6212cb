/** `benchmarks/chart.mjs`: bars of what results say, and the chart in the README of what is committed. */
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import sharp from 'sharp';
import { describe, expect, it } from 'vitest';
import { temporaryFolder } from '../support/folders.js';
import { fixtures } from '../support/golden.js';

const root = path.join(fixtures, '..', '..');
const program = path.join(root, 'benchmarks', 'chart.mjs');

/** A result whose contestants took these milliseconds in three rounds of two images each. */
const resultOf = (dtype: string, times: Record<string, number[]>, cpu: object = {}) => ({
  name: 'throughput-model',
  date: '2026-01-02',
  machine: { cpu: { model: 'Chip <1>', cores: 2, instructionSet: 'avx2', ...cpu }, load: [1, 1, 1], commit: 'abc' },
  settings: {
    checkpoint: 'model',
    siglip2: `siglip2, cpu, ${dtype}`,
    onnxruntime: 'onnxruntime-node 1.30.0, CPU',
    torch: `PyTorch 2.13.0+cpu, transformers 5, compiled, sdpa attention, ${dtype}`,
  },
  raw: { 'vision, batch 2': { milliseconds: times } },
});
const float32 = resultOf('float32', { siglip2: [50, 100, 200], onnxruntime: [100, 200, 400], torch: [400, 800, 1600] });
const bfloat16 = resultOf('bfloat16', { siglip2: [25, 25, 25], onnxruntime: [100, 100, 100], torch: [50, 50, 50] });

function draw(files: Record<string, unknown>, ...options: string[]) {
  const folder = temporaryFolder(files);
  const output = path.join(folder, 'chart.svg');
  const inputs = Object.keys(files).map((name) => path.join(folder, name));
  const result = spawnSync(process.execPath, [program, ...inputs, '--output', output, ...options], {
    encoding: 'utf8',
  });
  return { ...result, svg: existsSync(output) ? readFileSync(output, 'utf8') : undefined, folder };
}
const group = ['--group', 'vision, batch 2'];

describe('chart.mjs', () => {
  it('draws every contestant once, fastest first, against the peer of the same rounds', async () => {
    const { status, stderr, svg, folder } = draw({ 'a.json': float32, 'b.json': bfloat16 }, ...group);
    expect(status, stderr).toBe(0);
    const labels = [...svg!.matchAll(/text-anchor="end">([^<]*)</g)].map(([, label]) => label);
    expect(labels).toEqual([
      'siglip2, bfloat16',
      'siglip2, float32',
      'PyTorch 2.13.0 compiled, bfloat16',
      'onnxruntime-node 1.30.0, float32',
      'PyTorch 2.13.0 compiled, float32',
    ]);
    const values = [...svg!.matchAll(/([\d.]+) × <tspan class="quiet">· ([\d.]+) images\/s/g)].map((match) =>
      match.slice(1).map(Number),
    );
    // The peer is that of the first result: 200 ms for two images, though 100 in the other.
    expect(values).toEqual([
      [4, 80],
      [2, 20],
      [2, 40],
      [1, 10],
      [0.25, 2.5],
    ]);
    const widths = [...svg!.matchAll(/<rect class="\w+" [^>]*width="([\d.]+)"/g)].map(([, width]) => Number(width));
    for (const [i, length] of widths.entries()) expect(length / widths[3]!).toBeCloseTo(values[i]![0]!, 1);
    expect(svg).toContain('Chip &#60;1&#62;, 2 cores, avx2, 2026-01-02; commit abc');
    const { format, width } = await sharp(path.join(folder, 'chart.svg')).metadata();
    expect([format, width]).toEqual(['svg', 860]);
  });

  const wrong: [Record<string, unknown>, string[], RegExp][] = [
    [
      { 'a.json': float32, 'b.json': resultOf('int8', { siglip2: [1], onnxruntime: [1] }, { cores: 4 }) },
      [],
      /one machine/,
    ],
    [{ 'a.json': float32 }, ['--reference', 'tensorflow'], /expected tensorflow in .* got siglip2, onnxruntime, torch/],
    [{ 'a.json': float32 }, ['--group', 'vision, batch 8'], /expected onnxruntime in "vision, batch 8", got nothing/],
    [{ 'a.json': { hello: 1 } }, [], /expected a result of a benchmark/],
    [{}, [], /expected results and --output/],
  ];
  it.each(wrong)('refuses %#', (files, options, message) => {
    const { status, stderr, svg } = draw(files, ...(options.includes('--group') ? options : [...group, ...options]));
    expect([status, svg]).toEqual([2, undefined]);
    expect(stderr).toMatch(message);
    expect(stderr).not.toMatch(/\n +at /);
  });

  it('made the charts in docs/ from results that are committed', () => {
    const charts = readdirSync(path.join(root, 'docs')).filter((name) => name.endsWith('.svg'));
    expect(charts).toContain('throughput.svg');
    for (const name of charts) {
      const committed = readFileSync(path.join(root, 'docs', name), 'utf8');
      const [, command, groupName, reference] =
        /<!-- node benchmarks\/chart\.mjs (.*) - -output \S+ - -group '(.*)' - -reference (\S+) -->/.exec(committed)!;
      const inputs = command!.split(' ').map((file) => path.join(root, file));
      const output = path.join(temporaryFolder(), name);
      const options = ['--output', output, '--group', groupName!, '--reference', reference!];
      const { status, stderr } = spawnSync(process.execPath, [program, ...inputs, ...options], { encoding: 'utf8' });
      expect(status, stderr).toBe(0);
      const withoutCommand = (svg: string) => svg.replace(/<!-- .* -->/, '');
      expect(withoutCommand(readFileSync(output, 'utf8'))).toBe(withoutCommand(committed));
    }
  });
});
