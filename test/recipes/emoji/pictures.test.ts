/** Pictures of drawings, and the shards that hold them with their texts. */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { openDataset } from '../../../lib/training/index.js';
import { encodePng, identicalGroups, renderDrawing } from '../../../recipes/emoji/data/pictures.mjs';
import { makeShards, shardSets } from '../../../recipes/emoji/data/shards.mjs';
import { temporaryFolder, writeFiles } from '../../support/folders.js';
import { squareFont } from '../../support/font.js';

const svg = (body: string, box = '0 0 32 32') => ({
  svg: `<svg xmlns="http://www.w3.org/2000/svg" viewBox="${box}">${body}</svg>`,
  size: Math.max(...box.split(' ').slice(2).map(Number)),
});

/** Red, green, blue and alpha of a pixel. */
const pixel = (data: Buffer, x: number, y: number, size = 96) => [...data.subarray((y * size + x) * 4).subarray(0, 4)];

describe('pictures', () => {
  it('are cropped to the drawing and fitted with their aspect ratio, centred', async () => {
    // Twice as wide as high, off the centre.
    const drawing = svg('<rect x="3" y="20" width="16" height="8" fill="#f00"/>');
    const data = await renderDrawing(drawing, { crop: true });
    expect(data).toHaveLength(96 * 96 * 4);
    for (const x of [1, 48, 94]) {
      expect(pixel(data, x, 48)).toEqual([255, 0, 0, 255]);
      expect(pixel(data, x, 28)).toEqual([255, 0, 0, 255]);
      expect(pixel(data, x, 67)).toEqual([255, 0, 0, 255]);
      expect(pixel(data, x, 20)[3]).toBe(0);
      expect(pixel(data, x, 75)[3]).toBe(0);
    }
  });

  it('stay as they come without the crop', async () => {
    const data = await renderDrawing(svg('<rect x="8" y="16" width="8" height="8" fill="#00f"/>'), { crop: false });
    expect(pixel(data, 36, 60)).toEqual([0, 0, 255, 255]);
    expect(pixel(data, 20, 60)[3]).toBe(0);
    expect(pixel(data, 52, 60)[3]).toBe(0);
    expect(pixel(data, 36, 44)[3]).toBe(0);
  });

  it('are white where they are transparent', async () => {
    const data = await renderDrawing(svg('<circle cx="16" cy="16" r="9" fill="#123456"/>'), { crop: true });
    let clear = 0;
    for (let at = 0; at < data.length; at += 4)
      if (data[at + 3] === 0) {
        clear++;
        expect([...data.subarray(at, at + 3)]).toEqual([255, 255, 255]);
      }
    expect(clear).toBeGreaterThan(500);
  });

  it('do not depend on the units of the drawing', async () => {
    const small = await renderDrawing(svg('<path d="M4 4h20l4 24z" fill="#0a0"/>'), { crop: true });
    const large = await renderDrawing(svg('<path d="M64 64h320l64 384z" fill="#0a0"/>', '0 0 512 512'), { crop: true });
    const furthest = Math.max(...small.map((value, at) => Math.abs(value - large[at]!)));
    expect(furthest).toBeLessThanOrEqual(2);
  });

  it('are made of files, too', async () => {
    // Violet in the lower right quarter.
    const data = Buffer.alloc(64 * 64 * 4);
    for (let y = 32; y < 64; y++) for (let x = 32; x < 64; x++) data.set([255, 0, 255, 255], (y * 64 + x) * 4);
    const folder = temporaryFolder({ 'drawing.png': await encodePng(data, 64) });
    const drawing = { file: path.join(folder, 'drawing.png') };
    const cropped = await renderDrawing(drawing, { crop: true });
    const whole = await renderDrawing(drawing, { crop: false });
    expect(pixel(cropped, 1, 1)).toEqual([255, 0, 255, 255]);
    expect(pixel(cropped, 94, 94)).toEqual([255, 0, 255, 255]);
    expect(pixel(whole, 44, 80)[3]).toBe(0);
    expect(pixel(whole, 80, 80)).toEqual([255, 0, 255, 255]);
  });

  it('are made of the glyphs of a font, too', async () => {
    const folder = temporaryFolder();
    const fontFile = path.join(folder, 'square.ttf');
    writeFileSync(fontFile, squareFont('Siglip2 Square', '🐶'));
    const data = await renderDrawing({ characters: '🐶', fontFile, font: 'Siglip2 Square' }, { crop: true });
    for (const x of [2, 48, 93]) for (const y of [2, 48, 93]) expect(pixel(data, x, y)).toEqual([0, 0, 0, 255]);
  });

  it('are refused when there is nothing to see', async () => {
    await expect(renderDrawing(svg(''), { crop: true })).rejects.toThrow('the drawing is empty');
  });

  it('that are the same are grouped', () => {
    const digests = new Map([
      ['C', 'x'],
      ['B', 'y'],
      ['A', 'x'],
      ['D', 'z'],
    ]);
    expect(identicalGroups(digests)).toEqual([['A', 'C']]);
  });
});

