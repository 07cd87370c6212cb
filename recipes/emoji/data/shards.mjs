/**
 * Pictures and texts as WebDataset shards, which `openDataset` reads (docs/training-data.md):
 * `<cache>/shards/<set>/<style>-000.tar` and so on, with `KEY-style.png` and `KEY-style.json` for each picture.
 */
import { createWriteStream, readFileSync } from 'node:fs';
import path from 'node:path';
import { pipeline } from 'node:stream/promises';
import { pack } from 'tar-stream';
import { readMade, writeWholeFolder } from './cache.mjs';
import { captions, halfShares, shares } from './captions.mjs';
import { redrawnStyle } from './pictures.mjs';
import { randomIntegers, shuffled } from './random.mjs';
import { redraws } from './redraw.mjs';
import { styles, stylesFor } from './styles.mjs';
import { comparable } from './texts.mjs';

/** Styles to begin with; all of them, with every drawing that is SVG drawn anew as often as {@link redraws} says. */
const plain = stylesFor('training').filter((style) => !styles[style].late);
const redrawn = stylesFor('training').flatMap((style) => [
  style,
  ...(styles[style].vectors === null ? [] : Array.from({ length: redraws }, (_, at) => redrawnStyle(style, at + 1))),
]);

/**
 * Sets of shards: their styles, how many texts a picture has in a language, and the languages, all seen ones where nothing
 * is said.
 *
 * @type {Record<string, { styles: string[], shares: import('./captions.mjs').Shares, languages?: string[] }>}
 */
export const shardSets = {
  'plain-english': { styles: plain, shares, languages: ['en'] },
  'redrawn-english': { styles: redrawn, shares: halfShares, languages: ['en'] },
  redrawn: { styles: redrawn, shares: halfShares },
};

/** Pictures in a shard: few, so that the reader's shuffle buffer of a thousand always mixes several styles. */
const shardLength = 128;

/**
 * The vocabulary of a picture in every language that is asked for.
 *
 * @param {object} texts content of `texts.json`
 * @param {string[]} group the key of the picture first, then those whose pictures are the same in its style
 * @param {Record<string, Set<string>>} heldOut comparable spellings by language
 * @param {string[]} [languages] default all seen ones
 * @returns {import('./captions.mjs').Vocabulary[]} languages without a name for the emoji are left out
 */
export function vocabulariesOf(texts, group, heldOut, languages = texts.seen) {
  return languages
    .filter((language) => texts.languages[language][group[0]] !== undefined)
    .map((language) => {
      const frequencies = keywordFrequencies(texts.languages[language]);
      const entries = group.map((key) => texts.languages[language][key]).filter((entry) => entry !== undefined);
      const keywords = entries[0].keywords.filter((keyword) => !heldOut[language].has(comparable(keyword)));
      return {
        names: [...new Set(entries.map(({ name }) => name))],
        keywords,
        // A keyword of many emoji tells little about each of them.
        weights: keywords.map((keyword) => 1 / frequencies.get(keyword)),
        heldOut: heldOut[language],
      };
    });
}

const frequenciesOf = new WeakMap();

/** How many emoji of a language each keyword belongs to. Counted once. */
function keywordFrequencies(entries) {
  let frequencies = frequenciesOf.get(entries);
  if (frequencies === undefined) {
    frequencies = new Map();
    for (const { keywords } of Object.values(entries))
      for (const keyword of keywords) frequencies.set(keyword, (frequencies.get(keyword) ?? 0) + 1);
    frequenciesOf.set(entries, frequencies);
  }
  return frequencies;
}

/**
 * Comparable spellings of the held-out keywords, by language.
 *
 * @param {object} texts content of `texts.json`
 * @returns {Record<string, Set<string>>}
 */
export function heldOutSpellings(texts) {
  return Object.fromEntries(
    Object.entries(texts.heldOut).map(([language, keywords]) => [language, new Set(keywords.map(comparable))]),
  );
}

/**
 * Writes every set. The same pictures and texts give the same bytes.
 *
 * @param {object} place
 * @param {string} place.cache with pictures and texts
 * @param {(text: string) => void} [place.log] told about each set that is complete
 * @returns {Promise<Record<string, { shards: number, pictures: number, texts: number, bytes: number }>>} by set
 */
export async function makeShards({ cache, log = () => {} }) {
  const manifest = readMade(path.join(cache, 'pictures', 'manifest.json'), 'pictures');
  const texts = readMade(path.join(cache, 'texts.json'), 'texts');
  const heldOut = heldOutSpellings(texts);
  const result = {};
  for (const [set, { styles, ...kind }] of Object.entries(shardSets)) {
    const counts = { shards: 0, pictures: 0, texts: 0, bytes: 0 };
    await writeWholeFolder(path.join(cache, 'shards', set), async (folder) => {
      for (const style of styles) {
        const examples = examplesOf({ cache, style, entry: manifest.styles[style], texts, heldOut, ...kind });
        for (let first = 0; first < examples.length; first += shardLength) {
          const number = String(first / shardLength).padStart(3, '0');
          const members = examples.slice(first, first + shardLength);
          await writeShard(path.join(folder, `${style}-${number}.tar`), members, counts);
        }
      }
    });
    result[set] = counts;
    log(`${set}: ${counts.pictures} pictures of ${styles.join(', ')} in ${counts.shards} shards`);
  }
  return result;
}

/** The examples of a style in random order, so that a shard is a sample of all kinds of emoji. */
function examplesOf({ cache, style, entry, texts, heldOut, shares, languages = texts.seen }) {
  if (entry === undefined) throw new Error(`the manifest of the pictures has no style "${style}"; make them again`);
  const same = new Map(entry.identical.flatMap((group) => group.map((key) => [key, group])));
  const keys = entry.keys.filter((key) => languages.some((language) => texts.languages[language][key] !== undefined));
  return shuffled(keys, randomIntegers(`order\n${style}`)).map((key) => ({
    name: `${key}-${style}`,
    png: path.join(cache, 'pictures', style, `${key}.png`),
    json: () => {
      const group = [key, ...(same.get(key) ?? []).filter((other) => other !== key)];
      const text = captions(vocabulariesOf(texts, group, heldOut, languages), `captions\n${key}\n${style}`, shares);
      return { key, style, text };
    },
  }));
}

async function writeShard(file, examples, counts) {
  const archive = pack();
  const written = pipeline(archive, createWriteStream(file));
  const add = (name, content) =>
    new Promise((resolve, reject) => {
      // Nothing of the machine or the hour is stored.
      const header = { name, size: content.length, mode: 0o644, mtime: new Date(0), uid: 0, gid: 0 };
      archive.entry(header, content, (error) => (error ? reject(error) : resolve()));
      counts.bytes += content.length;
    });
  for (const { name, png, json } of examples) {
    const content = json();
    await add(`${name}.png`, readFileSync(png));
    await add(`${name}.json`, Buffer.from(JSON.stringify(content)));
    counts.pictures++;
    counts.texts += content.text.length;
  }
  archive.finalize();
  await written;
  counts.shards++;
}
