/** `siglip2 bench`: what it lists, measures and writes. */
import { mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import type { BenchResult } from '../../lib/bench/report.js';
import { documentOf, siglip2 } from '../support/command-line.js';
import { temporaryFolder } from '../support/folders.js';

/** One case, as few runs of it as can be asked for. */
const operands = ['bench', 'attention text B', '--device', 'cpu', '--repeats', '3'];

describe('siglip2 bench', () => {
  it('lists its cases without measuring', async () => {
    const json = await siglip2(['bench', '--list', '--json']);
    expect(json.code).toBe(0);
    const cases = documentOf<{ kernel: string; shape: Record<string, unknown> }[]>(json);
    const kernels = new Set(cases.map(({ kernel }) => kernel));
    for (const kernel of ['attention', 'attentionBackward', 'sigmoidLoss', 'naflexPatchify', 'linear', 'mapPool'])
      expect(kernels).toContain(kernel);
    const chosen = await siglip2(['bench', 'SIGMOIDLOSS', '--list']);
    expect(chosen.stdout).toContain('32768 pairs');
    expect(chosen.stdout).not.toContain('attention');
  });

  it('names words and types that it does not know', async () => {
    const word = await siglip2(['bench', 'convolution']);
    expect(word.code).toBe(2);
    expect(word.stderr).toContain('convolution');
    const dtype = await siglip2(['bench', '--dtype', 'int4']);
    expect(dtype.code).toBe(2);
    expect(dtype.stderr).toContain('int4');
  });

  it.each([
    ['bfloat16', ['linear', 'linearBackward'], 0.02],
    ['int8', ['linear'], 0.15],
  ])(
    'measures products with weights in %s on a CPU, and says what it leaves out',
    async (dtype, kernels, most) => {
      const args = ['bench', 'linear', 'layerNorm', '--device', 'cpu', '--dtype', dtype, '--repeats', '3', '--json'];
      const result = await siglip2(args);
      expect(result.code, result.stderr).toBe(0);
      expect(result.stderr).toMatch(new RegExp(`left out, for want of a form in ${dtype} on cpu: .*layerNorm`));
      const document = documentOf<BenchResult>(result);
      expect(document).toMatchObject({ dtype, failures: [] });
      expect(document.roof.arithmetic).toMatch(/ps|pmaddwd|vpdpbusd/);
      expect([...new Set(document.measurements.map(({ kernel }) => kernel))]).toEqual(kernels);
      for (const { error } of document.measurements) {
        expect(error).toBeGreaterThan(1e-3); // rounded indeed
        expect(error).toBeLessThan(most);
      }
      const none = await siglip2(['bench', 'layerNorm', '--device', 'cpu', '--dtype', dtype]);
      expect(none.code).toBe(2);
      expect(none.stderr).toContain(`none of these cases can be measured in ${dtype} on cpu`);
    },
    300_000,
  );

  it('measures, checks and writes', async () => {
    const folder = temporaryFolder();
    const result = await siglip2([...operands, '--json', '--out', folder]);
    expect(result.code, result.stderr).toBe(0);
    const document = documentOf<BenchResult>(result);
    expect(document).toMatchObject({ device: 'cpu', dtype: 'float32', repeats: 3, failures: [] });
    expect(document.roof.gigabytesPerSecond).toBeGreaterThan(0);
    expect(document.measurements.map(({ kernel, name }) => [kernel, name])).toEqual([['attention', 'text B']]);
    for (const measured of document.measurements) {
      expect(measured.samples.cold).toHaveLength(3);
      expect(measured.cold.median).toBeGreaterThan(0);
      expect(measured.warm.median).toBeGreaterThan(0);
      expect(measured.error).toBeGreaterThan(0);
      expect(measured.error).toBeLessThan(1e-3);
      expect(measured.fractionOfFloor).toBeCloseTo(measured.floorMilliseconds / measured.cold.median);
    }
    const files = readdirSync(folder).sort();
    expect(files).toHaveLength(2);
    expect(JSON.parse(readFileSync(path.join(folder, files[0] as string), 'utf8'))).toEqual(document);
    expect(readFileSync(path.join(folder, files[1] as string), 'utf8')).toContain('| attention | text B |');
    const occupied = path.join(folder, files[0] as string);
    rmSync(occupied);
    mkdirSync(occupied);
    const failed = await siglip2([...operands, '--json', '--out', folder]);
    expect(failed.code).toBe(1);
    expect(documentOf<{ error: { code: string } }>(failed).error.code).toBe('EISDIR');
  });

  it('finds before measuring that it cannot write', async () => {
    const cwd = temporaryFolder({ file: 'no folder' });
    for (const [out, code] of [
      ['file', 'EEXIST'],
      ['file/x', 'ENOTDIR'],
    ] as const) {
      const json = await siglip2([...operands, '--json', '--out', out], { cwd });
      expect(json.code).toBe(1);
      expect(documentOf(json)).toMatchObject({
        error: { code, message: expect.stringContaining(`--out: "${out}" cannot be written into`) },
      });
      // It is said right before measuring that no GPU is used.
      expect(json.stderr).toBe('');
    }
  });
});
