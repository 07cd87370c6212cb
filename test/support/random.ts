/** Seeded random numbers for tests: the same on every machine, different for every seed. */
import { randomInt } from 'node:crypto';
import { beforeEach } from 'vitest';

/**
 * What the inputs of this run are drawn from. The same in every run, so that one commit passes or fails; another number, or
 * `random`, in SIGLIP2_TEST_SEED draws others (docs/development.md).
 */
export const runSeed = readSeed(process.env.SIGLIP2_TEST_SEED);

function readSeed(text = '2502'): number {
  const seed = text === 'random' ? randomInt(2 ** 31) : Number(text);
  if (!Number.isSafeInteger(seed) || seed < 0)
    throw new Error(`SIGLIP2_TEST_SEED must be a natural number or "random", not "${text}"`);
  return seed;
}

beforeEach(({ onTestFailed }) => {
  onTestFailed(({ task }) => {
    console.error(`"${task.name}" failed with SIGLIP2_TEST_SEED=${runSeed}`);
  });
});

export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** A number from 0 to 1 (mulberry32). */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  }

  /** An integer from `least` to `most`. */
  integer(least: number, most: number): number {
    return least + Math.floor(this.next() * (most - least + 1));
  }

  /** Roughly normal values. */
  floats(count: number, scale = 1): Float32Array {
    return Float32Array.from(
      { length: count },
      () => (this.next() + this.next() + this.next() + this.next() - 2) * 1.7 * scale,
    );
  }
}
