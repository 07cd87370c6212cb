/** The texts of a picture: how many of each kind, and never a held-out keyword. */
import { describe, expect, it } from 'vitest';
import { captions, mostOfOne, shares, spellsHeldOut } from '../../../recipes/emoji/data/captions.mjs';
import { randomIntegers, shuffled } from '../../../recipes/emoji/data/random.mjs';
import { vocabulariesOf } from '../../../recipes/emoji/data/shards.mjs';
import { Random, runSeed } from '../../support/random.js';

const total = shares.names + shares.keywords + shares.joins;
const random = new Random(runSeed);
const seed = () => String(random.next());
const none = new Set<string>();
const words = (count: number, prefix = 'k') => Array.from({ length: count }, (_, at) => `${prefix}${at}`);

/** How often each text is there. */
function tally(texts: string[]): Map<string, number> {
  const counts = new Map<string, number>();
  for (const text of texts) counts.set(text, (counts.get(text) ?? 0) + 1);
  return counts;
}

describe('random draws', () => {
  it('are decided by the seed', () => {
    const draw = (from: string) =>
      Array.from({ length: 50 }, () => 0).map(
        (
          (below) => () =>
            below(1000)
        )(randomIntegers(from)),
      );
    const from = seed();
    expect(draw(from)).toEqual(draw(from));
    expect(draw(from)).not.toEqual(draw(`${from} `));
    expect(
      [0, 1, 2].map(
        (
          (below) => () =>
            below(1000)
        )(randomIntegers('golden')),
      ),
    ).toEqual([586, 285, 412]);
  });

  it('are equally likely, and shuffle without losing anything', () => {
    const below = randomIntegers(seed());
    const counts = new Array(7).fill(0);
    for (let round = 0; round < 7000; round++) counts[below(7)]++;
    // Seven standard deviations of a binomial distribution.
    for (const count of counts) expect(Math.abs(count - 1000)).toBeLessThan(7 * Math.sqrt((7000 * 6) / 49));
    const items = words(20);
    expect(shuffled(items, below).sort()).toEqual([...items].sort());
    const firsts = new Set(Array.from({ length: 400 }, () => shuffled(words(4), below)[0]));
    expect(firsts.size).toBe(4);
  });
});

