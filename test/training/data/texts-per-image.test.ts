import sharp from 'sharp';
import { describe, expect, it } from 'vitest';
import { type Batch, type BatchOptions, batches, openDataset } from '../../../lib/training/data/index.js';
import { gatherTexts } from '../../../lib/training/data/positives.js';
import { RandomStream } from '../../../lib/training/data/random.js';
import { temporaryFolder } from '../../support/folders.js';
import { runSeed } from '../../support/random.js';
import { picture, take, tar } from '../../support/training-data.js';

describe('gatherTexts', () => {
  it('has every text once, and for each picture all of its captions that were drawn for any', () => {
    const drawn = [['cat', 'animal'], ['dog', 'animal'], ['sun']];
    const captions = [
      ['cat', 'animal', 'pet'],
      ['animal', 'dog', 'dog'],
      ['sun', 'cat'],
    ];
    const { texts, positives } = gatherTexts(drawn, captions);
    expect(texts).toEqual(['cat', 'animal', 'dog', 'sun']);
    expect([...positives.offsets]).toEqual([0, 2, 4, 6]);
    expect([...positives.texts]).toEqual([0, 1, 1, 2, 0, 3]);
  });

  it('takes texts that differ in case alone for one, as it is first written', () => {
    const { texts, positives } = gatherTexts([['A Dog'], ['a dog', 'ΟΔΟΣ']], [['A Dog'], ['a dog', 'οδοσ', 'ΟΔΟΣ']]);
    expect(texts).toEqual(['A Dog', 'ΟΔΟΣ']);
    expect([...positives.offsets]).toEqual([0, 1, 3]);
    expect([...positives.texts]).toEqual([0, 0, 1]);
  });

  it('agrees with a look at every pair', () => {
    const random = new RandomStream(runSeed, 11);
    for (let trial = 0; trial < 30; trial++) {
      const captions = Array.from({ length: random.below(12) }, () =>
        Array.from({ length: 1 + random.below(8) }, () => `text ${random.below(15)}`),
      );
      const drawn = captions.map((own) => own.filter(() => random.below(3) === 0));
      const { texts, positives } = gatherTexts(drawn, captions);
      expect(new Set(texts)).toEqual(new Set(drawn.flat()));
      expect(texts.length).toBe(new Set(texts).size);
      captions.forEach((own, i) => {
        const listed = [...positives.texts.slice(positives.offsets[i], positives.offsets[i + 1])];
        expect(listed).toEqual(texts.flatMap((text, j) => (own.includes(text) ? [j] : [])));
      });
    }
  });
});

async function shard(
  count: number,
  image: (n: number) => Promise<Buffer> | Buffer = (n) => picture(n),
): Promise<string> {
  const members: [string, string | Uint8Array][] = [];
  for (let n = 0; n < count; n++) {
    // Every third picture has the same captions.
    const texts = Array.from({ length: 6 }, (_, k) => `caption ${n % 3} ${k}`);
    members.push([`${n}.png`, await image(n)], [`${n}.json`, JSON.stringify({ text: texts })]);
  }
  return `${temporaryFolder({ 'a.tar': await tar(members) })}/a.tar`;
}

async function read(shards: string, options: BatchOptions, position?: Batch['position']): Promise<Batch[]> {
  const dataset = await openDataset(
    { shards },
    { seed: runSeed, epochs: 2, ...(position === undefined ? {} : { position }) },
  );
  return take(batches(dataset, options));
}

describe('textsPerImage', () => {
  it('draws so many captions for each picture, without repetition in a batch', async () => {
    for (const { images, texts, positives, keys } of await read(await shard(12), { batchSize: 6, textsPerImage: 3 })) {
      expect(images.length).toBe(6);
      expect(new Set(texts).size).toBe(texts.length);
      // 3 different pictures at least, and never more than 3 captions for each of 6.
      expect(texts.length).toBeLessThanOrEqual(18);
      expect(positives!.offsets.length).toBe(7);
      keys.forEach((key, i) => {
        const listed = [...positives!.texts.slice(positives!.offsets[i], positives!.offsets[i + 1])];
        expect(listed.length).toBeGreaterThan(0);
        expect(listed).toEqual(texts.flatMap((text, j) => (text.startsWith(`caption ${Number(key) % 3} `) ? [j] : [])));
      });
    }
  });

  it('begins with the caption that is drawn without it', async () => {
    const shards = await shard(9);
    const single = await read(shards, { batchSize: 1 });
    const several = await read(shards, { batchSize: 1, textsPerImage: 4 });
    expect(single.map(({ texts }) => texts[0])).toEqual(several.map(({ texts }) => texts[0]));
    expect(several.some(({ texts }) => texts.length > 1)).toBe(true);
    expect(single[0]!.positives).toBe(undefined);
  });

  it('draws others in the next epoch', async () => {
    const [first, second] = await read(await shard(3), { batchSize: 3, textsPerImage: 2 });
    expect(first!.texts).not.toEqual(second!.texts);
  });
});

