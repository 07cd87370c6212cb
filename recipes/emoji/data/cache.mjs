/** Where the recipe keeps what it installs and makes, and how files get there whole. */
import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

/**
 * The folder of everything that is made: `SIGLIP2_EMOJI_CACHE`, or `.cache` beside the recipe's README.
 *
 * @returns {string} an absolute path
 */
export function cacheFolder() {
  const chosen = process.env.SIGLIP2_EMOJI_CACHE;
  return chosen ? path.resolve(chosen) : fileURLToPath(new URL('../.cache', import.meta.url));
}

/**
 * Writes a file under a temporary name and renames it, so that no reader sees half of it. Makes its folder.
 *
 * @param {string} file
 * @param {string | Uint8Array} content
 */
export function writeWhole(file, content) {
  mkdirSync(path.dirname(file), { recursive: true });
  const partial = `${file}.partial`;
  writeFileSync(partial, content);
  renameSync(partial, file);
}

/**
 * Fills a folder under a temporary name; it takes the place of an older one when it is complete.
 *
 * @template T
 * @param {string} folder
 * @param {(partial: string) => Promise<T>} fill gets the temporary folder, which is empty
 * @returns {Promise<T>} what `fill` returned
 */
export async function writeWholeFolder(folder, fill) {
  const partial = `${folder}.partial`;
  rmSync(partial, { recursive: true, force: true });
  mkdirSync(partial, { recursive: true });
  const result = await fill(partial);
  rmSync(folder, { recursive: true, force: true });
  renameSync(partial, folder);
  return result;
}

/**
 * The content of a JSON file that an earlier part made.
 *
 * @param {string} file
 * @param {string} part the part of make.mjs that makes it
 * @returns {any}
 */
export function readMade(file, part) {
  let text;
  try {
    text = readFileSync(file, 'utf8');
  } catch (cause) {
    throw new Error(`${file} cannot be read; "npm run data:emoji -- ${part}" makes it`, { cause });
  }
  return JSON.parse(text);
}
