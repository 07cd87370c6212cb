import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { expandBraces, findFiles } from '../../../lib/training/data/files.js';
import { type Example, openDataset, type SkippedExamples } from '../../../lib/training/data/index.js';
import { expectSiglipError } from '../../support/errors.js';
import { temporaryFolder } from '../../support/folders.js';
import { caption, captionNumber, type Member, members, picture, take, tar } from '../../support/training-data.js';

interface Content {
  examples: Example[];
  skipped: SkippedExamples;
  file: string;
}

/** One epoch of a shard in its order. */
async function readShard(bytes: Uint8Array, textKey?: string): Promise<Content> {
  const file = path.join(temporaryFolder({ 'a.tar': bytes }), 'a.tar');
  const dataset = await openDataset({ shards: file, ...(textKey ? { textKey } : {}) }, { shuffle: false, epochs: 1 });
  const examples = await take(dataset.examples());
  return { examples, skipped: dataset.skipped, file };
}

const numbers = (examples: readonly Example[]): number[] => examples.map(({ text }) => captionNumber(text));
const range = (count: number): number[] => Array.from({ length: count }, (_, n) => n);

describe('members of a shard', () => {
  it('make up examples by the name before the first dot', async () => {
    const { examples, file } = await readShard(
      await tar([
        ['a.b/x.jpg', picture(1)],
        ['a.b/x.seg.png', picture(9)],
        ['a.b/x.cls', '7'],
        ['a.b/x.txt', 'the caption\r\n'],
        ['a.b/x.json', '{"text":"not this one"}'],
        ['y.JSON', '{"caption":["only one",""]}'],
        ['y.WebP', picture(2)],
      ]),
    );
    expect(examples).toEqual([
      { key: 'a.b/x', image: picture(1), text: 'the caption', texts: ['the caption'], source: `${file} a.b/x` },
      { key: 'y', image: picture(2), text: 'only one', texts: ['only one'], source: `${file} y` },
    ]);
  });

  it('may begin with a byte order mark', async () => {
    const { examples, skipped } = await readShard(
      await tar([
        ['x.png', picture(1)],
        ['x.txt', '\uFEFFa caption'],
        ['y.png', picture(2)],
        ['y.json', '\uFEFF{"text":"another"}'],
      ]),
    );
    expect(skipped.count).toBe(0);
    expect(examples.map(({ text }) => text)).toEqual(['a caption', 'another']);
  });

  it('of a name that comes again are an example of its own', async () => {
    const { examples, file } = await readShard(
      await tar([
        ['x.png', picture(1)],
        ['x.txt', caption(1)],
        ['y.png', picture(2)],
        ['y.txt', caption(2)],
        ['x.png', picture(3)],
        ['x.txt', caption(3)],
      ]),
    );
    expect(numbers(examples)).toEqual([1, 2, 3]);
    expect(examples.map(({ source }) => source)).toEqual([`${file} x`, `${file} y`, `${file} x (no. 2)`]);
  });

  it('of a chosen key count instead of text and caption', async () => {
    const { examples } = await readShard(
      await tar([
        ['x.png', picture(1)],
        ['x.json', '{"text":"a","alt":"b"}'],
      ]),
      'alt',
    );
    expect(examples.map(({ text }) => text)).toEqual(['b']);
  });

  it('of long names and large pictures come whole', async () => {
    const name = `${'folder/'.repeat(40)}${'ü'.repeat(120)}`;
    const large = Buffer.concat([picture(3), Buffer.alloc(3_000_000, 'x')]);
    const { examples } = await readShard(
      await tar([
        [`${name}.png`, large],
        [`${name}.txt`, 'a'],
      ]),
    );
    expect(examples[0]!.key).toBe(name);
    expect(Buffer.compare(examples[0]!.image as Uint8Array, large)).toBe(0);
  });

  it.each<[string, Member[], string]>([
    [
      'no caption',
      [
        ['x.png', picture(0)],
        ['x.cls', '1'],
      ],
      'there is no caption .txt or .json (members: png, cls)',
    ],
    [
      'no picture',
      [
        ['x.txt', 'a'],
        ['x.bmp', 'b'],
      ],
      'there is no picture (members: txt, bmp)',
    ],
    [
      'an empty caption',
      [
        ['x.png', picture(0)],
        ['x.txt', ' \n'],
      ],
      'the caption is empty',
    ],
    [
      'Latin-1',
      [
        ['x.png', picture(0)],
        ['x.txt', Buffer.from('caf\xe9', 'latin1')],
      ],
      'the caption is not valid UTF-8',
    ],
    [
      'two pictures',
      [
        ['x.png', picture(0)],
        ['x.jpg', picture(1)],
        ['x.txt', 'a'],
      ],
      'two members of kind image',
    ],
    [
      'JSON that is none',
      [
        ['x.png', picture(0)],
        ['x.json', '{'],
      ],
      'the member .json is not valid JSON',
    ],
    [
      'JSON in Latin-1',
      [
        ['x.png', picture(0)],
        ['x.json', Buffer.from('"\xe9"', 'latin1')],
      ],
      'not valid UTF-8',
    ],
    [
      'a JSON list',
      [
        ['x.png', picture(0)],
        ['x.json', '[]'],
      ],
      'not a JSON object',
    ],
    [
      'JSON without the key',
      [
        ['x.png', picture(0)],
        ['x.json', '{}'],
      ],
      'has no "text" or "caption"',
    ],
    [
      'a huge caption',
      [
        ['x.png', picture(0)],
        ['x.txt', 'a'.repeat(2 ** 20 + 1)],
      ],
      'more than 1048576 bytes',
    ],
  ])('are skipped with %s', async (_, broken, reason) => {
    const { examples, skipped, file } = await readShard(await tar([...members(1, 3), ...broken, ...members(3, 5)]));
    expect(numbers(examples)).toEqual([1, 2, 3, 4]);
    expect(skipped.count).toBe(1);
    expect(skipped.first[0]!.source).toBe(`${file} x`);
    expect(skipped.first[0]!.reason).toContain(reason);
  });

  it('that are hidden files are no members of an example', async () => {
    const { examples, skipped } = await readShard(await tar([['._x.txt', 'a'], ['README', 'b'], ...members(0, 2)]));
    expect([numbers(examples), skipped.count]).toEqual([[0, 1], 0]);
  });
});

