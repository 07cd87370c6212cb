/**
 * The tables that byte-pair encoding looks things up in, compiled from the vocabulary and merges of a `tokenizer.json`.
 * They are plain numbers, so that tokenizer-cache.ts can keep them on disk.
 */

/** The mark that stands for a space inside tokens. */
export const spaceMark = '▁';

/** A token that is looked for in the text before anything is merged. */
export interface AddedContent {
  content: string;
  id: number;
  /** Whether it is looked for where spaces have become marks, as they have in `content` then. */
  normalized: boolean;
}

/** The parts of a tokenizer file that tables are compiled from. */
export interface BytePairModel {
  vocab: Record<string, number>;
  merges: (string | [string, string])[];
}

/** A byte-pair tokenizer in numbers. A character is a code point; -1 stands for no token. */
export interface TokenizerTables {
  /** Tokens of one UTF-16 unit, [65536]; the space has that of the mark. */
  unitTokens: Int32Array;
  /** Characters above U+FFFF that are tokens, ascending, and their ids. */
  astralCharacters: Int32Array;
  astralTokens: Int32Array;
  /** Tokens `<0x00>` to `<0xFF>`, which spell characters that are no token, [256]; -1 for one that none needs. */
  byteTokens: Int32Array;
  /** Ranks of merges by their two tokens, a pair table; the lowest rank comes first. */
  merges: Int32Array;
  /** The token that the merge of a rank makes, [merges]. */
  results: Int32Array;
  /**
   * Pairs of characters, as tokens, that are neighbours inside some merged token: a pair table whose values say nothing
   * more. Between two characters that are not, a token ends in every text.
   */
  neighbours: Int32Array;
  /** Characters of the longest merged token. */
  longestMerge: number;
}

/** A checked tokenizer that {@link BytePairEncoder} can encode with. */
export interface CompiledTokenizer {
  vocabSize: number;
  eosId: number;
  padId: number;
  added: AddedContent[];
  tables: TokenizerTables;
}

/** Tokens are below this, … */
const maximumTokens = 2 ** 18;
/** … and ranks below this: the encoder's heap orders by rank and position, which share 53 bits. */
export const maximumMerges = 2 ** 21;

/** The second number of a row that is free. */
const free = -1;

/**
 * Finds the value of a pair of tokens in a pair table: a power of two of rows, some of them free, with open addressing
 * and linear probing. A row is two numbers, so that the tables of a large vocabulary are read in little time: the left
 * token with the lower 14 bits of the right one above it, and the upper 4 bits of the right one with the value above them.
 * @returns -1 when the table lacks the pair
 */
export function findPair(table: Int32Array, left: number, right: number): number {
  const second = table[findRow(table, left, right) + 1]!;
  return second === free ? -1 : second >>> 4;
}

/** Where the row of a pair is, or would be. */
function findRow(table: Int32Array, left: number, right: number): number {
  const mask = table.length - 1;
  const first = left | (right << 18);
  const upper = right >>> 14;
  let hash = Math.imul(left, 0x9e3779b1) ^ Math.imul(right + 1, 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 15), 0x2c1b3c6d);
  let row = ((hash ^ (hash >>> 13)) << 1) & mask;
  for (;;) {
    const second = table[row + 1]!;
    if (second === free || (table[row] === first && (second & 15) === upper)) return row;
    row = (row + 2) & mask;
  }
}

/** A pair table without rows, for `count` of them at most. */
function emptyTable(count: number): Int32Array {
  return new Int32Array(2 * 2 ** Math.ceil(Math.log2(1.5 * count + 2))).fill(free);
}

/** Gives a pair a value, in place of any other. */
function setPair(table: Int32Array, left: number, right: number, value: number): void {
  const row = findRow(table, left, right);
  table[row] = left | (right << 18);
  table[row + 1] = (right >>> 14) | (value << 4);
}

/**
 * Compiles a checked vocabulary and its merges.
 * @returns undefined when they say more than tables can hold: merges of or into something that is no token, characters
 *   that cannot be spelled in bytes, spaces that become no token, or too many of anything
 */