describe('captions', () => {
  it('are names, keywords and joins in their shares, in every language', () => {
    for (const count of [4, 5, 14, 30]) {
      const keywords = words(count);
      const vocabularies = ['a', 'b'].map((language) => ({
        names: [`${language} name`],
        keywords: keywords.map((word) => `${language}${word}`),
        weights: keywords.map(() => 1),
        heldOut: none,
      }));
      const texts = captions(vocabularies, seed());
      expect(texts).toHaveLength(2 * total);
      for (const language of ['a', 'b']) {
        const own = texts.filter((text) => text.startsWith(language));
        const joins = own.filter((text) => (text.match(new RegExp(`${language}k\\d`, 'g')) ?? []).length > 1);
        expect(own.filter((text) => text === `${language} name`)).toHaveLength(shares.names);
        expect(joins).toHaveLength(shares.joins);
        expect(own).toHaveLength(total);
        for (const join of joins) {
          const parts = join.split(/, | /);
          expect(parts.length).toBeLessThanOrEqual(4);
          expect(new Set(parts).size).toBe(parts.length);
        }
      }
    }
  });

  it('have every keyword as often as every other', () => {
    const texts = tally(
      captions([{ names: ['name'], keywords: words(4), weights: [1, 1, 1, 1], heldOut: none }], seed()),
    );
    for (const word of words(4)) expect([3, 4]).toContain(texts.get(word));
  });

  it('have keywords in proportion to their weights', () => {
    const weights = [1, 0.5, 0.25, 0.25];
    const counts = [0, 0, 0, 0];
    for (let round = 0; round < 200; round++) {
      const texts = tally(captions([{ names: ['name'], keywords: words(4), weights, heldOut: none }], seed()));
      words(4).forEach((word, i) => {
        const count = texts.get(word) ?? 0;
        expect(Math.abs(count - (shares.keywords * weights[i]!) / 2)).toBeLessThan(1);
        counts[i]! += count;
      });
    }
    // The mean of 200 roundings is off by less than 5 standard deviations of 1/2.
    counts.forEach((count, i) => {
      expect(Math.abs(count / 200 - (shares.keywords * weights[i]!) / 2)).toBeLessThan((5 * 0.5) / Math.sqrt(200));
    });
  });

  it('put names in place of what cannot be', () => {
    expect(tally(captions([{ names: ['name'], keywords: [], weights: [], heldOut: none }], seed()))).toEqual(
      new Map([['name', total]]),
    );
    expect(tally(captions([{ names: ['name'], keywords: ['flag'], weights: [0.01], heldOut: none }], seed()))).toEqual(
      new Map([
        ['name', total - mostOfOne],
        ['flag', mostOfOne],
      ]),
    );
  });

  it('have the names of pictures that look the same, in equal parts', () => {
    const texts = tally(
      captions([{ names: ['one', 'two'], keywords: words(6), weights: words(6).map(() => 1), heldOut: none }], seed()),
    );
    expect(texts.get('one')).toBe(shares.names / 2);
    expect(texts.get('two')).toBe(shares.names / 2);
  });

  it('never join keywords into a held-out one', () => {
    const vocabulary = {
      names: ['n'],
      keywords: ['hot', 'dog', 'ice'],
      weights: [1, 1, 1],
      heldOut: new Set(['hot dog', 'ice, dog']),
    };
    for (let round = 0; round < 50; round++) {
      const texts = captions([vocabulary], seed());
      expect(texts).toHaveLength(total);
      expect(texts.filter((text) => /hot dog|ice, dog/.test(text))).toEqual([]);
      expect(texts.filter((text) => /[ ,]/.test(text))).toHaveLength(shares.joins);
    }
  });

  it('have no joins where every one is held out', () => {
    const vocabulary = {
      names: ['n'],
      keywords: ['a', 'b'],
      weights: [1, 1],
      heldOut: new Set(['a b', 'b a', 'a, b', 'b, a']),
    };
    expect(tally(captions([vocabulary], seed()))).toEqual(
      new Map([
        ['n', total - 2 * mostOfOne],
        ['a', mostOfOne],
        ['b', mostOfOne],
      ]),
    );
  });
});

describe('words across the border of two keywords', () => {
  it('are found, and those within one are not', () => {
    const heldOut = new Set(['hot dog', 'b c d']);
    expect(spellsHeldOut(['red Hot', 'Dog food'], ' ', heldOut)).toBe(true);
    expect(spellsHeldOut(['red hot', 'dog food'], ', ', heldOut)).toBe(false);
    expect(spellsHeldOut(['hot dog', 'x'], ' ', heldOut)).toBe(false);
    expect(spellsHeldOut(['a b', 'c', 'd e'], ' ', heldOut)).toBe(true);
    expect(spellsHeldOut(['hot', 'x', 'dog'], ' ', heldOut)).toBe(false);
    expect(spellsHeldOut(['a, b', 'c', 'd'], ', ', new Set(['a, b, c']))).toBe(true);
  });
});

describe('vocabularies', () => {
  it('are those of seen languages, without held-out keywords, with the names of the whole group', () => {
    const texts = {
      seen: ['en', 'de'],
      languages: {
        en: { A: { name: 'cat', keywords: ['Pet', 'fur'] }, B: { name: 'cat face', keywords: ['face'] } },
        de: { B: { name: 'Katzengesicht', keywords: [] } },
        ca: { A: { name: 'gat', keywords: ['animal'] } },
      },
    };
    const heldOut = { en: new Set(['pet']), de: none };
    expect(vocabulariesOf(texts, ['A', 'B'], heldOut)).toEqual([
      { names: ['cat', 'cat face'], keywords: ['fur'], weights: [1], heldOut: heldOut.en },
    ]);
    expect(vocabulariesOf(texts, ['B', 'A'], heldOut)).toEqual([
      { names: ['cat face', 'cat'], keywords: ['face'], weights: [1], heldOut: heldOut.en },
      { names: ['Katzengesicht'], keywords: [], weights: [], heldOut: none },
    ]);
  });
});