describe('damaged shards', () => {
  // Each member takes a header of 512 bytes and a block of 512: an example has 2048.
  const whole = tar(members(0, 10));

  it.each([
    ['in a picture', 5 * 2048 + 512 + 20, 5],
    ['in a header', 5 * 2048 + 100, 4],
    ['in a caption', 5 * 2048 + 1024 + 512 + 3, 5],
    ['in the padding', 5 * 2048 - 5, 4],
  ])('that are cut %s give what comes before', async (_, length, complete) => {
    for (let run = 0; run < 3; run++) {
      const { examples, skipped, file } = await readShard((await whole).subarray(0, length));
      expect(numbers(examples)).toEqual(range(complete));
      expect(skipped).toEqual({
        count: 1,
        first: [
          {
            source: file,
            reason: `the shard is damaged after ${complete} examples; the rest of it is skipped: Unexpected end of data`,
          },
        ],
      });
    }
  });

  it('that are overwritten in the middle give what comes before', async () => {
    const bytes = Buffer.from(await whole);
    bytes.fill(0xaa, 3 * 2048, 3 * 2048 + 512);
    const { examples, skipped } = await readShard(bytes);
    // The sample before the damage may have had more members.
    expect(numbers(examples)).toEqual([0, 1]);
    expect(skipped.first[0]!.reason).toContain('damaged after 2 examples');
  });

  it('with gzip give the same on every run: cut, and with a wrong byte', async () => {
    const noise = (n: number): Buffer => {
      let state = n + 1;
      const random = (): number => {
        state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
        return state >>> 24;
      };
      return Buffer.concat([picture(n), Buffer.from(Array.from({ length: 30_000 }, random))]);
    };
    const packed = gzipSync(
      await tar(
        range(60).flatMap((n): Member[] => [
          [`${n}.png`, noise(n)],
          [`${n}.txt`, caption(n)],
        ]),
      ),
    );
    const wrong = Buffer.from(packed);
    wrong.fill(0xff, packed.length >> 1, (packed.length >> 1) + 40);
    for (const bytes of [packed.subarray(0, packed.length >> 1), wrong]) {
      const runs = [];
      for (let run = 0; run < 4; run++) runs.push(await readShard(bytes));
      for (const { examples, skipped } of runs) {
        expect(numbers(examples)).toEqual(range(runs[0]!.examples.length));
        expect(skipped.count).toBe(1);
        expect(skipped.first[0]!.reason).toMatch(/damaged after \d+ examples/);
      }
      expect(runs[0]!.examples.length).toBeGreaterThan(5);
      expect(runs[0]!.examples.length).toBeLessThan(60);
    }
  });

  it('among others cost only their rest, in every epoch, also across a resume', async () => {
    const folder = temporaryFolder();
    for (const i of [0, 1, 2]) {
      const bytes = await tar(members(10 * i, 10 * i + 10));
      writeFileSync(path.join(folder, `${i}.tar`), i === 1 ? bytes.subarray(0, 6 * 2048 + 700) : bytes);
    }
    const source = { shards: path.join(folder, '*.tar') };
    const usable = range(30).filter((n) => n < 16 || n >= 20);
    const options = { epochs: 2, shuffleBuffer: 5, seed: 2 };
    const dataset = await openDataset(source, options);
    const all = numbers(await take(dataset.examples()));
    expect(all.slice(0, 26).sort((a, b) => a - b)).toEqual(usable);
    expect(dataset.skipped.count).toBe(2);
    for (const cut of [1, 11, 17, 25, 26, 30]) {
      const before = await openDataset(source, options);
      await take(before.examples(), cut);
      const after = await openDataset(source, { ...options, position: before.position() });
      expect(numbers(await take(after.examples()))).toEqual(all.slice(cut));
      expect(after.skipped.count).toBe(2);
    }
  });

  it.each<[string, Uint8Array]>([
    ['text', Buffer.from('hello')],
    ['much text', Buffer.alloc(5000, 'hello ')],
    ['gzip of text', gzipSync('hello')],
    ['a broken gzip', gzipSync(Buffer.alloc(5000)).subarray(0, 15)],
    ['a cut header', Buffer.from('data/1.png')],
  ])('that are no archives at all are an error naming them: %s', async (_, bytes) => {
    await expectSiglipError(() => readShard(bytes), 'ERR_SIGLIP_DATA', /a\.tar: is not a tar archive/);
  });

  it('without any example are an error when there is nothing else', async () => {
    const empty = await tar([]);
    await expectSiglipError(() => readShard(empty), 'ERR_SIGLIP_DATA', /a\.tar: the shard holds no examples/);
    await expectSiglipError(() => readShard(Buffer.alloc(0)), 'ERR_SIGLIP_DATA', /a\.tar: the shard holds no examples/);
    const file = path.join(temporaryFolder({ 'a.tar': await tar([['x.txt', 'a']]) }), 'a.tar');
    await expectSiglipError(
      async () => take((await openDataset({ shards: file })).examples()),
      'ERR_SIGLIP_DATA',
      `${file} x: there is no picture (members: txt)`,
    );
  });

  it('that vanish are an error naming them', async () => {
    const folder = temporaryFolder({ 'a.tar': await tar(members(0, 3)) });
    const dataset = await openDataset({ shards: path.join(folder, 'a.tar') });
    rmSync(path.join(folder, 'a.tar'));
    await expectSiglipError(() => take(dataset.examples()), 'ERR_SIGLIP_DATA', /a\.tar: cannot be read: ENOENT/);
  });
});

