/** Draws that a text decides, the same on every machine. */
import { createHash } from 'node:crypto';

/**
 * A stream of random numbers: SHA-256 of the seed and a counter.
 *
 * @param {string} seed
 * @returns {(limit: number) => number} whole numbers from 0 to below `limit` (at most 2^32), equally likely to within
 *   limit / 2^32
 */
export function randomIntegers(seed) {
  let block = Buffer.alloc(0);
  let at = 0;
  let count = 0;
  return (limit) => {
    if (at === block.length) {
      block = createHash('sha256').update(`${count++}\n${seed}`).digest();
      at = 0;
    }
    const value = block.readUInt32BE(at);
    at += 4;
    return Math.floor((value / 2 ** 32) * limit);
  };
}

/**
 * The items in random order (Fisher and Yates).
 *
 * @template T
 * @param {readonly T[]} items
 * @param {(limit: number) => number} below see {@link randomIntegers}
 * @returns {T[]} a new array
 */
export function shuffled(items, below) {
  const result = [...items];
  for (let last = result.length - 1; last > 0; last--) {
    const other = below(last + 1);
    [result[last], result[other]] = [result[other], result[last]];
  }
  return result;
}
