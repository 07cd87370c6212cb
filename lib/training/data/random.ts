/** Random numbers that depend on nothing but the words they are seeded with, so that an order can be found again. */
import { setImmediate } from 'node:timers/promises';

/** What a stream of random numbers is for: no two uses of one seed see the same numbers. */
export const purposes = { order: 1, buffer: 2, caption: 3, sequenceLength: 4, augmentation: 5 } as const;

/** How many steps of a plain loop run before the event loop gets a turn: a few milliseconds. */
export const stepsAtOnce = 1 << 17;

/** Mixes every bit of a 32-bit word into every other (the finaliser of MurmurHash3). */
function mix(word: number): number {
  let mixed = word ^ (word >>> 16);
  mixed = Math.imul(mixed, 0x85ebca6b);
  mixed ^= mixed >>> 13;
  mixed = Math.imul(mixed, 0xc2b2ae35);
  return mixed ^ (mixed >>> 16);
}

/** xoshiro128** of Blackman and Vigna: uniform 32-bit words with a period of 2^128 - 1. */
export class RandomStream {
  private readonly state = new Uint32Array(4);

  /** @param words non-negative safe integers; any difference gives an unrelated stream */
  constructor(...words: readonly number[]) {
    for (let i = 0; i < 4; i++) {
      let hash = mix(0x9e3779b9 * (i + 1));
      for (const word of words)
        for (const half of [word | 0, Math.floor(word / 2 ** 32)])
          hash = (Math.imul(mix(hash ^ half), 5) + 0x52dce729) | 0;
      this.state[i] = mix(hash);
    }
    // The one state from which nothing ever comes.
    if (this.state.every((word) => word === 0)) this.state[0] = 1;
  }

  /** A uniform integer from 0 to 2^32 - 1. */
  private next(): number {
    const state = this.state;
    const a = state[0]!;
    const b = state[1]!;
    const c = state[2]!;
    const d = state[3]!;
    const scrambled = Math.imul(b, 5);
    const result = Math.imul((scrambled << 7) | (scrambled >>> 25), 9) >>> 0;
    state[0] = a ^ d ^ b;
    state[1] = b ^ c ^ a;
    state[2] = c ^ a ^ (b << 9);
    const turned = d ^ b;
    state[3] = (turned << 11) | (turned >>> 21);
    return result;
  }

  /** A number from 0 to below 1, uniform to 2^-53. */
  fraction(): number {
    return ((this.next() >>> 5) * 2 ** 26 + (this.next() >>> 6)) / 2 ** 53;
  }

  /** An integer from 0 to `count` - 1, uniform to within count / 2^53. */
  below(count: number): number {
    return Math.floor(this.fraction() * count);
  }

  /** A number from `low` to below `high`, uniform. */
  between(low: number, high: number): number {
    return low + (high - low) * this.fraction();
  }
}

/** A uniformly drawn permutation of 0 … `count` - 1 (Fisher and Yates); `count` below 2^32, four bytes each. */
export async function permutation(count: number, random: RandomStream): Promise<Uint32Array> {
  const order = new Uint32Array(count);
  for (let i = 0; i < count; i++) {
    if (i % stepsAtOnce === stepsAtOnce - 1) await setImmediate();
    const other = random.below(i + 1);
    order[i] = order[other]!;
    order[other] = i;
  }
  return order;
}
