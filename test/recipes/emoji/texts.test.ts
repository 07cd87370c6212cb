/** Names and keywords: what locales inherit, and the keywords that are held out. */
import { describe, expect, it } from 'vitest';
import {
  comparable,
  drawnForHoldingOut,
  heldOutKeywords,
  neverTrained,
  parentLocale,
  textsOfLocale,
} from '../../../recipes/emoji/data/texts.mjs';
import { Random, runSeed } from '../../support/random.js';

type Annotations = Record<string, { tts?: string[]; default?: string[] }>;

const random = new Random(runSeed);
const randomWord = () => random.next().toString(36).slice(2);
const randomWords = (count: number) => [...new Set(Array.from({ length: count }, randomWord))];

describe('locales', () => {
  it('have parents', () => {
    expect(parentLocale('es-MX')).toBe('es-419');
    expect(parentLocale('es-419')).toBe('es');
    expect(parentLocale('pt-PT')).toBe('pt');
    expect(parentLocale('en-GB')).toBe('en-001');
    expect(parentLocale('en-001')).toBe('en');
    expect(parentLocale('zh-Hant-HK')).toBe('zh-Hant');
    expect(parentLocale('en')).toBeUndefined();
  });

  it('do not inherit from another script', () => {
    expect(parentLocale('zh-Hant')).toBeUndefined();
    expect(parentLocale('sr-Latn')).toBeUndefined();
  });

  const stored: Record<string, Annotations[]> = {
    es: [
      { '🐶': { tts: ['perro'], default: ['perro', 'mascota', 'Mascota', 'cara'] }, '❤': { tts: ['corazón'] } },
      { '🇩🇪': { tts: ['bandera: Alemania'], default: ['bandera'] } },
    ],
    'es-419': [{ '❤': { default: ['amor'] } }],
    'es-MX': [{ '🐶': { default: ['can', 'Perro'] }, '🚀': { default: ['sin nombre'] } }],
  };
  const read = (locale: string) => stored[locale] ?? [];
  const keys = new Set(['1F436', '2764', '1F1E9-1F1EA', '1F680']);

  it('take names and keywords each from the nearest locale that has them', () => {
    expect(textsOfLocale('es-MX', keys, read)).toEqual({
      '1F436': { name: 'perro', keywords: ['can'] },
      '2764': { name: 'corazón', keywords: ['amor'] },
      '1F1E9-1F1EA': { name: 'bandera: Alemania', keywords: ['bandera'] },
    });
  });

  it('list a keyword once, and the name not among them', () => {
    expect(textsOfLocale('es', keys, read)).toEqual({
      '1F436': { name: 'perro', keywords: ['mascota', 'cara'] },
      '2764': { name: 'corazón', keywords: [] },
      '1F1E9-1F1EA': { name: 'bandera: Alemania', keywords: ['bandera'] },
    });
    expect(Object.keys(textsOfLocale('es', new Set(['2764']), read))).toEqual(['2764']);
  });
});

describe('texts', () => {
  it('compare as a tokenizer sees them', () => {
    expect(comparable('  ＡTM\u00a0Sign ')).toBe('atm sign');
    expect(comparable('E\u0301')).toBe('é');
  });
});

describe('held-out keywords', () => {
  it('are the same today as they were', () => {
    const words = ['animal', 'pet', 'puppy', 'cat', 'house', 'sun', 'heart', 'party', 'blue', 'water', 'love', 'fast'];
    const drawn = (language: string) => words.filter((word) => drawnForHoldingOut(language, word));
    expect(drawn('en')).toEqual(['pet', 'house', 'water']);
    expect(drawn('de')).toEqual(['cat', 'blue', 'water']);
  });

  it('do not depend on which others there are, nor on the spelling', () => {
    const words = randomWords(300);
    const texts = (keywords: string[]) => ({ A: { name: 'a name', keywords } });
    const all = heldOutKeywords('en', texts(words));
    const half = words.filter(() => random.next() < 0.5);
    expect(heldOutKeywords('en', texts(half))).toEqual(all.filter((word: string) => half.includes(word)));
    for (const word of words) expect(drawnForHoldingOut('en', word.toUpperCase())).toBe(all.includes(word));
  });

  it('are a fifth, and other ones in each language', () => {
    const words = randomWords(5000);
    const drawn = words.filter((word) => drawnForHoldingOut('en', word));
    // Seven standard deviations of a binomial distribution.
    const slack = (share: number) => 7 * Math.sqrt(words.length * share * (1 - share));
    expect(Math.abs(drawn.length - words.length * 0.2)).toBeLessThan(slack(0.2));
    const both = drawn.filter((word) => drawnForHoldingOut('de', word));
    expect(Math.abs(both.length - words.length * 0.04)).toBeLessThan(slack(0.04));
  });

  it('are never names', () => {
    const words = randomWords(200);
    const drawn = words.filter((word) => drawnForHoldingOut('en', word));
    const texts = {
      A: { name: drawn[0]!.toUpperCase(), keywords: words },
      B: { name: 'b', keywords: [drawn[0]!, drawn[1]!] },
    };
    expect(heldOutKeywords('en', texts)).toEqual(drawn.slice(1).sort());
  });

  it('are listed apart when another language trains them', () => {
    const languages = {
      en: { A: { name: 'robot face', keywords: ['robot', 'steel', 'tin'] } },
      de: { A: { name: 'Robotergesicht', keywords: ['Robot', 'Blech'] } },
      it: { A: { name: 'Tin', keywords: ['steel'] } },
    };
    const heldOut = { en: ['robot', 'steel', 'tin'], de: [], it: ['steel'] };
    expect(neverTrained(languages, heldOut)).toEqual({ en: ['steel'], de: [], it: ['steel'] });
  });
});
