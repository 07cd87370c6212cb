// Pictures of one style, as somebody would search them: on white, with what they show.
import path from 'node:path';
import sharp from 'sharp';

/**
 * @typedef {object} Gallery
 * @property {string[]} keys one for each picture
 * @property {{ data: Uint8Array, width: number, height: number, channels: 3 }[]} images
 * @property {ReadonlySet<number>[]} same for each picture the pictures that look exactly like it, itself included
 */

/**
 * Reads the pictures of a style.
 *
 * @param {string} cache
 * @param {object} manifest pictures/manifest.json
 * @param {string} style
 * @returns {Promise<Gallery>}
 */
export async function openGallery(cache, manifest, style) {
  const { keys, identical } = manifest.styles[style];
  const images = [];
  for (const key of keys) {
    const file = path.join(cache, 'pictures', style, `${key}.png`);
    const { data, info } = await sharp(file)
      .flatten({ background: 'white' })
      .toColourspace('srgb')
      .raw()
      .toBuffer({ resolveWithObject: true });
    images.push({ data: new Uint8Array(data), width: info.width, height: info.height, channels: 3 });
  }
  const numbers = new Map(keys.map((key, number) => [key, number]));
  const same = keys.map((_, number) => new Set([number]));
  for (const group of identical) {
    const members = new Set(group.map((key) => numbers.get(key)));
    for (const member of members) same[member] = members;
  }
  return { keys, images, same };
}
