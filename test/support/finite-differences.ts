/** Gradients by central differences, in double precision: what analytic gradients are checked against. */

/**
 * The gradient of `loss` with respect to every element of `values`, which is changed during the calls and put back. With
 * a function of size 1 the error is about 1e-10, so that float32 results are compared at their own precision.
 */
export function centralDifferences(loss: () => number, values: Float64Array, step = 1e-5): Float64Array {
  return values.map((value, i) => {
    values[i] = value + step;
    const above = loss();
    values[i] = value - step;
    const below = loss();
    values[i] = value;
    return (above - below) / (2 * step);
  });
}
