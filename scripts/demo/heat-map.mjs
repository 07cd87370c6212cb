/** Similarity of the patches of a picture to one of them, as a picture. */
import sharp from 'sharp';

/**
 * Cosines of the features of every patch with those of one, after the mean of all is taken off: what all patches of a
 * picture have in common tells nothing of any of them.
 * @param {{ data: Float32Array, shape: [rows: number, columns: number, width: number] }} features of `denseFeatures`
 * @param {{ x: number, y: number }} spot parts of the picture's width and height
 * @returns {{ rows: number, columns: number, values: Float32Array, row: number, column: number }} values from -1 to 1
 */
export function similarityToPatch({ data, shape }, { x, y }) {
  const [rows, columns, width] = shape;
  const count = rows * columns;
  const mean = new Float64Array(width);
  for (let i = 0; i < data.length; i++) mean[i % width] += data[i] / count;
  const patch = (index) => data.subarray(index * width, (index + 1) * width).map((value, i) => value - mean[i]);
  const [row, column] = [Math.floor(y * rows), Math.floor(x * columns)];
  const chosen = patch(row * columns + column);
  const values = Float32Array.from({ length: count }, (_, index) => {
    const other = patch(index);
    let product = 0;
    for (let i = 0; i < width; i++) product += chosen[i] * other[i];
    return product / (Math.hypot(...chosen) * Math.hypot(...other));
  });
  return { rows, columns, values, row, column };
}

/** Colours from cold to hot, at equal distances. */
const colours = [
  [32, 24, 96],
  [60, 60, 190],
  [40, 160, 190],
  [120, 205, 110],
  [250, 215, 60],
  [240, 110, 40],
  [190, 20, 40],
];

function colourOf(value) {
  const place = Math.min(Math.max(value, 0), 1) * (colours.length - 1);
  const index = Math.min(Math.floor(place), colours.length - 2);
  return colours[index].map((from, i) => from + (colours[index + 1][i] - from) * (place - index));
}

/**
 * The picture in grey with the similarities over it: enlarged smoothly, from cold (the least similar patch, or 0) to
 * hot (1).
 * @param {string} picture
 * @param {ReturnType<typeof similarityToPatch>} similarity
 * @param {number} size width and height of the result
 * @returns {Promise<Buffer>} PNG
 */
export async function drawHeatMap(picture, { rows, columns, values }, size) {
  const least = Math.min(...values, 0);
  const levels = Uint8Array.from(values, (value) => Math.round((255 * (value - least)) / (1 - least)));
  const smooth = await sharp(levels, { raw: { width: columns, height: rows, channels: 1 } })
    .resize(size, size, { fit: 'fill', kernel: 'cubic' })
    .extractChannel(0)
    .raw()
    .toBuffer();
  const grey = await sharp(picture).resize(size, size).removeAlpha().greyscale().extractChannel(0).raw().toBuffer();
  const pixels = Buffer.alloc(3 * size * size);
  for (let i = 0; i < size * size; i++) {
    const colour = colourOf(smooth[i] / 255);
    for (let channel = 0; channel < 3; channel++) pixels[3 * i + channel] = 0.35 * grey[i] + 0.65 * colour[channel];
  }
  return sharp(pixels, { raw: { width: size, height: size, channels: 3 } })
    .png()
    .toBuffer();
}
