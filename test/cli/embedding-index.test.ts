/** Reading files of embeddings: block by block, and never past damage. */
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { isIndexName, openIndex, requireOrigin } from '../../lib/cli/embedding-index.js';
import { checkOutput, npyHeader, writeEmbeddings } from '../../lib/cli/npy.js';
import { expectSiglipError } from '../support/errors.js';
import { temporaryFolder } from '../support/folders.js';
import { Random, runSeed } from '../support/random.js';

const origin = { model: 'a/model', fingerprint: 'f00d', kind: 'images' } as const;

/** Writes an index of made-up embeddings. */
async function makeIndex(name: string, rows: number, dim: number) {
  const file = path.join(temporaryFolder(), name);
  const random = new Random(runSeed);
  const items = Array.from({ length: rows }, (_, row) => ({
    item: { path: `photos/${row} "ü".png` },
    embedding: random.floats(dim),
  }));
  await writeEmbeddings(await checkOutput(file), { dim, origin }, async (add) => {
    for (let start = 0; start < rows; start += 300) await add(items.slice(start, start + 300));
  });
  return { file, items };
}

async function readAll(file: string, dim: number) {
  const index = await openIndex(file);
  const found: { path: string; embedding: Float32Array }[] = [];
  for await (const { paths, embeddings } of index.blocks(dim)) {
    expect(embeddings.shape).toEqual([paths.length, dim]);
    expect(paths.length).toBeGreaterThan(0);
    paths.forEach((name, row) => {
      found.push({ path: name, embedding: embeddings.row(row) });
    });
  }
  return { index, found };
}

it.each([
  ['a.npy', 1],
  ['a.npy', 1024],
  ['a.npy', 2500],
  ['a.jsonl', 1],
  ['a.jsonl', 1024],
  ['a.jsonl', 2500],
])('%s of %d rows comes back as it was written', async (name, rows) => {
  const dim = new Random(runSeed).integer(1, 20);
  const { file, items } = await makeIndex(name, rows, dim);
  const { index, found } = await readAll(file, dim);
  expect(index.origin).toEqual(origin);
  expect(index.rows).toBe(name === 'a.npy' ? rows : undefined);
  expect(found).toEqual(items.map(({ item, embedding }) => ({ path: item.path, embedding })));
});

it('reads headers of every version that numpy writes', async () => {
  const { file, items } = await makeIndex('a.npy', 3, 2);
  const values = readFileSync(file).subarray(128);
  for (const version of [1, 2, 3]) {
    const text = "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2)}\n";
    const start = Buffer.alloc(version === 1 ? 10 : 12);
    start.write('\u0093NUMPY', 'latin1');
    start[6] = version;
    if (version === 1) start.writeUInt16LE(text.length, 8);
    else start.writeUInt32LE(text.length, 8);
    writeFileSync(file, Buffer.concat([start, Buffer.from(text), values]));
    expect((await readAll(file, 2)).found.map((entry) => entry.embedding)).toEqual(items.map((item) => item.embedding));
  }
});

it('is recognised by its name', () => {
  expect(['a.npy', 'x/b.jsonl'].map(isIndexName)).toEqual([true, true]);
  expect(['a.png', 'npy', 'https://example.org/a.npy', 'a.npy/'].map(isIndexName)).toEqual([
    false,
    false,
    false,
    false,
  ]);
});

