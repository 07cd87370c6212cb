import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { parseRecord, RecordScanner } from '../../../lib/training/data/csv.js';
import { type DatasetOptions, type Example, openDataset, type Skip } from '../../../lib/training/data/index.js';
import { LineScanner } from '../../../lib/training/data/jsonl.js';
import type { RowScanner } from '../../../lib/training/data/text-table.js';
import { expectSiglipError } from '../../support/errors.js';
import { temporaryFolder } from '../../support/folders.js';
import { fixtures } from '../../support/golden.js';
import { take } from '../../support/training-data.js';

interface Content {
  examples: Example[];
  skips: readonly Skip[];
  folder: string;
}

/** One epoch of a captions file in its order. */
async function read(
  name: string,
  content: string | Uint8Array,
  keys: { imageKey?: string; textKey?: string } = {},
  options: DatasetOptions = {},
): Promise<Content> {
  const folder = temporaryFolder({ [name]: content });
  const dataset = await openDataset({ folder, captions: name, ...keys }, { shuffle: false, epochs: 1, ...options });
  const examples = await take(dataset.examples());
  return { examples, skips: dataset.skipped.first, folder };
}

const texts = ({ examples }: Content): string[] => examples.map(({ text }) => text);

function rowsOf(scanner: RowScanner, text: string, pieceLength: number): [number, number][] {
  const bytes = Buffer.from(text);
  const rows: [number, number][] = [];
  for (let start = 0; start < bytes.length; start += pieceLength)
    scanner.scan(bytes.subarray(start, start + pieceLength), start, (at, line) => rows.push([at, line]));
  return rows;
}

describe('JSON Lines', () => {
  it('finds lines wherever the pieces of the file are cut', () => {
    const text = '{"a":1}\n\n\r\n{"b":"ä\\n"}\r\n\n{}';
    const expected = [
      [0, 1],
      [11, 4],
      [Buffer.byteLength(text) - 2, 6],
    ];
    for (let length = 1; length <= 30; length++) expect(rowsOf(new LineScanner(), text, length)).toEqual(expected);
  });

  it('takes image or file_name, text or caption, and a byte order mark', async () => {
    const content = await read(
      'c.jsonl',
      '\ufeff{"image":"a/ü.png","text":"ä"}\r\n{"file_name":"b.png","caption":"b","text":null}\n{"text":"c","caption":"d","image":"c.png","file_name":"e.png"}',
    );
    expect(texts(content)).toEqual(['ä', 'b', 'c']);
    expect(content.examples[0]).toEqual({
      key: 'a/ü.png',
      image: path.join(content.folder, 'a', 'ü.png'),
      text: 'ä',
      texts: ['ä'],
      source: `${path.join(content.folder, 'c.jsonl')} line 1`,
    });
    expect(content.examples.map(({ key }) => key)).toEqual(['a/ü.png', 'b.png', 'c.png']);
  });

  it('takes only the chosen keys', async () => {
    const line = '{"image":"a.png","picture":"b.png","text":"a","alt":"b"}\n{"image":"a.png","text":"a"}';
    const content = await read('c.jsonl', line, { imageKey: 'picture', textKey: 'alt' });
    expect(content.examples.map(({ key, text }) => [key, text])).toEqual([['b.png', 'b']]);
    expect(content.skips[0]!.reason).toBe('there is no picture "picture"');
  });

  it('skips what is broken, with line and reason', async () => {
    const broken: [string | Uint8Array, string][] = [
      ['{"image":"a.png","text":"a"', 'not valid JSON'],
      ['["a.png","a"]', 'not a JSON object'],
      ['{"text":"a"}', 'no picture "image" or "file_name"'],
      ['{"image":7,"text":"a"}', 'the picture must be the path of a file, not 7'],
      ['{"image":"../a.png","text":"a"}', 'lies outside of'],
      ['{"image":"/etc/passwd","text":"a"}', 'lies outside of'],
      ['{"image":"a.png"}', 'no caption "text" or "caption"'],
      ['{"image":"a.png","text":"  "}', 'the caption is empty'],
      ['{"image":"a.png","text":[]}', 'the caption is empty'],
      ['{"image":"a.png","text":["a",1]}', 'a text or a list of texts, not 1'],
      ['{"image":"a.png","text":"\\ud83d"}', 'half of a surrogate pair'],
      [Buffer.from('{"image":"a.png","text":"caf\xe9"}', 'latin1'), 'not valid UTF-8'],
      ['{"__proto__":{"image":"a.png"},"text":"a"}', 'no picture'],
    ];
    const good = '{"image":"a.png","text":"good \\ud83d\\ude00"}';
    const lines = [...broken.map(([line]) => line), good].flatMap((line) => [
      Buffer.from(line as string),
      Buffer.from('\n'),
    ]);
    const folder = temporaryFolder({ 'c.jsonl': Buffer.concat(lines) });
    const dataset = await openDataset({ folder, captions: 'c.jsonl' }, { shuffle: false, epochs: 2 });
    expect((await take(dataset.examples())).map(({ text }) => text)).toEqual(['good 😀', 'good 😀']);
    const { count, first } = dataset.skipped;
    expect(count).toBe(2 * broken.length);
    expect(first.length).toBe(10);
    first.forEach(({ source, reason }, i) => {
      expect(source).toBe(`${path.join(folder, 'c.jsonl')} line ${i + 1}`);
      expect(reason).toContain(broken[i]![1]);
    });
    // Those beyond the ten that are kept.
    for (const [line, reason] of broken) {
      const { skips } = await read('c.jsonl', Buffer.concat([Buffer.from(line as string), Buffer.from(`\n${good}`)]));
      expect(skips[0]!.reason).toContain(reason);
    }
  });

  it('is an error, with the first reason, when nothing can be used', async () => {
    const error = await expectSiglipError(
      () => read('c.jsonl', '{"img":"a.png","text":"a"}\n{"img":"b.png","text":"b"}\n', {}, { epochs: undefined }),
      'ERR_SIGLIP_DATA',
      'c.jsonl line 1: there is no picture "image"',
      'none of the examples of an epoch can be used',
    );
    expect(error.details).toMatchObject({ skipped: 2 });
  });

  it('is an error after ten thousand broken rows on end, long before the end of the file', async () => {
    const bad = '{"img":1}\n'.repeat(10_000);
    await expectSiglipError(
      () => read('c.jsonl', `${bad}{"image":"a.png","text":"a"}\n`),
      'ERR_SIGLIP_DATA',
      '10000 examples on end',
    );
    const content = await read('c.jsonl', `${bad.slice(10)}{"image":"a.png","text":"a"}\n`);
    expect(content.examples.length).toBe(1);
  });

  it.each([
    ['missing', {}, 'c.jsonl: cannot be read', 'ENOENT'],
    ['a folder', { 'c.jsonl/a': '' }, 'c.jsonl: cannot be read', 'not a file'],
    ['empty', { 'c.jsonl': '' }, 'c.jsonl: holds no examples', ''],
    ['only empty lines', { 'c.jsonl': '\n\r\n\n' }, 'c.jsonl: holds no examples', ''],
  ])('a file that is %s is an error naming it', async (_, files, place, reason) => {
    const folder = temporaryFolder(files);
    await expectSiglipError(() => openDataset({ folder, captions: 'c.jsonl' }), 'ERR_SIGLIP_DATA', place, reason);
  });
});

