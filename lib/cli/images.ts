/** Images named on the command line: finding them, and embedding them so that one bad file spoils nothing. */
import type { Dirent } from 'node:fs';
import { readdir, stat } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import path from 'node:path';
import { SiglipError } from '../errors.js';
import type { Siglip2 } from '../model/siglip2.js';
import { decodeImage, type RawImage } from '../processing/decode.js';
import { inFlags, systemReason, UsageError } from './errors.js';

/** What is taken from folders. */
export const imageExtensions = ['jpg', 'jpeg', 'png', 'webp', 'gif', 'tif', 'tiff', 'avif'];

/** A image to be read. */
export interface ImageFile {
  /** As the user knows it: as given, or the given folder and the way from there. */
  path: string;
  /** Absolute path, or URL. */
  source: string;
  /** Of a folder that could not be searched: why. */
  problem?: string;
}

/** What became of an image: an embedding, or the reason why there is none. */
export type ImageResult =
  | { path: string; embedding: Float32Array; error?: undefined }
  | { path: string; error: { code: string; message: string } };

/** Options of {@link embedFiles}. */
export interface EmbedFilesOptions {
  batchSize: number;
  normalize?: boolean;
  maxPatches?: number;
  maxPixels?: number;
  signal: AbortSignal;
}

/** A image as it was named, without looking at it. */
export function imageFile(location: string): ImageFile {
  const isUrl = /^(?:data|file):|^[a-z][a-z\d+.-]+:\/\//i.test(location);
  return { path: location, source: isUrl ? location : path.resolve(location) };
}

/**
 * The images that are meant: files and URLs as given, even ones that do not exist, and of folders the files with the
 * extension of an image in the order of their names, without hidden ones. Links to folders are not followed.
 */
export async function findImages(locations: readonly string[], recursive: boolean): Promise<ImageFile[]> {
  const found: ImageFile[] = [];
  for (const location of locations) {
    const file = imageFile(location);
    const isFolder = await stat(file.source).then(
      (entry) => entry.isDirectory(),
      () => false,
    );
    if (isFolder) await searchFolder(location, recursive, found);
    else found.push(file);
  }
  if (found.length === 0)
    throw new UsageError(
      `no images in ${locations.join(', ')} (searched for ${imageExtensions.join(', ')})`,
      recursive ? 'name another folder' : 'name another folder, or add --recursive to search the folders in it',
    );
  return found;
}

async function searchFolder(folder: string, recursive: boolean, found: ImageFile[]): Promise<void> {
  let entries: Dirent[];
  try {
    entries = await readdir(folder, { withFileTypes: true });
  } catch (error) {
    // Reported in its place among the images, as if it was one that cannot be read.
    found.push({ path: folder, source: folder, problem: systemReason((error as Error).message) });
    return;
  }
  entries.sort((a, b) => (a.name < b.name ? -1 : 1));
  for (const entry of entries) {
    if (entry.name.startsWith('.')) continue;
    const location = path.join(folder, entry.name);
    if (entry.isDirectory()) {
      if (recursive) await searchFolder(location, recursive, found);
    } else if (imageExtensions.includes(path.extname(entry.name).slice(1).toLowerCase())) {
      found.push({ path: location, source: path.resolve(location) });
    }
  }
}

/**
 * Embeds images batch by batch, in their order. The next batch is decoded while the model works. Images that cannot
 * be read, or whose embedding is not finite, have an error in their place; any other failure ends the work.
 */
export async function* embedFiles(
  model: Siglip2,
  files: readonly ImageFile[],
  options: EmbedFilesOptions,
): AsyncGenerator<ImageResult[]> {
  const { batchSize, normalize, maxPatches, signal } = options;
  const decode = (start: number) => decodeBatch(files.slice(start, start + batchSize), options);
  let next = decode(0);
  for (let start = 0; start < files.length; start += batchSize) {
    const decoded = await next;
    if (start + batchSize < files.length) {
      next = decode(start + batchSize);
      // Its failure is reported when it is awaited; until then it must not count as unhandled.
      next.catch(() => {});
    }
    const images = decoded.flatMap((entry) => ('image' in entry ? [entry.image] : []));
    const embeddings = await model.embedImages(images, {
      batchSize,
      signal,
      ...(normalize === undefined ? {} : { normalize }),
      ...(maxPatches === undefined ? {} : { maxPatches }),
    });
    let row = 0;
    yield decoded.map((entry) => {
      if (!('image' in entry)) return entry;
      return { path: entry.path, ...requireFinite(embeddings.row(row++)) };
    });
  }
}

type Decoded = { path: string; image: RawImage } | { path: string; error: { code: string; message: string } };

async function decodeBatch(files: readonly ImageFile[], options: EmbedFilesOptions): Promise<Decoded[]> {
  const results = new Array<Decoded>(files.length);
  let next = 0;
  const work = async (): Promise<void> => {
    while (next < files.length) {
      const index = next++;
      results[index] = await decodeFile(files[index] as ImageFile, options);
    }
  };
  await Promise.all(Array.from({ length: Math.min(4, availableParallelism(), files.length) }, work));
  return results;
}

async function decodeFile(file: ImageFile, { maxPixels, signal }: EmbedFilesOptions): Promise<Decoded> {
  if (file.problem !== undefined)
    return { path: file.path, error: { code: 'ERR_SIGLIP_IMAGE', message: `cannot be searched: ${file.problem}` } };
  try {
    const image = await decodeImage(file.source, { signal, ...(maxPixels === undefined ? {} : { maxPixels }) });
    return { path: file.path, image };
  } catch (error) {
    // A RangeError is a location of an unknown kind, such as ftp://.
    if (error instanceof RangeError || (error instanceof SiglipError && error.code === 'ERR_SIGLIP_IMAGE'))
      return { path: file.path, error: { code: 'ERR_SIGLIP_IMAGE', message: reasonOf(error) } };
    throw error;
  }
}

/** Why an image could not be read, without the name of the file, which stands beside it wherever it is shown. */
function reasonOf(error: Error): string {
  const { source = 'image' } = error instanceof SiglipError ? { ...error.details } : {};
  const named = `${String(source)}: `;
  const reason = error.message.startsWith(named) ? error.message.slice(named.length) : error.message;
  return inFlags(systemReason(reason));
}

/** An embedding that is not finite is worthless to whoever reads it, and stands for broken weights. */
export function requireFinite(
  embedding: Float32Array,
): { embedding: Float32Array; error?: undefined } | { error: { code: string; message: string } } {
  if (embedding.every(Number.isFinite)) return { embedding };
  const message = 'the embedding holds NaN or infinite values; siglip2 inspect --model MODEL looks for such weights';
  return { error: { code: 'ERR_SIGLIP_CHECKPOINT', message } };
}