describe('patterns', () => {
  it.each<[string, string[]]>([
    ['a.tar', ['a.tar']],
    ['a-{08..11}.tar', ['a-08.tar', 'a-09.tar', 'a-10.tar', 'a-11.tar']],
    ['{8..11}', ['8', '9', '10', '11']],
    ['{2..0}', ['2', '1', '0']],
    ['{000..2}', ['000', '001', '002']],
    ['{a,b}{1..2}c', ['a1c', 'a2c', 'b1c', 'b2c']],
    ['{,x}', ['', 'x']],
    ['a{b}{}', ['a{b}{}']],
    ['{0..0}', ['0']],
  ])('%s', (pattern, names) => {
    expect(expandBraces(pattern, 'p')).toEqual(names);
  });

  it('find files in the order of their names', async () => {
    const folder = temporaryFolder();
    for (const name of ['a', 'b', 'c.tar']) mkdirSync(path.join(folder, name));
    for (const name of ['a/2.tar', 'a/10.tar', 'a/.3.tar', 'a/x.tgz', 'b/2.tar', 'c.tar/2.tar', '1.tar', '(+).tar'])
      writeFileSync(path.join(folder, name), name);
    const found = async (...patterns: string[]): Promise<string[]> =>
      (await findFiles(patterns, folder, 'p')).map((file) => path.relative(folder, file.path));
    expect(await found('a/*.tar')).toEqual(['a/10.tar', 'a/2.tar']);
    expect(await found('*/2.tar')).toEqual(['a/2.tar', 'b/2.tar', 'c.tar/2.tar']);
    expect(await found('{b,a}/?.tar', '1.tar')).toEqual(['b/2.tar', 'a/2.tar', '1.tar']);
    expect(await found('*.tar')).toEqual(['(+).tar', '1.tar']);
    expect(await found(path.join(folder, '?', 'x.*'))).toEqual(['a/x.tgz']);
  });

  it('that nothing matches, and names that do not exist, are errors naming them', async () => {
    const folder = temporaryFolder({ 'a-0.tar': '' });
    await expectSiglipError(() => openDataset({ shards: `${folder}/b-*.tar` }), 'ERR_SIGLIP_DATA', 'b-*.tar: no file');
    await expectSiglipError(
      () => openDataset({ shards: `${folder}/a-{0..1}.tar` }),
      'ERR_SIGLIP_DATA',
      'a-1.tar: cannot',
    );
    await expectSiglipError(() => openDataset({ shards: folder }), 'ERR_SIGLIP_DATA', 'not a file');
  });
});
