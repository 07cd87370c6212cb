// The nearest neighbour that a model has to beat: it compares pixels, and is told every name.
//
// It knows which trained pictures a name belongs to, in all languages, so that nothing is asked of its understanding of
// words; pictures are cropped to what is drawn, as those of training are. An emoji is as near as the nearest of its trained drawings.
import path from 'node:path';
import sharp from 'sharp';
import { linear, Tensor } from '../../../dist/esm/kernels/index.js';

/** Side of the pictures that are compared, in pixels. */
const side = 24;

/** Pixels of pictures on white as rows of numbers from 0 to 1. */
async function pixelRows(cache, style, keys) {
  const rows = new Float32Array(keys.length * side * side * 3);
  for (const [number, key] of keys.entries()) {
    const data = await sharp(path.join(cache, 'pictures', style, `${key}.png`))
      .flatten({ background: 'white' })
      .resize(side, side)
      .toColourspace('srgb')
      .raw()
      .toBuffer();
    rows.set(
      Float32Array.from(data, (value) => value / 255),
      number * side * side * 3,
    );
  }
  return rows;
}

/**
 * How near every picture of a style is to every trained emoji.
 *
 * @param {string} cache
 * @param {object} manifest pictures/manifest.json
 * @param {string} style a cropped one
 * @param {string[]} keys of the pictures
 * @param {string[]} trained styles
 * @returns {Promise<{ keys: string[], nearness: (picture: number, emoji: number) => number }>} the trained emoji, and
 *   minus the squared distance
 */
export async function pixelNeighbour(cache, manifest, style, keys, trained) {
  const pictures = await pixelRows(cache, style, keys);
  const depth = side * side * 3;
  const emoji = [...new Set(trained.flatMap((name) => manifest.styles[name].keys))].sort();
  const numbers = new Map(emoji.map((key, number) => [key, number]));
  const nearness = new Float32Array(keys.length * emoji.length).fill(Number.NEGATIVE_INFINITY);
  const lengths = squaredLengths(pictures, depth);
  for (const name of trained) {
    const known = manifest.styles[name].keys;
    const rows = await pixelRows(cache, name, known);
    const knownLengths = squaredLengths(rows, depth);
    const products = await allProducts(pictures, rows, depth);
    known.forEach((key, column) => {
      const number = numbers.get(key);
      for (let picture = 0; picture < keys.length; picture++) {
        const near = 2 * products[picture * known.length + column] - lengths[picture] - knownLengths[column];
        const at = picture * emoji.length + number;
        if (near > nearness[at]) nearness[at] = near;
      }
    });
  }
  return { keys: emoji, nearness: (picture, number) => nearness[picture * emoji.length + number] };
}

/** Products of every row of one matrix with every row of the other. */
async function allProducts(left, right, depth) {
  const input = Tensor.from(left, [left.length / depth, depth]);
  const weight = Tensor.from(right, [right.length / depth, depth]);
  const { output } = await linear({ input, weight });
  try {
    return await output.read();
  } finally {
    for (const tensor of [input, weight, output]) tensor.dispose();
  }
}

function squaredLengths(rows, depth) {
  return Float32Array.from({ length: rows.length / depth }, (_, row) => {
    let sum = 0;
    for (let i = row * depth; i < (row + 1) * depth; i++) sum += rows[i] * rows[i];
    return sum;
  });
}
