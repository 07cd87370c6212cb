/** Made-up model inputs for tests that compare runs with each other. */
import type { Siglip2Config, VisionForwardInput } from '../../lib/index.js';
import { hash, pixel } from './golden.js';

/** `count` pixel values from [-1, 1). */
export function randomPixels(count: number, seed: number): Float32Array {
  return Float32Array.from({ length: count }, (_, i) => pixel(hash(i, seed)));
}

/** Input of the vision tower: image i depends on `seeds[i]` alone. NaFlex images have the given grids in turn. */
export function visionInput(
  config: Siglip2Config,
  seeds: readonly number[],
  grids: readonly [number, number][] = [[4, 4]],
): VisionForwardInput {
  const { patchSize, imageSize = 0 } = config.vision;
  if (config.architecture === 'fixed') {
    const images = seeds.map((seed) => randomPixels(3 * imageSize ** 2, seed));
    return { pixelValues: join(images), shape: [seeds.length, 3, imageSize, imageSize] };
  }
  const patchDim = 3 * patchSize ** 2;
  const chosen = seeds.map((_, i) => grids[i % grids.length] as [number, number]);
  const padded = Math.max(...chosen.map(([rows, columns]) => rows * columns));
  const mask = new Int32Array(seeds.length * padded);
  const images = seeds.map((seed, i) => {
    const [rows, columns] = chosen[i] as [number, number];
    mask.fill(1, i * padded, i * padded + rows * columns);
    const patches = new Float32Array(padded * patchDim);
    patches.set(randomPixels(rows * columns * patchDim, seed));
    return patches;
  });
  return {
    patches: join(images),
    shape: [seeds.length, padded, patchDim],
    mask,
    spatialShapes: Int32Array.from(chosen.flat()),
  };
}

/** Token ids of texts: text i depends on `seeds[i]` alone. */
export function textInput(config: Siglip2Config, seeds: readonly number[]): [Int32Array, [number, number]] {
  const { maxPositionEmbeddings: length, vocabSize } = config.text;
  const ids = seeds.flatMap((seed) => Array.from({ length }, (_, i) => hash(i, seed) % vocabSize));
  return [Int32Array.from(ids), [seeds.length, length]];
}

function join(parts: readonly Float32Array[]): Float32Array {
  const joined = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    joined.set(part, offset);
    offset += part.length;
  }
  return joined;
}
