/** Byte-pair merging: of all neighbours that have a merge, those of the lowest rank become one, the leftmost first. */
import { findPair, maximumMerges, type TokenizerTables } from './tokenizer-tables.js';

type Merges = Pick<TokenizerTables, 'merges' | 'results'>;

/** For up to so many tokens, looking at all of them for the next merge is quicker than keeping a heap. */
export const shortLength = 32;

/** Orders a heap's entries by rank, then by position. */
const positions = 2 ** 53 / maximumMerges;

/** Above every rank. */
const noRank = maximumMerges;

/** Ranks of the merges of short runs with what follows. */
const shortRanks = new Int32Array(shortLength);

/**
 * Merges the first `length` tokens, at most {@link shortLength}, in place.
 * @returns how many are left
 */
export function mergeShort({ merges, results }: Merges, tokens: Int32Array, length: number): number {
  let count = length;
  const look = (index: number): void => {
    const rank = index + 1 < count ? findPair(merges, tokens[index]!, tokens[index + 1]!) : -1;
    shortRanks[index] = rank < 0 ? noRank : rank;
  };
  for (let index = 0; index < count; index++) look(index);
  for (;;) {
    let best = 0;
    for (let index = 1; index < count; index++) if (shortRanks[index]! < shortRanks[best]!) best = index;
    if (shortRanks[best] === noRank) return count;
    tokens[best] = results[shortRanks[best]!]!;
    count--;
    for (let index = best + 1; index < count; index++) {
      tokens[index] = tokens[index + 1]!;
      shortRanks[index] = shortRanks[index + 1]!;
    }
    if (best > 0) look(best - 1);
    look(best);
  }
}

/** The tokens that any number of tokens merge to, in time proportional to n log n. */
export function mergeLong({ merges, results }: Merges, tokens: Int32Array): Int32Array {
  const length = tokens.length;
  const token = tokens.slice();
  // A list of what is left: a token lies at the place of its first character. `length` is the end of it, -1 the beginning.
  const next = Int32Array.from(token, (_, place) => place + 1);
  const before = Int32Array.from(token, (_, place) => place - 1);
  // Rank of the merge of the token at a place with the one after it; -1 where there is none.
  const ranks = new Int32Array(length).fill(-1);
  const heap = new Heap(3 * length);
  const look = (place: number): void => {
    const after = next[place]!;
    const rank = after < length ? findPair(merges, token[place]!, token[after]!) : -1;
    ranks[place] = rank;
    if (rank >= 0) heap.push(rank * positions + place);
  };
  for (let place = 0; place < length; place++) look(place);
  for (let least = heap.pop(); least !== undefined; least = heap.pop()) {
    const place = least % positions;
    // What was pushed before a neighbour changed no longer holds.
    const rank = Math.floor(least / positions);
    if (ranks[place] !== rank) continue;
    const gone = next[place]!;
    const after = next[gone]!;
    token[place] = results[rank]!;
    next[place] = after;
    if (after < length) before[after] = place;
    ranks[gone] = -1;
    look(place);
    if (place > 0) look(before[place]!);
  }
  const left: number[] = [];
  for (let place = 0; place < length; place = next[place]!) left.push(token[place]!);
  return Int32Array.from(left);
}

/** A binary heap of numbers, the least on top. */
class Heap {
  readonly #values: Float64Array;
  #size = 0;

  /** @param capacity how many numbers it can hold */
  constructor(capacity: number) {
    this.#values = new Float64Array(capacity);
  }

  push(value: number): void {
    const values = this.#values;
    let place = this.#size++;
    while (place > 0) {
      const parent = (place - 1) >> 1;
      if (values[parent]! <= value) break;
      values[place] = values[parent]!;
      place = parent;
    }
    values[place] = value;
  }

  pop(): number | undefined {
    if (this.#size === 0) return undefined;
    const values = this.#values;
    const least = values[0]!;
    const value = values[--this.#size]!;
    let place = 0;
    for (let child = 1; child < this.#size; child = 2 * place + 1) {
      if (child + 1 < this.#size && values[child + 1]! < values[child]!) child++;
      if (values[child]! >= value) break;
      values[place] = values[child]!;
      place = child;
    }
    values[place] = value;
    return least;
  }
}