describe('CSV', () => {
  it('finds records wherever the pieces of the file are cut', () => {
    const text = 'a,b\r\n\r\n"x\n""y""\r\n",1\n,\n"",""\nit"s,"2"';
    for (let length = 1; length <= text.length; length++)
      expect(rowsOf(new RecordScanner(), text, length)).toEqual([
        [0, 1],
        [7, 3],
        [21, 6],
        [23, 7],
        [29, 8],
      ]);
  });

  it.each<[string, string[]]>([
    ['a,b', ['a', 'b']],
    ['a,b\r\n', ['a', 'b']],
    ['a,\n\n', ['a', '']],
    [',', ['', '']],
    ['', ['']],
    ['"a"', ['a']],
    ['"a,""b""\r\nc",d\r', ['a,"b"\r\nc', 'd']],
    ['"",""""\n', ['', '"']],
    ['it"s, b ,\t', ['it"s', ' b ', '\t']],
  ])('reads the record %j', (text, fields) => {
    expect(parseRecord(text)).toEqual(fields);
  });

  it.each([
    ['"a', 'the quotes of field 1 are not closed'],
    ['a,"b""', 'the quotes of field 2 are not closed'],
    ['"a"b,c', 'field 1 goes on after its closing quotes'],
  ])('says what is wrong with the record %j', (text, reason) => {
    expect(parseRecord(text)).toBe(reason);
  });

  it('reads captions with commas, quotes and line breaks', async () => {
    const content = await read('c.csv', '\ufeffid,caption,file_name\r\n1,"a, ""b""\nc",a.png\r\n\r\n2,plain,b.png\r\n');
    expect(content.examples.map(({ key, text }) => [key, text])).toEqual([
      ['a.png', 'a, "b"\nc'],
      ['b.png', 'plain'],
    ]);
    expect(content.examples[1]!.source).toMatch(/c\.csv line 5$/);
  });

  it('skips what is broken, with line and reason', async () => {
    const rows: [string, string][] = [
      ['a.png', 'the row has 1 fields and the header 2'],
      ['a.png,b,c', 'the row has 3 fields and the header 2'],
      ['"a.png"x,b', 'goes on after its closing quotes'],
      [',b', 'there is no picture'],
      ['a.png,', 'there is no caption'],
      ['a.png," "', 'the caption is empty'],
      ['a.png,caf\xe9', 'not valid UTF-8'],
      ['a.png,"open', 'not closed'],
    ];
    const content = await read(
      'c.csv',
      Buffer.from(`image,text\na.png,good\n${rows.map(([row]) => row).join('\n')}`, 'latin1'),
    );
    expect(texts(content)).toEqual(['good']);
    expect(content.skips.length).toBe(rows.length);
    content.skips.forEach(({ source, reason }, i) => {
      expect(source).toBe(`${path.join(content.folder, 'c.csv')} line ${i + 3}`);
      expect(reason).toContain(rows[i]![1]);
    });
  });

  it.each([
    ['', 'is empty'],
    ['image,text\n', 'holds no examples'],
    ['a,b\n1,2\n', 'there is no column "image" or "file_name"; the columns are a, b'],
    ['image,b\n1,2\n', 'there is no column "text" or "caption"'],
    ['"image,text\n', 'the header cannot be read'],
  ])('a file %j is an error', async (content, part) => {
    await expectSiglipError(() => read('c.csv', content), 'ERR_SIGLIP_DATA', 'c.csv', part);
  });
});

