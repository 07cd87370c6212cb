import path from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  type Batch,
  type BatchOptions,
  batches,
  type DatasetOptions,
  type DatasetSource,
  openDataset,
} from '../../../lib/training/data/index.js';
import { expectSiglipError } from '../../support/errors.js';
import { temporaryFolder } from '../../support/folders.js';
import { fixtures } from '../../support/golden.js';
import {
  captionNumber,
  jsonLinesFolder,
  type Member,
  members,
  numberOf,
  picture,
  take,
  tar,
  writeShards,
} from '../../support/training-data.js';

const pictures: DatasetSource = { folder: path.join(fixtures, 'parquet'), captions: 'pictures.parquet' };
const folderOf = (count: number): DatasetSource => ({
  folder: temporaryFolder(jsonLinesFolder(count)),
  captions: 'captions.jsonl',
});

async function read(
  source: DatasetSource,
  options: DatasetOptions,
  batch: BatchOptions,
  limit?: number,
): Promise<Batch[]> {
  return take(batches(await openDataset(source, options), batch), limit);
}

/** The numbers of a batch, which pictures and captions agree on. */
function numbers({ images, texts, keys }: Batch): number[] {
  expect(texts.map(captionNumber)).toEqual(images.map(numberOf));
  expect(keys.length).toBe(texts.length);
  return images.map(numberOf);
}

