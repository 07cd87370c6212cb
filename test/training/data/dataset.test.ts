import { rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  type DatasetOptions,
  type DatasetPosition,
  type DatasetSource,
  openDataset,
} from '../../../lib/training/data/index.js';
import { expectSiglipError } from '../../support/errors.js';
import { temporaryFolder } from '../../support/folders.js';
import { fixtures } from '../../support/golden.js';
import { caption, captionNumber, jsonLinesFolder, picture, take, writeShards } from '../../support/training-data.js';

const pictures: DatasetSource = { folder: path.join(fixtures, 'parquet'), captions: 'pictures.parquet' };

/** One data set of every kind, with numbers of the examples that can be used. Row 31 of the Parquet file names a file. */
const kinds: Record<string, () => Promise<{ source: DatasetSource; numbers: number[] }>> = {
  'JSON Lines': async () => ({
    source: { folder: temporaryFolder(jsonLinesFolder(50)), captions: 'captions.jsonl' },
    numbers: range(50),
  }),
  CSV: async () => {
    const lines = range(50).map((n) => `${n}.png,"caption ${n}"\n`);
    const folder = temporaryFolder({ 'c.csv': `image,text\n${lines.join('')}` });
    return { source: { folder, captions: 'c.csv' }, numbers: range(50) };
  },
  'several files': async () => {
    const lines = range(50).map((n) => `${JSON.stringify({ image: `${n}.png`, text: caption(n) })}\n`);
    const folder = temporaryFolder({ 'a.jsonl': lines.slice(0, 7).join(''), 'b.jsonl': lines.slice(7).join('') });
    return { source: { folder, captions: '{a,b}.jsonl' }, numbers: range(50) };
  },
  'Parquet with pictures': async () => ({ source: pictures, numbers: range(60).filter((n) => n !== 17) }),
  shards: async () => {
    const shards = await writeShards(temporaryFolder(), [13, 1, 20, 9, 7]);
    return { source: { shards }, numbers: range(50) };
  },
  'shards with gzip': async () => {
    const shards = await writeShards(temporaryFolder(), [13, 1, 20, 9, 7], true);
    return { source: { shards }, numbers: range(50) };
  },
};

function range(count: number): number[] {
  return Array.from({ length: count }, (_, n) => n);
}

async function numbersOf(source: DatasetSource, options: DatasetOptions, limit?: number): Promise<number[]> {
  const dataset = await openDataset(source, options);
  return (await take(dataset.examples(), limit)).map(({ text }) => captionNumber(text));
}

const ascending = (numbers: readonly number[]): number[] => [...numbers].sort((a, b) => a - b);

describe.each(Object.entries(kinds))('%s', (_, make) => {
  it('gives every example once an epoch, in an order of its own', async () => {
    const { source, numbers } = await make();
    const all = await numbersOf(source, { epochs: 3, shuffleBuffer: 8 });
    const epochs = range(3).map((e) => all.slice(e * numbers.length, (e + 1) * numbers.length));
    for (const epoch of epochs) expect(ascending(epoch)).toEqual(numbers);
    expect(all.length).toBe(3 * numbers.length);
    expect(epochs[0]).not.toEqual(numbers);
    expect(epochs[0]).not.toEqual(epochs[1]);
    expect(epochs[1]).not.toEqual(epochs[2]);
  });

  it('has an order that the seed alone decides', async () => {
    const { source } = await make();
    const first = await numbersOf(source, { seed: 7, shuffleBuffer: 8 }, 120);
    expect(await numbersOf(source, { seed: 7, shuffleBuffer: 8 }, 120)).toEqual(first);
    expect(await numbersOf(source, { seed: 8, shuffleBuffer: 8 }, 120)).not.toEqual(first);
  });

  it('keeps the stored order without shuffling', async () => {
    const { source, numbers } = await make();
    expect(await numbersOf(source, { shuffle: false, epochs: 2 })).toEqual([...numbers, ...numbers]);
  });

  it.each([1, 8, 1000])(
    'goes on from a position with exactly the next example (buffer of %i)',
    async (shuffleBuffer) => {
      const { source, numbers } = await make();
      const options = { seed: 3, shuffleBuffer, epochs: 3 };
      const all = await numbersOf(source, options);
      const epoch = numbers.length;
      for (const cut of [
        0,
        1,
        2,
        9,
        10,
        epoch - 9,
        epoch - 1,
        epoch,
        epoch + 1,
        2 * epoch - 1,
        2 * epoch,
        3 * epoch - 1,
        3 * epoch,
      ]) {
        const before = await openDataset(source, options);
        expect((await take(before.examples(), cut)).length).toBe(cut);
        const position = JSON.parse(JSON.stringify(before.position())) as DatasetPosition;
        const after = await openDataset(source, { ...options, position });
        const rest = await take(after.examples());
        expect(
          rest.map(({ text }) => captionNumber(text)),
          `after ${cut}`,
        ).toEqual(all.slice(cut));
        // The end counts what was skipped as if there had been no interruption.
        expect(after.skipped.count, `after ${cut}`).toBe(3 * (source === pictures ? 1 : 0));
      }
    },
  );

  it('goes on in the same object after an iteration that was broken off', async () => {
    const { source } = await make();
    const options = { shuffleBuffer: 8, epochs: 2 };
    const all = await numbersOf(source, options);
    const dataset = await openDataset(source, options);
    const seen = [
      ...(await take(dataset.examples(), 5)),
      ...(await take(dataset.examples(), 61)),
      ...(await take(dataset.examples())),
    ];
    expect(seen.map(({ text }) => captionNumber(text))).toEqual(all);
  });
});

