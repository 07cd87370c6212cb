import { describe, expect, it } from 'vitest';
import { Tokenizer } from '../../../lib/index.js';
import { learnMerges } from '../../../recipes/emoji/byte-pair-training.mjs';
import { modelConfig } from '../../../recipes/emoji/model.mjs';
import { learnTokenizer } from '../../../recipes/emoji/tokenizer.mjs';
import { temporaryFolder } from '../../support/folders.js';
import { Random, runSeed } from '../../support/random.js';

const random = new Random(runSeed);

/** The definition: count all pairs, join the most frequent one everywhere, begin again. */
function mergesByDefinition(words: Map<string, number>, most: number): [string, string][] {
  let spelled = [...words].map(([word, count]) => ({ symbols: [...word], count }));
  const merges: [string, string][] = [];
  while (merges.length < most) {
    const counts = new Map<string, number>();
    for (const { symbols, count } of spelled)
      for (let i = 1; i < symbols.length; i++) {
        const key = `${symbols[i - 1]}\u0000${symbols[i]}`;
        counts.set(key, (counts.get(key) ?? 0) + count);
      }
    const best = [...counts].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1))[0];
    if (best === undefined || best[1] < 2) break;
    const [left, right] = best[0].split('\u0000') as [string, string];
    merges.push([left, right]);
    spelled = spelled.map(({ symbols, count }) => {
      const joined: string[] = [];
      for (let i = 0; i < symbols.length; i++)
        if (symbols[i] === left && symbols[i + 1] === right) joined.push(left + symbols[++i]);
        else joined.push(symbols[i]!);
      return { symbols: joined, count };
    });
  }
  return merges;
}

describe('learnMerges', () => {
  it('gives what its definition gives', () => {
    for (let trial = 0; trial < 30; trial++) {
      const words = new Map<string, number>();
      const letters = ['a', 'b', 'c', '😀'].slice(0, 2 + (trial % 3));
      for (let i = 0; i < 25; i++) {
        const word = Array.from(
          { length: random.integer(1, 9) },
          () => letters[random.integer(0, letters.length - 1)],
        ).join('');
        words.set(word, random.integer(1, 5));
      }
      const most = random.integer(0, 29);
      expect(learnMerges(words, most, () => true)).toEqual(mergesByDefinition(words, most));
    }
  });

  it('joins nothing with a symbol that does not take part', () => {
    const merges = learnMerges(
      new Map([
        ['axa', 9],
        ['aa', 3],
      ]),
      10,
      (symbol: string) => symbol !== 'x',
    );
    expect(merges).toEqual([['a', 'a']]);
  });
});

describe('learnTokenizer', () => {
  const texts = [
    'angry dog',
    'dog face',
    'hot dog',
    'dog',
    'Hundegesicht',
    'Hund',
    'wütender Hund',
    'ピザ',
    'ピザ',
    'cat face',
  ];

  async function load(vocabularySize: number, context = 12): Promise<Tokenizer> {
    const { tokenizer, configuration } = learnTokenizer(texts, { vocabularySize, context });
    const vocab = Object.keys((tokenizer as { model: { vocab: object } }).model.vocab).length;
    const text = { ...modelConfig.text_config, vocab_size: vocab, max_position_embeddings: context };
    return Tokenizer.load(
      temporaryFolder({
        'config.json': JSON.stringify({ ...modelConfig, text_config: text }),
        'tokenizer.json': JSON.stringify(tokenizer),
        'tokenizer_config.json': JSON.stringify(configuration),
      }),
    );
  }

  it('makes files that the package reads, with as many tokens as were asked for at most', async () => {
    const { tokenizer } = learnTokenizer(texts, { vocabularySize: 350, context: 12 });
    const ids = Object.values((tokenizer as { model: { vocab: Record<string, number> } }).model.vocab);
    expect(ids.length).toBeLessThanOrEqual(350);
    expect([...ids].sort((a, b) => a - b)).toEqual(ids.map((_, i) => i));
    const { inputIds, shape } = (await load(350)).encode(['dog', 'DOG', 'ピザ']);
    expect(shape).toEqual([3, 12]);
    expect([...inputIds.slice(0, 12)]).toEqual([...inputIds.slice(12, 24)]);
    // The word, the end token, and padding.
    expect([...inputIds.slice(1, 3)]).toEqual([1, 0]);
    expect([...inputIds.slice(25, 27)]).toEqual([1, 0]);
  });

  it('gives a word the same tokens wherever it stands', async () => {
    const tokenizer = await load(350);
    const tokens = (text: string): number[] => {
      const ids = [...tokenizer.encode(text).inputIds];
      return ids.slice(0, ids.indexOf(1));
    };
    const space = tokens(' ');
    expect(space.length).toBe(1);
    expect(tokens('dog wütend hund')).toEqual([
      ...tokens('dog'),
      ...space,
      ...tokens('wütend'),
      ...space,
      ...tokens('hund'),
    ]);
  });

  it('spells characters that it has not learnt in bytes', async () => {
    const { inputIds } = (await load(350)).encode('猫');
    expect([...inputIds.slice(0, 4)]).toEqual([...Buffer.from('猫')].map((byte) => 4 + byte).concat(1));
  });

  it('refuses a vocabulary that is smaller than the alphabet', () => {
    expect(() => learnTokenizer(texts, { vocabularySize: 100, context: 12 })).toThrow(
      /vocabularySize: expected more than/,
    );
  });
});