describe('batches', () => {
  it.each([1, 3, 16])(
    'have pictures and captions in the order of the data set, decoding %i at a time',
    async (decodeConcurrency) => {
      const source = folderOf(30);
      const examples = await take((await openDataset(source, { epochs: 2, seed: 4 })).examples());
      const all = await read(source, { epochs: 2, seed: 4 }, { batchSize: 7, decodeConcurrency });
      expect(all.map(({ images }) => images.length)).toEqual([7, 7, 7, 7, 7, 7, 7, 7, 4]);
      expect(all.flatMap(numbers)).toEqual(examples.map(({ text }) => captionNumber(text)));
      expect(all.flatMap(({ keys }) => keys)).toEqual(examples.map(({ key }) => key));
      expect(all[0]!.maxPatches).toBe(undefined);
    },
  );

  it.each<[string, () => Promise<DatasetSource>]>([
    ['a folder', async () => folderOf(23)],
    ['Parquet', async () => pictures],
    ['shards', async () => ({ shards: await writeShards(temporaryFolder(), [9, 4, 10]) })],
  ])('go on exactly after the last one that was delivered: %s', async (_, make) => {
    const source = await make();
    const options = { epochs: 2, seed: 6, shuffleBuffer: 6 };
    const batch = {
      batchSize: source === pictures ? 17 : 5,
      prefetch: 3,
      naflex: { sequenceLengths: [1, 2, 3, 4, 5] },
    };
    const all = await read(source, options, batch);
    const last = all[all.length - 1]!.position;
    for (let cut = 0; cut <= all.length; cut++) {
      const before = await openDataset(source, options);
      const seen = await take(batches(before, batch), cut);
      expect(seen.map(({ texts }) => texts)).toEqual(all.slice(0, cut).map(({ texts }) => texts));
      if (cut > 0) expect(seen[cut - 1]!.position).toEqual(before.position());
      const position = JSON.parse(JSON.stringify(before.position()));
      // Both in a new object and in the same one, whose prefetched batches are dropped.
      for (const dataset of [await openDataset(source, { ...options, position }), before]) {
        const rest = await take(batches(dataset, batch));
        expect(rest.map(({ texts }) => texts)).toEqual(all.slice(cut).map(({ texts }) => texts));
        expect(rest.map(({ maxPatches }) => maxPatches)).toEqual(all.slice(cut).map(({ maxPatches }) => maxPatches));
        if (rest.length > 0) expect(rest[rest.length - 1]!.position).toEqual(last);
      }
    }
  });

  it('run across epochs without end', async () => {
    const all = await read(folderOf(5), {}, { batchSize: 3 }, 20);
    const flat = all.flatMap(numbers);
    expect(flat.length).toBe(60);
    for (let epoch = 0; epoch < 12; epoch++)
      expect(flat.slice(5 * epoch, 5 * epoch + 5).sort()).toEqual([0, 1, 2, 3, 4]);
  });

  it('may be larger than the data set', async () => {
    const [batch] = await read(folderOf(3), {}, { batchSize: 8 }, 1);
    expect(numbers(batch!).length).toBe(8);
  });

  it('replace what cannot be decoded by what comes next, and count it', async () => {
    const files = jsonLinesFolder(20);
    files['3.png'] = 'no picture';
    files['7.png'] = picture(7).subarray(0, 50);
    files['11.png'] = '';
    files['12.png'] = picture(12, 50);
    delete files['15.png'];
    const folder = temporaryFolder(files);
    const source = { folder, captions: 'captions.jsonl' };
    const dataset = await openDataset(source, { shuffle: false, epochs: 2 });
    const counts: number[] = [];
    const seen: number[] = [];
    for await (const batch of batches(dataset, { batchSize: 5, maxPixels: 49, prefetch: 4 })) {
      counts.push(dataset.skipped.count);
      expect(batch.position.skipped).toBe(dataset.skipped.count);
      seen.push(...numbers(batch));
    }
    const usable = [0, 1, 2, 4, 5, 6, 8, 9, 10, 13, 14, 16, 17, 18, 19];
    expect(seen).toEqual([...usable, ...usable]);
    expect(counts).toEqual([1, 4, 5, 6, 9, 10]);
    expect(dataset.skipped.count).toBe(10);
    const reasons = dataset.skipped.first.slice(0, 5);
    expect(reasons.map(({ source }) => Number(/ line (\d+)$/.exec(source)![1]))).toEqual([4, 8, 12, 13, 16]);
    [/cannot be decoded/, /cannot be decoded/, /0 bytes/, /limit of 49/, /15\.png.*ENOENT/].forEach((expression, i) => {
      expect(reasons[i]!.reason).toMatch(expression);
    });
  });

  it('are an error when no picture can be decoded, instead of an endless search', async () => {
    const bad: Member[] = [
      ['x.png', 'no'],
      ['x.txt', 'a'],
      ['y.png', 'no'],
      ['y.txt', 'b'],
    ];
    const folder = temporaryFolder({ 'a.tar': await tar(bad), 'b.tar': await tar([...bad, ...members(0, 1)]) });
    const error = await expectSiglipError(
      () => read({ shards: `${folder}/a.tar` }, {}, { batchSize: 2 }),
      'ERR_SIGLIP_DATA',
      /a\.tar [xy]: image: cannot be decoded/,
    );
    expect(error.details).toMatchObject({ skipped: 2 });
    expect((await read({ shards: `${folder}/b.tar` }, { epochs: 2 }, { batchSize: 9 })).map(numbers)).toEqual([[0, 0]]);
  });

  it('of one epoch with nothing usable left after a resume end quietly', async () => {
    const files = jsonLinesFolder(4);
    files['3.png'] = 'no picture';
    const source = { folder: temporaryFolder(files), captions: 'captions.jsonl' };
    const options = { shuffle: false, epochs: 1 };
    const [, second] = await read(source, options, { batchSize: 2 }).then((all) => [all, all[1]!] as const);
    expect(numbers(second)).toEqual([2]);
    const dataset = await openDataset(source, {
      ...options,
      position: { ...second.position, drawn: 3, epoch: 0, skipped: 0 },
    });
    expect(await take(batches(dataset, { batchSize: 2 }))).toEqual([]);
    expect(dataset.skipped.count).toBe(1);
  });
});

describe('NaFlex batches', () => {
  it('draw a sequence length for each batch, all equally likely and the same on every run', async () => {
    const options = { batchSize: 1, naflex: {} };
    const lengths = (await read(folderOf(1), { seed: 9 }, options, 1000)).map(({ maxPatches }) => maxPatches!);
    for (const length of [128, 256, 576, 784, 1024]) {
      const count = lengths.filter((drawn) => drawn === length).length;
      // 200 ± 13.
      expect(Math.abs(count - 200)).toBeLessThan(60);
    }
    // No length tells the next one: 25 pairs, 40 ± 6 each.
    for (const a of [128, 1024])
      for (const b of [128, 1024]) {
        const pairs = lengths.filter((length, i) => length === a && lengths[i + 1] === b).length;
        expect(Math.abs(pairs - 40)).toBeLessThan(32);
      }
    expect((await read(folderOf(1), { seed: 9 }, options, 50)).map(({ maxPatches }) => maxPatches)).toEqual(
      lengths.slice(0, 50),
    );
    expect((await read(folderOf(1), { seed: 8 }, options, 50)).map(({ maxPatches }) => maxPatches)).not.toEqual(
      lengths.slice(0, 50),
    );
  });

  it('have as many pictures as the token budget allows', async () => {
    const all = await read(folderOf(10), {}, { naflex: { tokenBudget: 2048 } }, 40);
    const sizes = new Map(all.map(({ maxPatches, images }) => [maxPatches, images.length]));
    expect(Object.fromEntries(sizes)).toEqual({ 128: 16, 256: 8, 576: 3, 784: 2, 1024: 2 });
  });
});

