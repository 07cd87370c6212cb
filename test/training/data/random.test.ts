import { describe, expect, it } from 'vitest';
import { permutation, RandomStream, stepsAtOnce } from '../../../lib/training/data/random.js';
import { ShuffleBuffer } from '../../../lib/training/data/shuffle-buffer.js';

const draws = (words: number[], count: number, below: number): number[] => {
  const random = new RandomStream(...words);
  return Array.from({ length: count }, () => random.below(below));
};

/** Pearson's statistic of counts that should all be equal. */
function chiSquared(counts: readonly number[]): number {
  const expected = counts.reduce((a, b) => a + b) / counts.length;
  return counts.reduce((sum, count) => sum + (count - expected) ** 2 / expected, 0);
}

describe('RandomStream', () => {
  it('gives the same numbers for the same words and others for any others', () => {
    const first = draws([1, 2], 20, 2 ** 32);
    expect(draws([1, 2], 20, 2 ** 32)).toEqual(first);
    for (const words of [[], [1], [2, 1], [1, 2, 0], [0, 1, 2], [1 + 2 ** 32, 2], [2 ** 53 - 1, 2]])
      expect(draws(words, 20, 2 ** 32)).not.toEqual(first);
  });

  it('never changes its numbers, which stored positions depend on', () => {
    expect(draws([1, 2, 3], 5, 1_000_000)).toEqual([820277, 678879, 386271, 198693, 475552]);
  });

  it('is uniform within a stream and across the first numbers of neighbouring streams', () => {
    const within = new Array<number>(100).fill(0);
    for (const value of draws([9], 100_000, 100)) within[value]!++;
    const across = new Array<number>(100).fill(0);
    for (let epoch = 0; epoch < 100_000; epoch++) across[new RandomStream(0, 3, epoch).below(100)]!++;
    // 99 degrees of freedom: 99 ± 14 each.
    expect(chiSquared(within)).toBeLessThan(170);
    expect(chiSquared(across)).toBeLessThan(170);
  });
});

describe('permutation', () => {
  it.each([0, 1, 2, 3, 97, stepsAtOnce + 5])('of %i has every number once', async (count) => {
    const order = await permutation(count, new RandomStream(4));
    expect(order.length).toBe(count);
    expect(order.toSorted().every((value, i) => value === i)).toBe(true);
  });

  it('draws every permutation equally often', async () => {
    const counts = new Map<string, number>();
    for (let i = 0; i < 24_000; i++) {
      const key = (await permutation(4, new RandomStream(i))).join();
      counts.set(key, (counts.get(key) ?? 0) + 1);
    }
    expect(counts.size).toBe(24);
    // 23 degrees of freedom: 23 ± 7.
    expect(chiSquared([...counts.values()])).toBeLessThan(60);
  });
});

it('a shuffle buffer gives back everything once, whatever the order of calls', () => {
  const buffer = new ShuffleBuffer<number>(new RandomStream(1), [0, 1, 2, 3]);
  const out: number[] = [];
  for (let i = 4; i < 100; i++) out.push(buffer.exchange(i));
  while (buffer.slots.length > 0) out.push(buffer.take());
  expect(out.toSorted((a, b) => a - b)).toEqual(Array.from({ length: 100 }, (_, i) => i));
});
