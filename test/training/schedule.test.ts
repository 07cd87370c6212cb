import { describe, expect, it } from 'vitest';
import { checkSchedule, type Schedule, scheduleFactor } from '../../lib/training/schedule.js';

const factors = (schedule: Schedule, steps: number[]): number[] => steps.map((step) => scheduleFactor(schedule, step));
/** Numbers that may differ in the last digits of double precision. */
const close = (actual: number[], expected: number[]): void => {
  expect(actual.length).toBe(expected.length);
  actual.forEach((value, i) => {
    expect(Math.abs(value - (expected[i] as number)), `entry ${i}: ${value}`).toBeLessThan(1e-14);
  });
};

describe('scheduleFactor', () => {
  it('is 1 all along without a warm-up, and rises to it with one', () => {
    expect(factors({ name: 'constant' }, [0, 1, 1e9])).toEqual([1, 1, 1]);
    expect(factors({ name: 'constant', warmupSteps: 4 }, [0, 1, 2, 3, 4, 5, 1e9])).toEqual([
      0, 0.25, 0.5, 0.75, 1, 1, 1,
    ]);
  });

  it('falls as half a cosine after the warm-up', () => {
    const schedule = { name: 'cosine', warmupSteps: 10, totalSteps: 22 } as const;
    // cos² of half the angle, at twelfths of π.
    const half = (twelfths: number): number => Math.cos((twelfths * Math.PI) / 24) ** 2;
    close(factors(schedule, [0, 5, 9]), [0, 0.5, 0.9]);
    close(factors(schedule, [10, 11, 13, 16, 18, 21]), [1, half(1), half(3), 0.5, 0.25, half(11)]);
    expect(factors(schedule, [22, 23, 1e9])).toEqual([0, 0, 0]);
    close(factors({ name: 'cosine', totalSteps: 2 }, [0, 1, 2]), [1, 0.5, 0]);
  });

  it('stretches the end of a cosine schedule', () => {
    const base = { warmupSteps: 20, totalSteps: 1000 };
    const original = (step: number): number => scheduleFactor({ name: 'cosine', ...base }, step);
    // Progress u from 0 to 1 over 0.1 · 1000 · 3.75 = 375 steps is original progress 0.9 + 0.1 u.
    const stretched: Schedule = { name: 'stretched', base };
    const steps = [0, 1, 100, 187.5, 374, 375];
    close(
      factors(stretched, steps),
      steps.map((step) => original(1000 * (0.9 + 0.1 * (step / 375)))),
    );
    expect(scheduleFactor(stretched, 0)).toBeCloseTo(original(900), 12);
    expect(scheduleFactor(stretched, 374)).toBeGreaterThan(0);
    close(factors(stretched, [375, 376, 1e6]), [0, 0, 0]);
    close(factors({ name: 'stretched', base, from: 0.5, stretch: 1 }, [0, 7, 400]), [500, 507, 900].map(original));
    // Warm-up and all.
    close(factors({ name: 'stretched', base, from: 0, stretch: 2 }, [0, 20, 40, 80]), [0, 10, 20, 40].map(original));
  });

  it('takes what a function says', () => {
    const asked: number[] = [];
    const schedule = (step: number): number => {
      asked.push(step);
      return step * 2;
    };
    expect(factors(checkSchedule('options.schedule', schedule), [0, 3])).toEqual([0, 6]);
    expect(asked).toEqual([0, 3]);
  });

  it.each([
    [Number.NaN, RangeError],
    [Number.POSITIVE_INFINITY, RangeError],
    [-0.1, RangeError],
    ['1', TypeError],
    [undefined, TypeError],
  ])('refuses %s from a function', (value, type) => {
    const call = (): number => scheduleFactor((() => value) as () => number, 7);
    expect(call).toThrow(type);
    expect(call).toThrow(/options\.schedule\(7\).*at least 0, got/);
  });
});

describe('checkSchedule', () => {
  it('returns what it was given', () => {
    for (const schedule of [
      { name: 'constant' },
      { name: 'constant', warmupSteps: 0 },
      { name: 'constant', totalSteps: 5 },
      { name: 'cosine', totalSteps: 1 },
      { name: 'cosine', warmupSteps: 9, totalSteps: 10 },
      { name: 'stretched', base: { totalSteps: 10 }, from: 0, stretch: 0.5 },
      { name: 'stretched', base: { warmupSteps: 1, totalSteps: 10 } },
    ])
      expect(checkSchedule('options.schedule', schedule)).toBe(schedule);
  });

  it.each([
    [undefined, TypeError, /^options\.schedule: .*got undefined/],
    [null, TypeError, /^options\.schedule: .*got null/],
    ['cosine', TypeError, /^options\.schedule: .*"cosine"/],
    [{}, TypeError, /^options\.schedule\.name: .*undefined/],
    [{ name: 'linear' }, RangeError, /^options\.schedule\.name: .*"linear"/],
    [{ name: 'constant', steps: 5 }, RangeError, /^options\.schedule\.steps: /],
    [{ name: 'constant', warmupSteps: -1 }, RangeError, /^options\.schedule\.warmupSteps: .*-1/],
    [{ name: 'cosine' }, TypeError, /^options\.schedule\.totalSteps: .*undefined/],
    [{ name: 'cosine', totalSteps: 0 }, RangeError, /^options\.schedule\.totalSteps: .*got 0/],
    [{ name: 'cosine', totalSteps: 10.5 }, RangeError, /^options\.schedule\.totalSteps: .*10\.5/],
    [{ name: 'cosine', warmupSteps: 10, totalSteps: 10 }, RangeError, /totalSteps: .*warmupSteps, which is 10, got 10/],
    [{ name: 'cosine', totalSteps: 10, warmUpSteps: 1 }, RangeError, /^options\.schedule\.warmUpSteps: /],
    [{ name: 'stretched' }, TypeError, /^options\.schedule\.base: /],
    [{ name: 'stretched', base: 5 }, TypeError, /^options\.schedule\.base: /],
    [{ name: 'stretched', base: {} }, TypeError, /^options\.schedule\.base\.totalSteps: /],
    [{ name: 'stretched', base: { totalSteps: 9 }, from: 1 }, RangeError, /^options\.schedule\.from: .*got 1/],
    [{ name: 'stretched', base: { totalSteps: 9 }, from: '0' }, TypeError, /^options\.schedule\.from: /],
    [{ name: 'stretched', base: { totalSteps: 9 }, stretch: 0 }, RangeError, /^options\.schedule\.stretch: .*got 0/],
    [{ name: 'stretched', base: { totalSteps: 9 }, stretch: Number.NaN }, RangeError, /stretch: .*NaN/],
    [{ name: 'stretched', base: { totalSteps: 9, name: 'cosine' } }, RangeError, /^options\.schedule\.base\.name: /],
  ])('refuses %j', (schedule, type, message) => {
    const call = (): Schedule => checkSchedule('options.schedule', schedule);
    expect(call).toThrow(type);
    expect(call).toThrow(message);
  });
});
