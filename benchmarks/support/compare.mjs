/** The correctness gate: nothing is timed, and no result is written, until outputs agree. */

/** How far outputs of contestants that compute in a type may lie apart: see compareRows. */
const bounds = {
  float32: { difference: 1e-3, cosine: 1e-6 },
  // Each contestant rounds where it likes; some stay in float32.
  bfloat16: { difference: 0.15, cosine: 5e-4 },
  // The type of this package alone.
  int8: { difference: 0.5, cosine: 5e-3 },
};

/** @throws RangeError for types that the benchmarks of models do not know */
export function boundsOf(dtype) {
  if (!(dtype in bounds)) throw new RangeError(`--dtype: expected ${Object.keys(bounds).join(', ')}, got ${dtype}`);
  return bounds[dtype];
}

/**
 * Compares rows of two outputs.
 * @param actual, expected [rows, width] row-major
 * @param bounds by default those of float32; `difference`: largest difference of an element, relative to the expected row's root mean square;
 *   `cosine`: how far below 1 a row's cosine may lie
 * @returns a check for a result: `{ name, passed, detail }`
 */
export function compareRows(name, actual, expected, width, { difference: most, cosine: below } = bounds.float32) {
  if (actual.length !== expected.length || expected.length === 0 || expected.length % width !== 0)
    return { name, passed: false, detail: `${actual.length} values against ${expected.length}` };
  let difference = 0;
  let cosine = 1;
  for (let start = 0; start < expected.length; start += width) {
    let [largest, aa, ee, ae] = [0, 0, 0, 0];
    for (let i = start; i < start + width; i++) {
      const [a, e] = [actual[i], expected[i]];
      largest = Math.max(largest, Math.abs(a - e)); // stays not-a-number once it is
      aa += a * a;
      ee += e * e;
      ae += a * e;
    }
    difference = Math.max(difference, largest / Math.sqrt(ee / width));
    cosine = Math.min(cosine, ae / Math.sqrt(aa * ee));
  }
  return {
    name,
    passed: difference <= most && 1 - cosine <= below,
    detail: `largest difference ${difference.toExponential(1)} of the root mean square, least cosine ${cosine.toFixed(9)}`,
  };
}

/** Checks that two outputs are the same to the bit. */
export function identical(name, actual, expected) {
  const passed = actual.length === expected.length && actual.every((value, i) => Object.is(value, expected[i]));
  return { name, passed, detail: passed ? 'identical' : 'they differ' };
}

/** Checks that rows depend on their input: equal rows would pass every comparison of wrong code with wrong code. */
export function distinctRows(name, rows, width) {
  let closest = Infinity;
  for (let left = 0; left < rows.length; left += width)
    for (let right = left + width; right < rows.length; right += width) {
      let [distance, size] = [0, 0];
      for (let i = 0; i < width; i++) {
        distance += (rows[left + i] - rows[right + i]) ** 2;
        size += rows[left + i] ** 2;
      }
      closest = Math.min(closest, Math.sqrt(distance / size));
    }
  return { name, passed: closest > 1e-2, detail: `closest rows are ${closest.toFixed(3)} of their length apart` };
}

/** @throws Error naming the checks that failed */
export function requirePassed(checks) {
  const failed = checks.filter(({ passed }) => !passed);
  if (failed.length > 0)
    throw new Error(
      `outputs are wrong, nothing is measured:\n${failed.map((c) => `  ${c.name}: ${c.detail}`).join('\n')}`,
    );
}
