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

/**
 * Largest difference, relative to the largest expected magnitude. Where few results are sums whose terms may all but
 * cancel, `terms` says of what size such sums are: rounding is relative to that.
 */
export function relativeError(actual: ArrayLike<number>, expected: ArrayLike<number>, terms = 0): number {
  let magnitude = terms;
  for (let i = 0; i < expected.length; i++) magnitude = Math.max(magnitude, Math.abs(expected[i] as number));
  const difference = largestDifference(actual, expected);
  return difference === 0 ? 0 : difference / magnitude;
}

/** The cosine of the angle between two vectors. */
export function cosine(a: ArrayLike<number>, b: ArrayLike<number>): number {
  expect(a.length).toBe(b.length);
  let [product, squareA, squareB] = [0, 0, 0];
  for (let i = 0; i < a.length; i++) {
    const [x, y] = [a[i] as number, b[i] as number];
    product += x * y;
    squareA += x * x;
    squareB += y * y;
  }
  return product / Math.sqrt(squareA * squareB);
}