it('draws from a shuffle buffer of its size', async () => {
  const shards = await writeShards(temporaryFolder(), [200]);
  const all = await numbersOf({ shards }, { shuffleBuffer: 10, epochs: 2 });
  const order = all.slice(0, 200);
  expect(all.slice(200)).not.toEqual(order);
  // The example in place i was among the first i + 11 that were read.
  order.forEach((number, place) => {
    expect(number).toBeLessThanOrEqual(place + 10);
  });
  expect(order.filter((number, place) => number > place).length).toBeGreaterThan(20);
});

it('reads only the shards again in which something of the shuffle buffer lies', async () => {
  const folder = temporaryFolder();
  const shards = await writeShards(folder, [10, 10, 10, 10, 10, 10, 10, 10]);
  const options = { shuffleBuffer: 2, seed: 1, epochs: 1 };
  const first = await openDataset({ shards }, options);
  const seen = await take(first.examples(), 60);
  const position = first.position();
  const second = await openDataset({ shards }, { ...options, position });
  // The shard whose examples came first: nothing of it can be left after 50 more, but for a chance of 2^-50.
  const firstShard = Math.floor(captionNumber(seen[0]!.text) / 10);
  rmSync(path.join(folder, `train-000${firstShard}.tar`));
  const rest = await take(second.examples());
  const all = [...seen, ...rest].map(({ text }) => captionNumber(text));
  expect(ascending(all)).toEqual(range(80));
});

it('chooses one of several captions anew in every epoch, the same on every run', async () => {
  const lines = range(40).map((n) => JSON.stringify({ image: 'a.png', text: [`a${n}`, ' ', `b${n}`, `c${n}`] }));
  const source = { folder: temporaryFolder({ 'c.jsonl': lines.join('\n') }), captions: 'c.jsonl' };
  const texts = async (): Promise<string[]> =>
    (await take((await openDataset(source, { epochs: 30, seed: 5 })).examples())).map(({ text }) => text);
  const all = await texts();
  expect(await texts()).toEqual(all);
  const counts = ['a', 'b', 'c'].map((letter) => all.filter((text) => text.startsWith(letter)).length);
  // 1200 draws: 400 ± 16 each.
  for (const count of counts) expect(Math.abs(count - 400)).toBeLessThan(80);
  const ofOne = all.filter((text) => text.slice(1) === '7').map((text) => text[0]);
  expect(new Set(ofOne).size).toBe(3);
});

describe('positions', () => {
  const source = async (): Promise<{ shards: string }> => ({ shards: await writeShards(temporaryFolder(), [5, 5]) });
  const positionOf = async (data: DatasetSource, options: DatasetOptions = {}): Promise<DatasetPosition> => {
    const dataset = await openDataset(data, options);
    await take(dataset.examples(), 3);
    return dataset.position();
  };

  it('are valid for the same files elsewhere', async () => {
    const position = await positionOf(await source());
    const rest = (await openDataset(await source(), { position, epochs: 1 })).examples();
    expect((await take(rest)).length).toBe(7);
  });

  it('are refused for other data', async () => {
    const position = await positionOf(await source());
    const shards = await writeShards(temporaryFolder(), [5, 6]);
    await expectSiglipError(
      () => openDataset({ shards }, { position }),
      'ERR_SIGLIP_DATA',
      'options.position',
      'other data',
    );
  });

  it.each([
    ['seed', { seed: 1 }, 'was saved with seed 0', 'opened with 1'],
    ['shuffling', { shuffle: false }, 'shuffle true', 'false'],
    ['shuffle buffer', { shuffleBuffer: 4 }, 'shuffleBuffer 1000', '4'],
  ])('are refused for another %s', async (_, options, before, after) => {
    const data = await source();
    const position = await positionOf(data);
    await expectSiglipError(() => openDataset(data, { ...options, position }), 'ERR_SIGLIP_DATA', before, after);
  });

  it.each<[string, object]>([
    ['version', { version: 2 }],
    ['epoch', { epoch: -1 }],
    ['epoch', { epoch: null }],
    ['drawn', { drawn: 1.5 }],
    ['drawn', { drawn: 11, counts: [5, 5] }],
    ['counts', { counts: [5, 5, 5] }],
    ['counts[1]', { counts: [5, '5'] }],
    ['skipped', { skipped: 'none' }],
    ['batches', { batches: undefined }],
  ])('that are damaged are refused naming %s', async (name, change) => {
    const data = await source();
    const position = { ...(await positionOf(data)), ...change };
    await expectSiglipError(() => openDataset(data, { position }), 'ERR_SIGLIP_DATA', name);
  });

  it('with wrong counts are an error naming the shard, not another order', async () => {
    const data = await source();
    const position = { ...(await positionOf(data, { shuffleBuffer: 2 })), drawn: 6, counts: [7] };
    const dataset = await openDataset(data, { position, shuffleBuffer: 2 });
    await expectSiglipError(() => take(dataset.examples()), 'ERR_SIGLIP_DATA', /train-000[01]\.tar/, 'fewer examples');
  });
});