describe('damage', () => {
  const line = (row: number) => `${JSON.stringify({ row, path: 'a.png' })}\n`;
  const float64 = () => Buffer.from(npyHeader(3, 2).toString('latin1').replace('<f4', '<f8'), 'latin1');
  const rows = (...values: number[]) => Buffer.concat([npyHeader(3, 2), Buffer.from(Float32Array.from(values).buffer)]);
  const good = rows(1, 2, 3, 4, 5, 6);

  it.each<[string, Record<string, string | Uint8Array>, string]>([
    ['another file', { 'a.npy': 'no matrix' }, 'is no .npy file'],
    ['an empty file', { 'a.npy': '' }, 'is no .npy file'],
    ['a file cut off', { 'a.npy': good.subarray(0, -1) }, 'has 151 bytes and should have 152'],
    ['a file cut off in its header', { 'a.npy': good.subarray(0, 30) }, 'is no float32 matrix'],
    ['a file with more behind', { 'a.npy': Buffer.concat([good, Buffer.alloc(4)]) }, 'has 156 bytes'],
    ['another type', { 'a.npy': float64() }, 'is no float32 matrix in row-major order'],
    ['another width', { 'a.npy': npyHeader(0, 7), 'a.items.jsonl': '' }, 'has embeddings of 7 numbers'],
    ['no items', { 'a.npy': good }, 'needs a.items.jsonl beside it'],
    ['few items', { 'a.npy': good, 'a.items.jsonl': line(0) + line(1) }, 'ends before row 2'],
    [
      'many items',
      { 'a.npy': good, 'a.items.jsonl': [0, 1, 2, 3].map(line).join('') },
      'has more lines than the 3 rows',
    ],
    [
      'items out of order',
      { 'a.npy': good, 'a.items.jsonl': line(0) + line(2) + line(1) },
      'line 2: row 1 is expected',
    ],
    ['an item that is no JSON', { 'a.npy': good, 'a.items.jsonl': `${line(0)}{"row": 1,\n` }, 'line 2: a JSON object'],
    ['an item without a path', { 'a.npy': good, 'a.items.jsonl': '{"row":0}\n' }, 'line 1: path is expected'],
    ['texts', { 'a.npy': good, 'a.items.jsonl': '{"row":0,"text":"a"}\n' }, 'a.npy holds embeddings of texts'],
    ['NaN', { 'a.npy': rows(1, 2, 3, Number.NaN, 5, 6), 'a.items.jsonl': [0, 1, 2].map(line).join('') }, 'in row 1'],
    ['an origin that is none', { 'a.npy': good, 'a.npy.origin.json': '{"model":1}' }, 'a.npy.origin.json is damaged'],
    ['an origin that is no JSON', { 'a.npy': good, 'a.npy.origin.json': '{' }, 'is not valid JSON'],
    ['a line that is no JSON', { 'a.jsonl': '{"path":"a","embedding":[1,2]}\n\n' }, 'line 2: a JSON object'],
    ['a line without numbers', { 'a.jsonl': '{"path":"a","embedding":[1,"2"]}\n' }, 'line 1: embedding'],
    ['a line of another width', { 'a.jsonl': '{"path":"a","embedding":[1]}\n' }, 'has embeddings of 1 numbers'],
    ['a line of a text', { 'a.jsonl': '{"text":"a","embedding":[1,2]}\n' }, 'a.jsonl holds embeddings of texts'],
    ['a line too large for float32', { 'a.jsonl': '{"path":"a","embedding":[1,1e300]}\n' }, 'in row 0'],
  ])('%s is named', async (_, files, message) => {
    const folder = temporaryFolder(files);
    const file = path.join(folder, Object.keys(files)[0] as string);
    const error = await expectSiglipError(() => readAll(file, 2), 'ERR_SIGLIP_DATA', message);
    expect(JSON.stringify(error.details)).toContain(folder);
  });

  it('and an intact index beside it', async () => {
    const folder = temporaryFolder({ 'a.npy': good, 'a.items.jsonl': [0, 1, 2].map(line).join('') });
    expect((await readAll(path.join(folder, 'a.npy'), 2)).found).toHaveLength(3);
  });
});

it('belongs to one model', async () => {
  const { file } = await makeIndex('a.npy', 1, 2);
  const index = await openIndex(file);
  requireOrigin(index, 'another/name', 'f00d');
  requireOrigin({ ...index, origin: undefined }, 'b/model', 'beef');
  await expectSiglipError(() => requireOrigin(index, 'b/model', 'beef'), 'ERR_SIGLIP_DATA', '(a/model)', '(b/model)');
  await expectSiglipError(() => requireOrigin(index, 'a/model', 'beef'), 'ERR_SIGLIP_DATA', 'another state of a/model');
});
