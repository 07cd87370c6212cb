/** Comparisons that a NaN cannot pass. */
import { expect } from 'vitest';

/** Largest absolute difference of two arrays of one length. */
export function largestDifference(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  expect(actual.length).toBe(expected.length);
  let largest = 0;
  for (let i = 0; i < expected.length; i++) {
    const difference = Math.abs((actual[i] as number) - (expected[i] as number));
    // Math.max keeps a NaN.
    largest = Math.max(largest, difference);
  }
  return largest;
}

/** Whether two arrays are the same to the bit; on large ones much faster than `toEqual`. */
export function sameBits(actual: Float32Array, expected: Float32Array): boolean {
  const bytes = ({ buffer, byteOffset, byteLength }: Float32Array) => Buffer.from(buffer, byteOffset, byteLength);
  return bytes(actual).equals(bytes(expected));
}

/** Largest difference, relative to the largest expected magnitude. */
export function relativeError(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  let magnitude = 0;
  for (let i = 0; i < expected.length; i++) magnitude = Math.max(magnitude, Math.abs(expected[i] as number));
  const difference = largestDifference(actual, expected);
  return difference === 0 ? 0 : difference / magnitude;
}

/**
 * As `relativeError`, of results that are rounded: only what goes beyond `rounding` times the expected value counts.
 */
export function errorBeyondRounding(actual: ArrayLike<number>, expected: ArrayLike<number>, rounding: number): number {
  expect(actual.length).toBe(expected.length);
  let [largest, magnitude] = [0, 0];
  for (let i = 0; i < expected.length; i++) {
    const size = Math.abs(expected[i] as number);
    magnitude = Math.max(magnitude, size);
    largest = Math.max(largest, Math.abs((actual[i] as number) - (expected[i] as number)) - rounding * size);
  }
  return largest <= 0 ? 0 : largest / magnitude;
}