describe('augment', () => {
  const transparent = (n: number): Promise<Buffer> =>
    sharp({ create: { width: 8, height: 8, channels: 4, background: { r: 10 * n, g: 0, b: 0, alpha: 0.5 } } })
      .png()
      .toBuffer();

  it('draws transparent pictures on their background', async () => {
    const options = { batchSize: 4, augment: { size: 8, background: ['white' as const] } };
    const [first] = await read(await shard(4, transparent), options);
    for (const [i, { data, width, height }] of first!.images.entries()) {
      expect([width, height]).toEqual([8, 8]);
      const n = Number(first!.keys[i]);
      // sharp makes the opacity 127 or 128 of 255.
      expect(Math.abs(data[0]! - (255 + 10 * n) / 2)).toBeLessThanOrEqual(2);
      expect(Math.abs(data[1]! - 127.5)).toBeLessThanOrEqual(2);
    }
  });

  const changing = { size: 12, scale: [0.5, 1] as const, rotation: 30, background: ['any' as const] };

  it('changes a picture anew in every epoch, and in the same way in a run that goes on', async () => {
    const shards = await shard(4, transparent);
    const options: BatchOptions = { batchSize: 2, augment: changing, textsPerImage: 2, decodeConcurrency: 3 };
    const straight = await read(shards, options);
    const [a, b] = [0, 1].map(
      (epoch) => straight.slice(2 * epoch, 2 * epoch + 2).find(({ keys }) => keys.includes('1'))!,
    );
    expect(a!.images[a!.keys.indexOf('1')]).not.toEqual(b!.images[b!.keys.indexOf('1')]);
    for (const after of [1, 2, 3]) {
      const rest = await read(shards, options, straight[after - 1]!.position);
      expect(rest).toEqual(straight.slice(after));
    }
  });

  it('gives the same pictures whether and however many are kept decoded', async () => {
    const shards = await shard(5, transparent);
    const options: BatchOptions = { batchSize: 5, augment: changing };
    const without = await read(shards, options);
    expect(await read(shards, { ...options, cacheBytes: 1e6 })).toEqual(without);
    // Room for one picture and its smaller sizes.
    expect(await read(shards, { ...options, cacheBytes: 8 * 8 * 4 + 4 * 4 * 4 + 2 * 2 * 4 + 10 })).toEqual(without);
  });

  it('does not take the picture of one example for that of another of the same name', async () => {
    const members = [1, 2].flatMap((n): [string, string | Uint8Array][] => [
      ['again.png', picture(n)],
      ['again.txt', `caption ${n}`],
      [`${n}.png`, picture(n)],
      [`${n}.txt`, `caption ${n}`],
    ]);
    const shards = `${temporaryFolder({ 'a.tar': await tar(members) })}/a.tar`;
    const options: BatchOptions = { batchSize: 4, augment: { size: 4 } };
    expect(await read(shards, { ...options, cacheBytes: 1e6 })).toEqual(await read(shards, options));
  });

  it('skips a picture that cannot be read', async () => {
    const shards = await shard(3, (n) => (n === 1 ? Buffer.from('no picture') : transparent(n)));
    const dataset = await openDataset({ shards }, { epochs: 1 });
    const all = await take(batches(dataset, { batchSize: 1, augment: changing }));
    expect(all.length).toBe(2);
    expect(dataset.skipped.count).toBe(1);
  });

  it.each<[BatchOptions, string]>([
    [{ batchSize: 1, textsPerImage: 0 }, 'options.textsPerImage'],
    [{ batchSize: 1, cacheBytes: -1 }, 'options.cacheBytes'],
    [{ batchSize: 1, augment: { size: 8, hue: 200 } }, 'options.augment.hue'],
  ])('options %j: names %s at once', async (options, name) => {
    const dataset = await openDataset({ shards: await shard(1) });
    expect(() => batches(dataset, options)).toThrow(`${name}:`);
  });
});
