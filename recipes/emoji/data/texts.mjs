/** What CLDR calls each emoji in 29 languages, and which keywords training never shows: `<cache>/texts.json`. */
import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { writeWhole } from './cache.mjs';
import { keyOfCharacters } from './keys.mjs';

/** Languages that are trained on. */
export const seenLanguages = 'en de es fr pt it nl pl ru uk tr ar fa he hi bn th vi id ja ko zh sw el'.split(' ');

/** Languages that are only tested: relatives of seen ones (ca, sv, cs), one less related (hu), one in a script of its own (ta). */
export const unseenLanguages = ['ca', 'sv', 'cs', 'hu', 'ta'];

/** The share of a language's keywords that training never shows. */
const heldOutShare = 0.2;

/** Parents of locales that are not found by dropping the last part, after CLDR's `parentLocales`. */
const parents = {
  'en-AU': 'en-001',
  'en-CA': 'en-001',
  'en-GB': 'en-001',
  'en-IN': 'en-001',
  'es-MX': 'es-419',
  'es-US': 'es-419',
  'hi-Latn': 'en-IN',
  nn: 'no',
  'sr-Cyrl': 'sr',
};

/**
 * The locale whose texts another one takes over where it has none of its own.
 *
 * @param {string} locale for example 'es-MX'
 * @returns {string | undefined} for example 'es-419'; nothing for languages, and for another script of one
 */
export function parentLocale(locale) {
  if (Object.hasOwn(parents, locale)) return parents[locale];
  const parts = locale.split('-');
  const last = parts.pop();
  return parts.length === 0 || last.length === 4 ? undefined : parts.join('-');
}

/**
 * A text as comparisons see it: two texts that a tokenizer would not tell apart are one.
 *
 * @param {string} text
 * @returns {string} NFKC, lower case, single spaces
 */
export function comparable(text) {
  return text.normalize('NFKC').toLowerCase().replace(/\s+/gu, ' ').trim();
}

/**
 * Names and keywords of one locale, with what it inherits: name and keywords each from the nearest locale that has them.
 *
 * @param {string} locale
 * @param {Set<string>} keys the emoji that count
 * @param {(locale: string) => Record<string, { tts?: string[], default?: string[] }>[]} read annotations of one locale
 *   alone, by characters; of several lists the first that has an entry counts
 * @returns {Record<string, { name: string, keywords: string[] }>} by key, in the order of `keys`; what has no name is left
 *   out; keywords are distinct and none is the name
 */
export function textsOfLocale(locale, keys, read) {
  const merged = new Map();
  for (let at = locale; at !== undefined; at = parentLocale(at))
    for (const annotations of read(at))
      for (const [characters, { tts, default: keywords }] of Object.entries(annotations)) {
        const key = keyOfCharacters(characters);
        if (!keys.has(key)) continue;
        const { name, words } = merged.get(key) ?? {};
        merged.set(key, { name: name ?? tts?.[0], words: words ?? keywords });
      }
  const texts = {};
  for (const key of keys) {
    const { name, words = [] } = merged.get(key) ?? {};
    if (!name) continue;
    const taken = new Set([comparable(name)]);
    const keywords = words.filter((word) => {
      const spelled = comparable(word);
      if (spelled === '' || taken.has(spelled)) return false;
      taken.add(spelled);
      return true;
    });
    texts[key] = { name, keywords };
  }
  return texts;
}

/**
 * Reads annotations of CLDR's two packages.
 *
 * @param {string} modules `node_modules` of the packages
 * @returns {(locale: string) => Record<string, { tts?: string[], default?: string[] }>[]} empty lists for a locale that
 *   CLDR has none of
 */
export function annotationReader(modules) {
  const sources = [
    ['cldr-annotations-full', 'annotations', 'annotations'],
    ['cldr-annotations-derived-full', 'annotationsDerived', 'annotationsDerived'],
  ];
  return (locale) =>
    sources
      .map(([name, folder]) => path.join(modules, name, folder, locale, 'annotations.json'))
      .map((file, at) => (existsSync(file) ? JSON.parse(readFileSync(file, 'utf8'))[sources[at][2]].annotations : {}));
}

/**
 * Whether a keyword is in the fifth that training never shows. Only language and keyword decide, so that the split stays
 * as it is when other keywords come or go.
 *
 * @param {string} language
 * @param {string} keyword
 */
export function drawnForHoldingOut(language, keyword) {
  const hash = createHash('sha256')
    .update(`held out\n${language}\n${comparable(keyword)}`)
    .digest();
  return hash.readUInt32BE() < heldOutShare * 2 ** 32;
}

/**
 * The held-out keywords of a language: those drawn, without those that are the name of an emoji in this language, because
 * names are all trained on.
 *
 * @param {string} language
 * @param {Record<string, { name: string, keywords: string[] }>} texts
 * @returns {string[]} sorted, in every spelling that occurs
 */
export function heldOutKeywords(language, texts) {
  const entries = Object.values(texts);
  const names = new Set(entries.map(({ name }) => comparable(name)));
  const keywords = new Set(entries.flatMap((entry) => entry.keywords));
  return [...keywords]
    .filter((keyword) => !names.has(comparable(keyword)) && drawnForHoldingOut(language, keyword))
    .sort();
}

/**
 * Of the held-out keywords, those that no language trains either, neither as a name nor as a keyword. "robot" held out in
 * one language may be trained in five others.
 *
 * @param {Record<string, Record<string, { name: string, keywords: string[] }>>} languages texts of seen languages
 * @param {Record<string, string[]>} heldOut by language
 * @returns {Record<string, string[]>}
 */
export function neverTrained(languages, heldOut) {
  const trained = new Set();
  for (const [language, held] of Object.entries(heldOut)) {
    const left = new Set(held.map(comparable));
    for (const { name, keywords } of Object.values(languages[language]))
      for (const text of [name, ...keywords]) if (!left.has(comparable(text))) trained.add(comparable(text));
  }
  return Object.fromEntries(
    Object.entries(heldOut).map(([language, held]) => [
      language,
      held.filter((text) => !trained.has(comparable(text))),
    ]),
  );
}

/**
 * Makes `texts.json`: `languages` (texts by language and key), `seen`, `unseen`, `heldOut` and `neverTrained` (keywords by
 * seen language).
 *
 * @param {object} place
 * @param {string} place.modules `node_modules` of the packages
 * @param {string} place.cache
 * @param {Set<string>} place.keys the emoji that count
 * @returns {object} what was written
 */
export function makeTexts({ modules, cache, keys }) {
  const read = annotationReader(modules);
  const ordered = new Set([...keys].sort());
  const all = [...seenLanguages, ...unseenLanguages];
  const languages = Object.fromEntries(all.map((language) => [language, textsOfLocale(language, ordered, read)]));
  for (const [language, texts] of Object.entries(languages))
    if (Object.keys(texts).length === 0) throw new Error(`CLDR has no emoji names in "${language}"`);
  const heldOut = Object.fromEntries(
    seenLanguages.map((language) => [language, heldOutKeywords(language, languages[language])]),
  );
  const texts = {
    languages,
    heldOut,
    neverTrained: neverTrained(languages, heldOut),
    seen: seenLanguages,
    unseen: unseenLanguages,
  };
  writeWhole(path.join(cache, 'texts.json'), JSON.stringify(texts));
  return texts;
}
