/**
 * The texts that may be drawn for a picture in training. The trainer draws one of them, each with the same chance, so how
 * often a text is repeated is its weight.
 */
import { randomIntegers, shuffled } from './random.mjs';
import { comparable } from './texts.mjs';

/**
 * Texts of a picture in each language: half names, 30 % single keywords, 20 % several keywords in a row.
 *
 * @typedef {{ names: number, keywords: number, joins: number }} Shares
 */

/** @type {Shares} */
export const shares = { names: 20, keywords: 12, joins: 8 };

/** Half as many, for styles that have several pictures of every drawing. @type {Shares} */
export const halfShares = { names: 10, keywords: 6, joins: 4 };

/** How often a single keyword is repeated at most: "flag", the only one of 258 flags, tells little about each of them. */
export const mostOfOne = 4;

/** The most keywords of a join. */
const longestJoin = 4;

/** Between the keywords of a join. */
const separators = [', ', ' '];

/** How often a join that spells something held out is drawn anew. */
const attempts = 20;

/**
 * What a language gives an emoji for training.
 *
 * @typedef {object} Vocabulary
 * @property {string[]} names at least one: of the emoji, and of those that look the same in the style
 * @property {string[]} keywords those that are trained on
 * @property {number[]} weights how often each of them is to come, against the others
 * @property {Set<string>} heldOut comparable spellings of all held-out keywords of the language
 */

/**
 * The texts of a picture, language by language. Every language has the same number. Without keywords names take their
 * place, and with few of them that of some.
 *
 * @param {Vocabulary[]} vocabularies one for each language
 * @param {string} seed decides every draw
 * @param {Shares} [parts] how many texts of each kind
 * @returns {string[]} as many as `parts` has in all, for each language
 */
export function captions(vocabularies, seed, parts = shares) {
  const below = randomIntegers(seed);
  return vocabularies.flatMap(({ names, keywords, weights, heldOut }) => {
    const joins = keywords.length < 2 ? [] : joinsOf(keywords, heldOut, parts.joins, below);
    const count = Math.min(parts.keywords, mostOfOne * keywords.length);
    const singles = weighted(keywords, weights, count, below);
    const total = parts.names + parts.keywords + parts.joins;
    return [...repeated(names, total - joins.length - singles.length, below), ...singles, ...joins];
  });
}

/** `count` of the items, each as often as every other, or one time more. */
function repeated(items, count, below) {
  const result = [];
  while (result.length < count) result.push(...shuffled(items, below));
  return result.slice(0, count);
}

/** `count` of the items in proportion to their weights, rounded at random so that the mean is exact. */
function weighted(items, weights, count, below) {
  const sum = weights.reduce((total, weight) => total + weight, 0);
  const result = [];
  let place = below(2 ** 30) / 2 ** 30;
  // A comb with `count` teeth over the weights laid end to end.
  for (const [i, item] of items.entries()) {
    place -= (count * weights[i]) / sum;
    for (; place < 0; place++) result.push(item);
  }
  return result;
}

function joinsOf(keywords, heldOut, count, below) {
  const joins = [];
  for (let attempt = 0; joins.length < count && attempt < count * attempts; attempt++) {
    const length = 2 + below(Math.min(longestJoin, keywords.length) - 1);
    const parts = shuffled(keywords, below).slice(0, length);
    const separator = separators[below(separators.length)];
    if (!spellsHeldOut(parts, separator, heldOut)) joins.push(parts.join(separator));
  }
  return joins;
}

/**
 * Whether words of neighbouring parts, read together, are a held-out keyword: "hot" and "dog" are "hot dog".
 *
 * @param {string[]} parts
 * @param {string} separator between them
 * @param {Set<string>} heldOut comparable spellings
 */
export function spellsHeldOut(parts, separator, heldOut) {
  const words = [];
  const borders = [];
  for (const [at, part] of parts.entries()) {
    const last = at === parts.length - 1;
    words.push(...comparable(last ? part : part + separator).split(' '));
    borders.push(words.length);
  }
  for (let start = 0; start < words.length; start++)
    for (let end = start + 2; end <= words.length; end++) {
      const crosses = borders.some((border) => start < border && border < end);
      // The comma after the last word of a run belongs to the join.
      if (crosses && heldOut.has(words.slice(start, end).join(' ').replace(/,$/, ''))) return true;
    }
  return false;
}