describe('shards', () => {
  /** A cache with two emoji in every style, of which the second is missing in one. */
  async function smallCache() {
    const png = await encodePng(Buffer.alloc(4 * 4 * 4, 200), 4);
    const names = [...new Set(Object.values(shardSets).flatMap(({ styles }) => styles))] as string[];
    const styles = Object.fromEntries(
      names.map((name, at) => [name, { keys: at === 0 ? ['1F431'] : ['1F431', '1F63A'], identical: [] as string[][] }]),
    );
    styles.twemoji!.identical = [['1F431', '1F63A']];
    const texts = {
      seen: ['en'],
      languages: {
        en: {
          '1F431': { name: 'cat face', keywords: ['pet', 'fur', 'paw'] },
          '1F63A': { name: 'grinning cat', keywords: ['smile', 'mouth'] },
        },
        ca: { '1F431': { name: 'cara de gat', keywords: ['animal'] } },
      },
      heldOut: { en: ['pet'] },
    };
    const folder = temporaryFolder({ 'pictures/manifest.json': { styles }, 'texts.json': texts });
    for (const [name, { keys }] of Object.entries(styles))
      writeFiles(folder, Object.fromEntries(keys.map((key) => [`pictures/${name}/${key}.png`, png])));
    return folder;
  }

  it('are read by the trainer, with the texts of seen languages that are not held out', async () => {
    const cache = await smallCache();
    const made = await makeShards({ cache });
    for (const set of ['plain-english', 'redrawn-english', 'redrawn'])
      expect(made[set]!.pictures).toBe(2 * shardSets[set]!.styles.length - 1);

    const dataset = await openDataset(
      { shards: path.join(cache, 'shards/redrawn/*.tar') },
      { epochs: 1, shuffle: false },
    );
    const found = new Map<string, readonly string[]>();
    for await (const { key, texts } of dataset.examples()) found.set(key, texts);
    expect(dataset.skipped.count).toBe(0);
    expect(found.size).toBe(made.redrawn!.pictures);
    expect([...found.keys()].filter((key) => key.endsWith('-twemoji')).sort()).toEqual([
      '1F431-twemoji',
      '1F63A-twemoji',
    ]);
    for (const [key, texts] of found) {
      const parts = new Set(texts.flatMap((text) => (/cat/.test(text) ? [text] : text.split(/, | /))));
      const own = key.startsWith('1F431') ? ['cat face', 'fur', 'paw'] : ['grinning cat', 'smile', 'mouth'];
      const same = key.endsWith('-twemoji') ? ['cat face', 'grinning cat'] : [];
      expect(parts, key).toEqual(new Set([...own, ...same]));
    }
  });

  it('are of styles that are trained on; drawings drawn anew are in a set of their own', async () => {
    const cache = await smallCache();
    const made = await makeShards({ cache });
    for (const [set, texts] of [
      ['plain-english', 40],
      ['redrawn-english', 20],
      ['redrawn', 20],
    ] as const)
      expect(made[set]!.texts).toBe(texts * made[set]!.pictures);
    const stylesIn = (set: string) =>
      [...new Set(readdirSync(path.join(cache, 'shards', set)).map((name) => name.replace(/-\d+\.tar$/, '')))].sort();
    const plain = ['emojione', 'fxemoji', 'noto', 'noto-v1', 'twemoji'];
    expect(stylesIn('plain-english')).toEqual(plain);
    // What is drawn differently comes last, and a font's glyphs are no SVG.
    const redrawn = [...plain, 'streamline'].flatMap((style) => [1, 2, 3].map((time) => `${style}-redrawn-${time}`));
    for (const set of ['redrawn', 'redrawn-english'])
      expect(stylesIn(set)).toEqual([...plain, ...redrawn, 'noto-lines', 'streamline'].sort());
  });

  it('have English texts alone in the sets for the first stages', async () => {
    const cache = await smallCache();
    const file = path.join(cache, 'texts.json');
    const texts = JSON.parse(readFileSync(file, 'utf8')) as { seen: string[] };
    writeFileSync(file, JSON.stringify({ ...texts, seen: ['en', 'ca'], heldOut: { en: ['pet'], ca: [] } }));
    await makeShards({ cache });
    const read = async (set: string): Promise<Set<string>> => {
      const dataset = await openDataset({ shards: path.join(cache, `shards/${set}/*.tar`) }, { epochs: 1 });
      const found = new Set<string>();
      for await (const { texts: own } of dataset.examples()) for (const text of own) found.add(text);
      return found;
    };
    expect(await read('redrawn')).toContain('cara de gat');
    for (const set of ['plain-english', 'redrawn-english']) {
      const english = await read(set);
      expect(english).toContain('cat face');
      expect(english).not.toContain('cara de gat');
    }
  });

  it('have the same bytes every time', async () => {
    const cache = await smallCache();
    const bytes = () =>
      readdirSync(path.join(cache, 'shards/redrawn')).map((name) => [
        name,
        readFileSync(path.join(cache, 'shards/redrawn', name)).toString('base64'),
      ]);
    await makeShards({ cache });
    const first = bytes();
    await new Promise((resolve) => setTimeout(resolve, 1100));
    await makeShards({ cache });
    expect(bytes()).toEqual(first);
  });

  it('need pictures and texts', async () => {
    await expect(makeShards({ cache: temporaryFolder() })).rejects.toThrow(
      /manifest\.json cannot be read; "npm run data:emoji -- pictures" makes it/,
    );
  });
});
