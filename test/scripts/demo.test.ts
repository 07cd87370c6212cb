/** `npm run demo`, on a model of random weights, and what it is made of. */
import { execFile } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import sharp from 'sharp';
import { describe, expect, it } from 'vitest';
import { inspect } from '../../lib/index.js';
import { builtFile, checkpoint } from '../support/command-line.js';
import { temporaryFolder } from '../support/folders.js';
import { Random, runSeed } from '../support/random.js';

const root = path.resolve(import.meta.dirname, '../..');
const pictures = path.join(root, 'examples', 'emoji');
const load = (name: string) => import(pathToFileURL(path.join(root, 'scripts', 'demo', name)).href);
const run = promisify(execFile);

/** A configuration without any font. */
function withoutFonts(): NodeJS.ProcessEnv {
  const folder = temporaryFolder();
  const settings = `<?xml version="1.0"?><fontconfig><cachedir>${folder}</cachedir></fontconfig>`;
  const file = path.join(temporaryFolder({ 'fonts.conf': settings }), 'fonts.conf');
  return { ...process.env, FONTCONFIG_FILE: file };
}

it('prints its tables and draws its sheet', async () => {
  builtFile('index.js');
  const output = path.join(temporaryFolder(), 'sheet.png');
  const { stdout } = await run(process.execPath, [path.join(root, 'scripts', 'demo.mjs'), checkpoint, output]);
  const { queries, classification } = await load('questions.mjs');
  for (const { text } of queries) expect(stdout).toContain(`  ${text} `);
  for (const label of classification.labels) expect(stdout).toContain(`  ${label} `);
  const { auto } = await inspect();
  expect(stdout).toMatch(/Embedded \d+ pictures in [\d.]+ s on /);
  expect(stdout).toContain(` s on ${auto?.device}, in ${auto?.dtype}.\n`);
  expect(stdout).toContain('sheet.png');
  const { width, height, format } = await sharp(output).metadata();
  expect([width, format]).toEqual([1240, 'png']);
  expect(height).toBeGreaterThan(1000);
  expect(readdirSync(path.dirname(output))).toEqual(['sheet.png']);
});

describe('the pictures', () => {
  const files = readdirSync(pictures).filter((name) => name.endsWith('.png'));

  it('are those that are listed, and asked for', async () => {
    const { pictureNames } = await load('picture-names.mjs');
    const listed = Object.values<string>(pictureNames).flatMap((group) => group.trim().split(/\s+/));
    expect(files).toEqual(listed.map((name) => `${name}.png`).sort());
    const { classification, comparison } = await load('questions.mjs');
    expect(files).toContain(classification.picture);
    expect(files).toContain(comparison.picture);
    expect(readFileSync(path.join(pictures, 'LICENSE'), 'utf8')).toContain('Copyright (c) Microsoft Corporation');
  });

  it('have no alpha that would be dropped, and a white ground', async () => {
    for (const name of files) {
      const file = path.join(pictures, name);
      const { width, height, hasAlpha } = await sharp(file).metadata();
      expect([name, width, height, hasAlpha]).toEqual([name, 96, 96, false]);
      const { data } = await sharp(file).raw().toBuffer({ resolveWithObject: true });
      let white = 0;
      for (let i = 0; i < data.length; i += 3) if (Math.min(...data.subarray(i, i + 3)) === 255) white++;
      // A picture that fills the square still has its corners free, or nearly.
      expect(white, name).toBeGreaterThan(0);
    }
  });

  it('are not part of the package', () => {
    const { files: packed } = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8')) as { files: string[] };
    expect(packed).toContain('models');
    expect(packed.filter((name) => name.startsWith('examples') || name.startsWith('scripts/demo'))).toEqual([]);
    expect(existsSync(path.join(root, 'scripts', 'demo', 'make-pictures.mjs'))).toBe(true);
  });
});

describe('the map of similar patches', () => {
  it('has the cosines of features without their mean', async () => {
    const { similarityToPatch } = await load('heat-map.mjs');
    const random = new Random(runSeed);
    const [rows, columns, width] = [random.integer(1, 5), random.integer(2, 6), random.integer(2, 9)];
    // The same amount added to every patch changes nothing.
    const features = random.floats(rows * columns * width);
    const shift = random.floats(width, 3);
    const shifted = features.map((value, i) => value + (shift[i % width] as number));
    const spot = { x: random.next(), y: random.next() };
    const shape = [rows, columns, width];
    const plain = similarityToPatch({ data: features, shape }, spot);
    const moved = similarityToPatch({ data: shifted, shape }, spot);
    const at = Math.floor(spot.y * rows) * columns + Math.floor(spot.x * columns);
    expect(plain.row * columns + plain.column).toBe(at);
    expect(plain.values[at]).toBeCloseTo(1, 5);
    expect(plain.values).toHaveLength(rows * columns);
    plain.values.forEach((value: number, i: number) => {
      expect(Math.abs(value)).toBeLessThanOrEqual(1.00001);
      expect(moved.values[i]).toBeCloseTo(value, 3);
    });
  });

  it('is a picture of the size that is asked for, hottest where it is most similar', async () => {
    const { drawHeatMap } = await load('heat-map.mjs');
    const similarity = { rows: 2, columns: 2, values: Float32Array.of(1, 0, 0, -0.2) };
    const { data, info } = await sharp(await drawHeatMap(path.join(pictures, 'star.png'), similarity, 40))
      .raw()
      .toBuffer({ resolveWithObject: true });
    expect([info.width, info.height, info.channels]).toEqual([40, 40, 3]);
    const pixel = (x: number, y: number) => [...data.subarray(3 * (40 * y + x), 3 * (40 * y + x) + 3)] as number[];
    const [hot, cold] = [pixel(2, 2), pixel(37, 37)];
    expect(hot[0]).toBeGreaterThan((hot[2] as number) + 50);
    expect(cold[2]).toBeGreaterThan((cold[0] as number) + 20);
  });
});

it('aligns tables by the width that letters have in a terminal', async () => {
  const { columnsOf, formatTable } = await load('terminal-table.mjs');
  expect(['abc', 'ピザ', 'e\u0301', '彩虹 a', ''].map(columnsOf)).toEqual([3, 4, 1, 6, 0]);
  expect(
    formatTable(
      ['a', '>b'],
      [
        ['ピザ', '1'],
        ['x', '22'],
      ],
    ),
  ).toBe('  a      b\n  ────  ──\n  ピザ   1\n  x     22');
});

it('draws no letters that no font has', async () => {
  const program = `
    import { canDraw } from ${JSON.stringify(pathToFileURL(path.join(root, 'scripts/demo/fonts.mjs')).href)};
    console.log(await canDraw('abc'), await canDraw('ピ'), await canDraw('12 %'));`;
  const { stdout } = await run(process.execPath, ['--input-type=module', '-e', program], { env: withoutFonts() });
  expect(stdout).toBe('false false true\n');
  const output = path.join(temporaryFolder(), 'sheet.png');
  const demo = [path.join(root, 'scripts', 'demo.mjs'), checkpoint, output];
  expect((await run(process.execPath, demo, { env: withoutFonts() })).stdout).toContain('without words');
});