describe('abort', () => {
  it('ends the iteration with a coded error, and the data set can be iterated again', async () => {
    const dataset = await openDataset(folderOf(30), { seed: 1 });
    const controller = new AbortController();
    const iterator = batches(dataset, { batchSize: 4, prefetch: 5, signal: controller.signal });
    const { value: first } = await iterator.next();
    const waiting = iterator.next().then(() => iterator.next());
    controller.abort(new Error('enough'));
    const error = await expectSiglipError(() => waiting, 'ERR_SIGLIP_ABORTED');
    expect((error.cause as Error).message).toBe('enough');
    expect((await iterator.next()).done).toBe(true);
    const [next] = await take(batches(dataset, { batchSize: 4 }), 1);
    const straight = await take(batches(await openDataset(folderOf(30), { seed: 1 }), { batchSize: 4 }), 3);
    expect(straight[0]!.texts).toEqual((first as Batch).texts);
    expect(straight.map(({ texts }) => texts)).toContainEqual(next!.texts);
  });

  it('does not deliver what is ready', async () => {
    const controller = new AbortController();
    const dataset = await openDataset(folderOf(4), { epochs: 1 });
    const iterator = batches(dataset, { batchSize: 1, prefetch: 4, signal: controller.signal });
    await iterator.next();
    // Enough for three pictures of one pixel; were it not, the test would only be weaker.
    await new Promise((resolve) => setTimeout(resolve, 200));
    controller.abort();
    await expectSiglipError(() => iterator.next(), 'ERR_SIGLIP_ABORTED');
    expect(dataset.position()).toMatchObject({ epoch: 0, drawn: 1, batches: 1 });
  });

  it('before the start reads nothing', async () => {
    const dataset = await openDataset(folderOf(2));
    const signal = AbortSignal.abort();
    await expectSiglipError(() => batches(dataset, { batchSize: 1, signal }).next(), 'ERR_SIGLIP_ABORTED');
  });
});

it('reports a shard that cannot be read in its turn, after the batches before it', async () => {
  const folder = temporaryFolder({ 'a.tar': await tar(members(0, 6)), 'b.tar': 'not an archive' });
  const dataset = await openDataset({ shards: `${folder}/*.tar` }, { shuffle: false });
  const iterator = batches(dataset, { batchSize: 2, prefetch: 8 });
  for (let i = 0; i < 2; i++) expect(((await iterator.next()).value as Batch).images.length).toBe(2);
  await expectSiglipError(() => iterator.next(), 'ERR_SIGLIP_DATA', /b\.tar: is not a tar archive/);
});

it.each<[unknown, string]>([
  [undefined, 'options.batchSize'],
  [{ batchSize: 0 }, 'options.batchSize'],
  [{ batchSize: 4, naflex: { tokenBudget: 4096 } }, 'options.batchSize'],
  [{ naflex: { tokenBudget: 1000 } }, 'options.naflex.tokenBudget'],
  [{ batchSize: 4, naflex: { sequenceLengths: [] } }, 'options.naflex.sequenceLengths'],
  [{ batchSize: 4, naflex: { sequenceLengths: 256 } }, 'options.naflex.sequenceLengths'],
  [{ batchSize: 4, naflex: { sequenceLengths: [256, 0.5] } }, 'options.naflex.sequenceLengths[1]'],
  [{ batchSize: 4, naflex: { lengths: [256] } }, 'options.naflex.lengths'],
  [{ batchSize: 4, prefetch: -1 }, 'options.prefetch'],
  [{ batchSize: 4, decodeConcurrency: 0 }, 'options.decodeConcurrency'],
  [{ batchSize: 4, maxPixels: '1' }, 'options.maxPixels'],
  [{ batchSize: 4, signal: 1 }, 'options.signal'],
  [{ batchSize: 4, workers: 3 }, 'options.workers'],
])('options %j: names %s at once', async (options, name) => {
  const dataset = await openDataset(pictures);
  expect(() => batches(dataset, options as BatchOptions)).toThrow(`${name}:`);
  expect(() => batches({} as never, { batchSize: 1 })).toThrow('dataset:');
});
