/** Rows scaled to unit length in float64, then rounded to float32. */
export function unitRows(rows: number, width: number, value: (index: number) => number): Float32Array {
  const result = new Float32Array(rows * width);
  for (let row = 0; row < rows; row++) {
    const values = Float64Array.from({ length: width }, (_, k) => value(row * width + k));
    const norm = Math.sqrt(values.reduce((sum, x) => sum + x * x, 0));
    for (let k = 0; k < width; k++) result[row * width + k] = (values[k] as number) / norm;
  }
  return result;
}
