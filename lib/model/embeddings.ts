import { types } from 'node:util';
import { describe, wrongRange, wrongType } from '../arguments.js';

/** Rows of one width in one contiguous array. */
export interface Embeddings {
  /** Row-major values. */
  readonly data: Float32Array;
  readonly shape: [rows: number, dim: number];
  /** Row `i` as a view, not a copy. */
  row(i: number): Float32Array;
}

/** {@link Embeddings} over a typed array. */
export class EmbeddingMatrix implements Embeddings {
  readonly shape: [rows: number, dim: number];

  constructor(
    readonly data: Float32Array,
    dim: number,
  ) {
    this.shape = [dim === 0 ? 0 : data.length / dim, dim];
  }

  row(i: number): Float32Array {
    const [rows, dim] = this.shape;
    if (!Number.isInteger(i) || i < 0 || i >= rows)
      throw wrongRange('i', rows === 0 ? 'no row, because there are none' : `a row from 0 to ${rows - 1}`, i);
    return this.data.subarray(i * dim, (i + 1) * dim);
  }
}

/** Joins the rows of several results. */
export function joinEmbeddings(parts: Float32Array[], dim: number): EmbeddingMatrix {
  if (parts.length === 1) return new EmbeddingMatrix(parts[0] as Float32Array, dim);
  const data = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    data.set(part, offset);
    offset += part.length;
  }
  return new EmbeddingMatrix(data, dim);
}

/** Requires an embeddings object whose data fill its shape. */
export function requireEmbeddings(argument: string, value: unknown): Embeddings {
  if (typeof value !== 'object' || value === null) throw wrongType(argument, 'embeddings { data, shape }', value);
  const { data, shape } = value as Embeddings;
  if (!types.isFloat32Array(data)) throw wrongType(`${argument}.data`, 'a Float32Array', data);
  if (!Array.isArray(shape) || shape.length !== 2 || shape[0] * shape[1] !== data.length)
    throw wrongRange(
      `${argument}.shape`,
      `[rows, dim] of ${data.length} values`,
      Array.isArray(shape) ? `[${shape.join(', ')}]` : describe(shape),
    );
  return value as Embeddings;
}
