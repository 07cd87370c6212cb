import { describe, expect, it } from 'vitest';
import { chance, rankOf, recalls } from '../../../recipes/emoji/evaluation/ranking.mjs';
import { Random, runSeed } from '../../support/random.js';

const random = new Random(runSeed);

describe('rankOf', () => {
  it('counts the wrong candidates above the best right one, and ties as above', () => {
    const scores = [3, 1, 2, 2, 0];
    const rank = (...right: number[]): number => rankOf(scores.length, (i: number) => scores[i]!, new Set(right));
    expect(rank(0)).toBe(0);
    expect(rank(1)).toBe(3);
    expect(rank(2)).toBe(2);
    expect(rank(2, 3)).toBe(1);
    expect(rank(0, 4)).toBe(0);
    expect(rank(4)).toBe(4);
  });

  it('agrees with sorting, on random scores with ties', () => {
    for (let trial = 0; trial < 200; trial++) {
      const count = random.integer(1, 12);
      const scores = Array.from({ length: count }, () => random.integer(0, 4));
      const right = new Set([random.integer(0, count - 1), random.integer(0, count - 1)]);
      // Wrong ones first among equals.
      const order = scores
        .map((_, i) => i)
        .sort((a, b) => scores[b]! - scores[a]! || Number(right.has(a)) - Number(right.has(b)));
      expect(rankOf(count, (i: number) => scores[i]!, right)).toBe(order.findIndex((i) => right.has(i)));
    }
  });

  it('puts a model that gives no numbers, or the same for everything, last', () => {
    expect(rankOf(7, () => Number.NaN, new Set([2]))).toBe(6);
    expect(rankOf(7, () => 0, new Set([2]))).toBe(6);
    expect(rankOf(3, (i: number) => [Number.NaN, 1, 0][i]!, new Set([1]))).toBe(1);
  });
});

it('recalls are shares of ranks below 1, 5 and 10', () => {
  expect(recalls([0, 0, 4, 5, 9, 10, 100, 3])).toEqual([2 / 8, 4 / 8, 6 / 8]);
});

describe('chance', () => {
  it('is k of n for one right answer', () => {
    const [first, fifth, tenth] = chance(50, [1, 1, 1]) as [number, number, number];
    expect(first).toBeCloseTo(1 / 50, 12);
    expect(fifth).toBeCloseTo(5 / 50, 12);
    expect(tenth).toBeCloseTo(10 / 50, 12);
  });

  it('is what counting all choices gives, for several right answers', () => {
    // Of 6 candidates 2 are right: 1 − C(4, 5)/C(6, 5) is 1, and 1 − 4/6 for one guess.
    const [first, fifth] = chance(6, [2]) as [number, number];
    expect(first).toBeCloseTo(1 / 3, 12);
    expect(fifth).toBe(1);
    // 1 − C(17, 5)/C(20, 5) = 1 − 6188/15504.
    expect((chance(20, [3]) as number[])[1]).toBeCloseTo(1 - 6188 / 15504, 12);
    expect((chance(20, [3, 20]) as number[])[1]).toBeCloseTo((1 - 6188 / 15504 + 1) / 2, 12);
  });
});