describe('Parquet', () => {
  const folder = path.join(fixtures, 'parquet');
  const open = (captions: string, keys: { imageKey?: string; textKey?: string } = {}) =>
    openDataset({ folder, captions, ...keys }, { shuffle: false, epochs: 1 });

  it.each(['none', 'snappy', 'gzip', 'brotli', 'zstd', 'lz4'])(
    'reads paths and lists of captions: %s',
    async (codec) => {
      const dataset = await open(`paths-${codec}.parquet`);
      const examples = await take(dataset.examples());
      expect(examples.map(({ key }) => key)).toEqual(
        Array.from({ length: 20 }, (_, row) => `${row % 7}.png`).filter((_, row) => row !== 3),
      );
      examples.forEach(({ text, source, image, key }) => {
        const row = Number(/ row (\d+)$/.exec(source)![1]);
        expect([`first ${row}`, `second ${row}`]).toContain(text);
        expect(image).toBe(path.join(folder, key));
      });
      expect(dataset.skipped.first).toEqual([
        { source: `${path.join(folder, `paths-${codec}.parquet`)} row 3`, reason: 'the caption is empty' },
      ]);
    },
  );

  it.each(['plain', 'raw'])('skips text that is not UTF-8, with its row: column %s', async (textKey) => {
    const dataset = await open('paths-snappy.parquet', { textKey });
    const examples = await take(dataset.examples());
    expect(examples.map(({ text }) => text)).toEqual(
      Array.from({ length: 20 }, (_, row) => `plain ${row}`).filter((_, row) => row !== 5),
    );
    expect(dataset.skipped.first[0]).toMatchObject({
      source: expect.stringMatching(/ row 5$/),
      reason: 'the caption is not valid UTF-8',
    });
  });

  it('reads pictures out of the file, or from the folder where a row has only a path', async () => {
    const dataset = await open('pictures.parquet');
    const examples = await take(dataset.examples());
    expect(examples.length).toBe(59);
    for (const { key, image, text } of examples) {
      const row = Number(text.slice('caption '.length));
      expect(key).toBe(row === 31 ? 'elsewhere.png' : `${row}.png`);
      if (row === 31) expect(image).toBe(path.join(folder, 'elsewhere.png'));
      else if (row === 23) expect(Buffer.from(image as Uint8Array).toString()).toBe('not a picture');
      else
        expect(
          Buffer.from(image as Uint8Array)
            .subarray(1, 4)
            .toString(),
        ).toBe('PNG');
    }
    expect(dataset.skipped.first).toEqual([
      { source: expect.stringMatching(/pictures\.parquet row 17$/), reason: 'there is no caption "caption"' },
    ]);
  });

  it('keeps no more of the file in memory than the pictures that it gives out', async () => {
    const [example] = await take((await open('pictures.parquet')).examples(), 1);
    const image = example!.image as Uint8Array;
    expect(image.buffer.byteLength).toBe(image.byteLength);
  });

  it.each([
    [{ imageKey: 'width' }, 'the column "width" holds no pictures'],
    [{ imageKey: 'picture' }, 'there is no column "picture"; the columns are image, caption, width'],
    [{ textKey: 'text' }, 'there is no column "text"'],
  ])('columns %j are an error', async (keys, part) => {
    await expectSiglipError(() => open('pictures.parquet', keys), 'ERR_SIGLIP_DATA', 'pictures.parquet', part);
  });

  it('a mixture of files with and without pictures is refused', async () => {
    await expectSiglipError(
      () => openDataset({ folder, captions: ['pictures.parquet', 'paths-none.parquet'] }, {}),
      'ERR_SIGLIP_UNSUPPORTED',
      'two data sets',
    );
  });
});
