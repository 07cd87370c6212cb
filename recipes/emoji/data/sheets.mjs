/** Contact sheets, to check by eye that keys and drawings belong together: `<cache>/sheets/*.png`. */
import { existsSync, mkdirSync, renameSync } from 'node:fs';
import path from 'node:path';
import sharp from 'sharp';
import { readMade } from './cache.mjs';
import { pictureSize } from './pictures.mjs';
import { randomIntegers, shuffled } from './random.mjs';
import { styles as styleDefinitions } from './styles.mjs';

const columns = 20;
const picturesOfStyle = 200;
const keysOfComparison = 25;

/**
 * Draws a sheet of 200 pictures of each style, in the order of keys, and one on which each of 25 keys has a row with its
 * pictures in all styles.
 *
 * @param {object} place
 * @param {string} place.cache with pictures
 * @param {string} place.seed decides which pictures
 * @param {string[]} [place.keys] those that are compared, instead of random ones
 * @returns {Promise<{ files: string[], compared: string[], styles: string[] }>} the sheets; keys and styles compared, in
 *   the order of rows and columns
 */
export async function makeSheets({ cache, seed, keys }) {
  const { styles } = readMade(path.join(cache, 'pictures', 'manifest.json'), 'pictures');
  const names = Object.keys(styles);
  // Without those that only show the same drawings once more.
  const drawnStyles = Object.keys(styleDefinitions);
  const pictureOf = (style, key) => path.join(cache, 'pictures', style, `${key}.png`);
  const folder = path.join(cache, 'sheets');
  mkdirSync(folder, { recursive: true });
  const files = [];
  for (const name of names) {
    const drawn = shuffled(styles[name].keys, randomIntegers(`${seed}\n${name}`))
      .slice(0, picturesOfStyle)
      .sort();
    const file = path.join(folder, `${name}.png`);
    await drawSheet(
      file,
      drawn.map((key) => pictureOf(name, key)),
      columns,
    );
    files.push(file);
  }
  const everywhere = styles.noto.keys.filter(
    (key) => drawnStyles.filter((name) => styles[name].keys.includes(key)).length > 4,
  );
  const compared = keys ?? shuffled(everywhere, randomIntegers(seed)).slice(0, keysOfComparison).sort();
  const file = path.join(folder, 'compared.png');
  await drawSheet(
    file,
    compared.flatMap((key) => names.map((name) => pictureOf(name, key))),
    names.length,
  );
  return { files: [...files, file], compared, styles: names };
}

/** Draws pictures row by row on light grey; where a file is missing, the place stays empty. */
async function drawSheet(file, pictures, width) {
  const rows = Math.ceil(pictures.length / width);
  const partial = `${file}.partial`;
  await sharp({
    create: { width: width * pictureSize, height: rows * pictureSize, channels: 3, background: '#e8e8e8' },
  })
    .composite(
      pictures
        .map((input, at) => ({
          input,
          left: (at % width) * pictureSize,
          top: Math.floor(at / width) * pictureSize,
        }))
        .filter(({ input }) => existsSync(input)),
    )
    .png()
    .toFile(partial);
  renameSync(partial, file);
}
