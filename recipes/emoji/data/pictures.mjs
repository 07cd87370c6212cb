/** Every drawing of every style as a small picture: `<cache>/pictures/<style>/<KEY>.png`, and `manifest.json` beside them. */
import { createHash } from 'node:crypto';
import path from 'node:path';
import sharp from 'sharp';
import { writeWhole, writeWholeFolder } from './cache.mjs';
import { emojibase } from './emoji.mjs';
import { redraw, redraws } from './redraw.mjs';
import { styles } from './styles.mjs';

/** Side of the pictures, in pixels. */
export const pictureSize = 96;

/** SVG is rendered in this many times the size that it ends with, cropped, and then made smaller. */
const oversampling = 4;

/** Fainter pixels do not count for the crop: the outermost of an antialiased edge. */
const faintestAlpha = 8;

const clear = { r: 255, g: 255, b: 255, alpha: 0 };

/**
 * A drawing as straight RGBA, fitted into a square with its aspect ratio kept, centred, on a transparent ground. Where
 * it is fully transparent the colour is white, so that a reader that drops alpha sees the drawing on white.
 *
 * @param {import('./styles.mjs').Drawing} drawing
 * @param {{ crop: boolean, size?: number }} options whether to cut to the box of what is not transparent first
 * @returns {Promise<Buffer>} size × size × 4 bytes, row by row
 */
export async function renderDrawing(drawing, { crop, size = pictureSize }) {
  let image = await pixelsOf(drawing, size * oversampling);
  if (crop) image = await cropToDrawing(image);
  const { data } = await raw(image)
    .resize(size, size, { fit: 'contain', background: clear, kernel: 'lanczos3' })
    .raw()
    .toBuffer({ resolveWithObject: true });
  for (let at = 0; at < data.length; at += 4) if (data[at + 3] === 0) data.fill(255, at, at + 3);
  return data;
}

/** A picture of raw RGBA as PNG. */
export function encodePng(data, size = pictureSize) {
  return raw({ data, info: { width: size, height: size } })
    .png({ compressionLevel: 9, adaptiveFiltering: true })
    .toBuffer();
}

function raw({ data, info }) {
  return sharp(data, { raw: { width: info.width, height: info.height, channels: 4 } });
}

async function pixelsOf(drawing, size) {
  return sourceOf(drawing, size).toColourspace('srgb').ensureAlpha().raw().toBuffer({ resolveWithObject: true });
}

function sourceOf(drawing, size) {
  // One unit of an SVG, and one point of a font, is one pixel at 72 dots an inch.
  if ('svg' in drawing)
    return sharp(Buffer.from(drawing.svg), { density: (72 * size) / drawing.size, unlimited: true });
  if ('file' in drawing) return sharp(drawing.file);
  const { characters: text, fontFile: fontfile, font } = drawing;
  return sharp({ text: { text, font: `${font} ${size}`, fontfile, rgba: true, dpi: 72 } });
}

/** The part within the smallest box that holds every pixel that is not (almost) transparent. */
async function cropToDrawing({ data, info: { width, height } }) {
  let [left, top, right, bottom] = [width, height, -1, -1];
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) {
      if (data[(y * width + x) * 4 + 3] < faintestAlpha) continue;
      left = Math.min(left, x);
      right = Math.max(right, x);
      top = Math.min(top, y);
      bottom = Math.max(bottom, y);
    }
  if (right < 0) throw new Error('the drawing is empty');
  return raw({ data, info: { width, height } })
    .extract({ left, top, width: right - left + 1, height: bottom - top + 1 })
    .raw()
    .toBuffer({ resolveWithObject: true });
}

/**
 * Groups of keys whose pictures have the same pixels, each of two or more, sorted.
 *
 * @param {Map<string, string>} digests of the pixels, by key
 * @returns {string[][]}
 */
export function identicalGroups(digests) {
  const groups = new Map();
  for (const key of [...digests.keys()].sort()) {
    const digest = digests.get(key);
    groups.set(digest, [...(groups.get(digest) ?? []), key]);
  }
  return [...groups.values()].filter((keys) => keys.length > 1);
}

/** The folder, and the name in the manifest, of a style drawn anew. */
export function redrawnStyle(style, time) {
  return `${style}-redrawn-${time}`;
}

/**
 * Renders every style: cropped to the drawing; those that are trained on also drawn anew several times
 * ({@link redrawnStyle}), those that are not also as they come (`<style>-uncropped`).
 *
 * @param {object} place
 * @param {string} place.modules `node_modules` of the packages
 * @param {string} place.cache
 * @param {Set<string>} place.keys the emoji to render
 * @param {(text: string) => void} [place.log] told about each folder that is complete
 * @returns {Promise<object>} the manifest
 */
export async function makePictures({ modules, cache, keys: wanted, log = () => {} }) {
  const folder = path.join(cache, 'pictures');
  const manifest = { size: pictureSize, emoji: wanted.size, styles: {} };
  const names = new Map(emojibase(modules).map(({ key, label }) => [key, label]));
  for (const [style, { open, vectors = open, ...facts }] of Object.entries(styles)) {
    const render = async (variant, drawings, { crop = true, identical }) => {
      const sorted = new Map([...drawings].filter(([key]) => wanted.has(key)).sort(([a], [b]) => (a < b ? -1 : 1)));
      const digests = await writeWholeFolder(path.join(folder, variant), (partial) =>
        renderAll(sorted, { crop, folder: partial }),
      );
      const groups = identical ?? identicalGroups(digests);
      const keys = [...digests.keys()].sort();
      manifest.styles[variant] = { ...facts, cropped: crop, count: keys.length, identical: groups, keys };
      log(`${variant}: ${keys.length} pictures, ${groups.length} groups of identical ones`);
      return groups;
    };
    const drawings = open(modules);
    const identical = await render(style, drawings, {});
    if (facts.use !== 'training') {
      await render(`${style}-uncropped`, drawings, { crop: false });
      continue;
    }
    if (vectors === null) continue;
    const lines = [...vectors(modules)].filter(([, drawing]) => 'svg' in drawing);
    for (let time = 1; time <= redraws; time++) {
      const variant = redrawnStyle(style, time);
      const drawn = lines.map(([key, drawing]) => [
        key,
        redraw(drawing, { time, name: names.get(key) ?? '', seed: `${variant}\n${key}` }),
      ]);
      // Drawings that were the same are as hard to tell apart when each is drawn anew.
      await render(variant, drawn, { identical });
    }
  }
  writeWhole(path.join(folder, 'manifest.json'), `${JSON.stringify(manifest, null, 2)}\n`);
  return manifest;
}

/** Pictures that are rendered at a time. */
const concurrency = 4;

async function renderAll(drawings, { crop, folder }) {
  const digests = new Map();
  const waiting = drawings.entries();
  const work = async () => {
    for (const [key, drawing] of waiting) {
      try {
        const pixels = await renderDrawing(drawing, { crop });
        writeWhole(path.join(folder, `${key}.png`), await encodePng(pixels));
        digests.set(key, createHash('sha256').update(pixels).digest('hex'));
      } catch (cause) {
        throw new Error(`${key} cannot be rendered for ${folder}: ${cause.message}`, { cause });
      }
    }
  };
  await Promise.all(Array.from({ length: concurrency }, work));
  return digests;
}