describe('arguments', () => {
  const files = { 'c.jsonl': '{"image":"a.png","text":"a"}\n', 'c.txt': '', 'a.png': picture(1) };
  it.each<[unknown, unknown, string]>([
    [undefined, {}, 'source'],
    [{ folder: '.' }, {}, 'source'],
    [{ folder: 1, captions: 'c.jsonl' }, {}, 'source.folder'],
    [{ folder: '.', captions: 'c.jsonl', shards: 'a' }, {}, 'source.folder'],
    [{ folder: '.', captions: [] }, {}, 'source.captions'],
    [{ folder: '.', captions: 3 }, {}, 'source.captions'],
    [{ folder: '.', captions: 'c.txt' }, {}, 'source.captions'],
    [{ folder: '.', captions: 'c.jsonl', textKey: '' }, {}, 'source.textKey'],
    [{ shards: 'a.tar', imageKey: 'jpg' }, {}, 'source.imageKey'],
    [{ shards: 'train-{000000000..999999999}.tar' }, {}, 'source.shards'],
    [{ folder: '.', captions: 'c.jsonl' }, { seed: -1 }, 'options.seed'],
    [{ folder: '.', captions: 'c.jsonl' }, { shuffle: 1 }, 'options.shuffle'],
    [{ folder: '.', captions: 'c.jsonl' }, { shuffleBuffer: 0 }, 'options.shuffleBuffer'],
    [{ folder: '.', captions: 'c.jsonl' }, { epochs: 0 }, 'options.epochs'],
    [{ folder: '.', captions: 'c.jsonl' }, { position: 'start' }, 'options.position'],
    [{ folder: '.', captions: 'c.jsonl' }, { shuffel: true }, 'options.shuffel'],
  ])('%j, %j: names %s', async (source, options, name) => {
    const folder = temporaryFolder(files);
    const placed =
      typeof source === 'object' && (source as { folder?: unknown }).folder === '.' ? { ...source, folder } : source;
    const error = await openDataset(placed as DatasetSource, options as DatasetOptions).catch(
      (thrown: unknown) => thrown,
    );
    expect(error instanceof TypeError || error instanceof RangeError).toBe(true);
    expect((error as Error).message).toContain(`${name}:`);
  });
});

it('refuses two iterations at a time', async () => {
  const dataset = await openDataset(pictures);
  const first = dataset.examples();
  await first.next();
  await expectSiglipError(() => dataset.examples().next(), 'ERR_SIGLIP_UNSUPPORTED', 'iterated already');
  await first.return();
  expect((await take(dataset.examples(), 2)).length).toBe(2);
});

it('tells how many examples an epoch has where that is known', async () => {
  expect((await openDataset(pictures)).length).toBe(60);
  expect((await openDataset({ folder: temporaryFolder(jsonLinesFolder(4)), captions: 'captions.jsonl' })).length).toBe(
    4,
  );
  expect((await openDataset({ shards: await writeShards(temporaryFolder(), [3]) })).length).toBe(undefined);
});

it('ends with a coded error when its signal fires', async () => {
  const controller = new AbortController();
  const examples = (await openDataset(pictures)).examples({ signal: controller.signal });
  await examples.next();
  controller.abort(new Error('enough'));
  const error = await expectSiglipError(() => examples.next(), 'ERR_SIGLIP_ABORTED');
  expect((error.cause as Error).message).toBe('enough');
});

it('is not stopped by a captions file that grows', async () => {
  const folder = temporaryFolder(jsonLinesFolder(5));
  const dataset = await openDataset({ folder, captions: 'captions.jsonl' }, { epochs: 1 });
  writeFileSync(path.join(folder, 'captions.jsonl'), '{"image":"9.png","text":"caption 9"}\n', { flag: 'a' });
  expect((await take(dataset.examples())).length).toBe(5);
});