export function compileTables({ vocab, merges }: BytePairModel): TokenizerTables | undefined {
  const ids = new Map<string, number>();
  for (const token of Object.keys(vocab)) {
    const id = vocab[token]!;
    if (id >= maximumTokens) return undefined;
    ids.set(token, id);
  }
  if (!ids.has(spaceMark)) return undefined;
  const byteTokens = Int32Array.from({ length: 256 }, (_, byte) => ids.get(byteToken(byte)) ?? -1);
  // An ASCII character that is a token itself is never spelled: Gemma's vocabulary has the tab, and no <0x09>.
  const isSpelled = (byte: number): boolean => byte >= 0x80 || !ids.has(String.fromCharCode(byte));
  if (byteTokens.some((token, byte) => token < 0 && isSpelled(byte))) return undefined;
  const compiled = compileMerges(merges, ids);
  return compiled && { ...compileCharacters(ids), byteTokens, ...compiled, ...findNeighbours(compiled.results, ids) };
}

/** The token that stands for a byte. */
function byteToken(byte: number): string {
  return `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`;
}

function compileMerges(
  merges: BytePairModel['merges'],
  ids: Map<string, number>,
): Pick<TokenizerTables, 'merges' | 'results'> | undefined {
  if (merges.length > maximumMerges) return undefined;
  const table = emptyTable(merges.length);
  const results = new Int32Array(merges.length);
  for (let rank = 0; rank < merges.length; rank++) {
    const [left, right] = partsOf(merges[rank]!);
    // An empty part would be a merge that never happens; tables have no such thing.
    if (left === '' || right === '') return undefined;
    const [leftId, rightId, resultId] = [ids.get(left), ids.get(right), ids.get(left + right)];
    if (leftId === undefined || rightId === undefined || resultId === undefined) return undefined;
    // Of a merge that is listed twice the last rank counts.
    setPair(table, leftId, rightId, rank);
    results[rank] = resultId;
  }
  return { merges: table, results };
}

/** The two tokens of a merge; where a space more makes them uncertain, the right one is empty. */
function partsOf(merge: string | [string, string]): [string, string] {
  if (typeof merge !== 'string') return merge;
  const gap = merge.indexOf(' ');
  return [merge.slice(0, gap), merge.includes(' ', gap + 1) ? '' : merge.slice(gap + 1)];
}

/** Pairs of characters inside merged tokens, and the length of the longest. */
function findNeighbours(
  results: Int32Array,
  ids: Map<string, number>,
): Pick<TokenizerTables, 'neighbours' | 'longestMerge'> {
  const merged = new Set(results);
  const pairs = new Map<number, [number, number]>();
  let longestMerge = 1;
  for (const [token, id] of ids) {
    if (!merged.has(id)) continue;
    let length = 0;
    let left: number | undefined;
    for (const character of token) {
      const right = ids.get(character);
      // A character that is no token never gets next to another one by merging.
      if (left !== undefined && right !== undefined) pairs.set(left * maximumTokens + right, [left, right]);
      left = right;
      length++;
    }
    longestMerge = Math.max(longestMerge, length);
  }
  const neighbours = emptyTable(pairs.size);
  for (const [left, right] of pairs.values()) setPair(neighbours, left, right, 0);
  return { neighbours, longestMerge };
}

/** The tokens of one character. */
function compileCharacters(
  ids: Map<string, number>,
): Pick<TokenizerTables, 'unitTokens' | 'astralCharacters' | 'astralTokens'> {
  const unitTokens = new Int32Array(2 ** 16).fill(-1);
  const astral: [character: number, id: number][] = [];
  for (const [token, id] of ids)
    if (token.length === 1) unitTokens[token.charCodeAt(0)] = id;
    else if (token.length === 2 && token.codePointAt(0)! > 0xffff) astral.push([token.codePointAt(0)!, id]);
  // Texts have no lone surrogates, and their spaces become marks.
  unitTokens.fill(-1, 0xd800, 0xe000);
  unitTokens[0x20] = ids.get(spaceMark)!;
  astral.sort(([one], [other]) => one - other);
  return {
    unitTokens,
    astralCharacters: Int32Array.from(astral, ([character]) => character),
    astralTokens: Int32Array.from(astral, ([, id]) => id),
  };
}
