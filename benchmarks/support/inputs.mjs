/** Random inputs of the towers, the same for every contestant. */
import { integers, normal } from './random.mjs';

/** Pictures of a fixed-resolution model, [images, 3, side, side], roughly in [-1, 1]. */
export function pixelInput(images, side, seed) {
  const shape = [images, 3, side, side];
  const pixelValues = normal(images * 3 * side * side, seed, 0, 0.5);
  return { kind: 'pixels', shape, arrays: { pixelValues } };
}

/** Texts, [texts, length]. Real ones end in padding, which costs the same: the tower computes every position. */
export function textInput(texts, length, vocabulary, seed) {
  return { kind: 'texts', shape: [texts, length], arrays: { inputIds: integers(texts * length, seed, vocabulary) } };
}

/**
 * NaFlex pictures, padded: each has its grid's patches and then zeros up to `padded`.
 * @param grids rows and columns of each picture; a picture's patches depend on its place, the seed and nothing else
 */
export function patchInput(grids, padded, patchSize, seed) {
  const patchValues = 3 * patchSize * patchSize;
  const patches = new Float32Array(grids.length * padded * patchValues);
  const mask = new Int32Array(grids.length * padded);
  const spatialShapes = Int32Array.from(grids.flat());
  grids.forEach(([rows, columns], i) => {
    const tokens = rows * columns;
    patches.set(normal(tokens * patchValues, seed * 65_536 + i, 0, 0.5), i * padded * patchValues);
    mask.fill(1, i * padded, i * padded + tokens);
  });
  return { kind: 'patches', shape: [grids.length, padded, patchValues], arrays: { patches, mask, spatialShapes } };
}
