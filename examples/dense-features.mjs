// Dense features: how much does every patch of a picture resemble the one in its middle?
import { fileURLToPath } from 'node:url';
import { Siglip2 } from 'siglip2';

const here = (name) => fileURLToPath(new URL(`../test/fixtures/${name}`, import.meta.url));
const model = await Siglip2.load(process.argv[2] ?? here('checkpoints/naflex_hd64'), { towers: ['vision'] });

const [features] = await model.denseFeatures(here('images/12_photo_chelsea_300x240.png'));
const [rows, columns, width] = features.shape;
const patch = (row, column) => {
  const start = (row * columns + column) * width;
  return features.data.subarray(start, start + width);
};
const cosine = (a, b) => {
  let product = 0;
  for (let i = 0; i < width; i++) product += a[i] * b[i];
  return product / (Math.hypot(...a) * Math.hypot(...b));
};

const middle = patch(rows >> 1, columns >> 1);
const shades = ' ·:-=+*#%@';
for (let row = 0; row < rows; row++) {
  let line = '';
  for (let column = 0; column < columns; column++) {
    const similarity = cosine(middle, patch(row, column));
    line += shades[Math.max(0, Math.min(9, Math.floor(similarity * 10)))].repeat(2);
  }
  console.log(line);
}
model.dispose();
