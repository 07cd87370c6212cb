/** Reading back what `siglip2 embed` wrote, a block of rows at a time, so that an index may be larger than memory. */
import { type FileHandle, open, stat } from 'node:fs/promises';
import path from 'node:path';
import { describe } from '../arguments.js';
import { SiglipError } from '../errors.js';
import { EmbeddingMatrix, type Embeddings } from '../model/embeddings.js';
import { isJsonObject, readJsonFile } from '../model/json.js';
import { type EmbeddingOrigin, originFileOf } from './embedding-origin.js';
import { fileError, UsageError } from './errors.js';
import { itemsEnding, itemsFileOf } from './npy.js';

/** Rows that are read together. */
const blockRows = 1024;

/** Consecutive rows of an index. */
export interface IndexBlock {
  /** What each row belongs to. */
  paths: string[];
  embeddings: Embeddings;
}

/** A file of embeddings of images. */
export interface EmbeddingIndex {
  /** As the user named it. */
  file: string;
  /** Which model made it; undefined when nothing says so. */
  origin: EmbeddingOrigin | undefined;
  /** Number of rows, where the file says so. */
  rows: number | undefined;
  /**
   * Its rows, in order.
   * @param dim the width they must have
   * @throws SiglipError ERR_SIGLIP_DATA naming the file, and the line or row, of whatever is damaged
   */
  blocks(dim: number): AsyncGenerator<IndexBlock>;
}

/** Whether a location means an index: the names that `siglip2 embed` gives its files. */
export function isIndexName(location: string): boolean {
  return /\.(npy|jsonl)$/.test(location) && !/^[a-z][a-z\d+.-]+:\/\//i.test(location);
}

/**
 * Opens an index of images, reading no row yet.
 * @throws UsageError for a folder, and for a file of those that lie beside an index; SiglipError ERR_SIGLIP_DATA when it
 *   is damaged or holds embeddings of texts; the system's error when there is none
 */
export async function openIndex(file: string): Promise<EmbeddingIndex> {
  if (file.endsWith(itemsEnding))
    throw new UsageError(`--in: "${file}" names the rows of a matrix`, 'give the .npy file beside it');
  const entry = await stat(file).catch((error) => {
    throw fileError(`--in: "${file}" cannot be read`, error);
  });
  if (entry.isDirectory())
    throw new UsageError(
      `--in: "${file}" is a folder with the name of an index`,
      `to search the images in it, write "${file}/"`,
    );
  const origin = await readOrigin(file);
  if (origin?.kind === 'texts') throw textsError(file);
  if (file.endsWith('.jsonl')) return { file, origin, rows: undefined, blocks: (dim) => lineBlocks(file, dim) };
  const header = await withFile(file, (handle) => readNpyHeader(handle, file));
  return { file, origin, rows: header.rows, blocks: (dim) => matrixBlocks(file, header, dim) };
}

/**
 * Requires that an index was made by a model.
 * @param fingerprint of the model that searches
 * @throws SiglipError ERR_SIGLIP_DATA naming both models
 */
export function requireOrigin(index: EmbeddingIndex, model: string, fingerprint: string): void {
  const { file, origin } = index;
  if (origin === undefined || origin.fingerprint === fingerprint) return;
  const named = origin.model === model ? `another state of ${model}, or stored in another type` : origin.model;
  throw indexError(file, `was made by another model (${named}) than the one that searches (${model})`, {
    madeBy: origin.model,
    model,
  });
}

function indexError(file: string, problem: string, details: Record<string, unknown> = {}): SiglipError {
  return new SiglipError('ERR_SIGLIP_DATA', `${file} ${problem}`, { details: { source: file, ...details } });
}

function textsError(file: string): SiglipError {
  return indexError(file, 'holds embeddings of texts, and images are what is searched');
}

function widthError(file: string, expected: number, got: number): SiglipError {
  return indexError(file, `has embeddings of ${got} numbers, and those of the model have ${expected}`, {
    expected,
    got,
  });
}

async function withFile<T>(file: string, work: (handle: FileHandle) => Promise<T>): Promise<T> {
  const handle = await open(file);
  try {
    return await work(handle);
  } finally {
    await handle.close();
  }
}

async function readOrigin(file: string): Promise<EmbeddingOrigin | undefined> {
  const where = originFileOf(file);
  const json = await readJsonFile(where, 'ERR_SIGLIP_DATA');
  if (json === undefined) return undefined;
  const { model, fingerprint, kind } = isJsonObject(json) ? json : {};
  if (typeof model !== 'string' || typeof fingerprint !== 'string' || (kind !== 'images' && kind !== 'texts'))
    throw indexError(where, 'is damaged: model, fingerprint and kind are expected in it');
  return json as unknown as EmbeddingOrigin;
}

interface NpyHeader {
  rows: number;
  dim: number;
  /** Where the values begin. */
  offset: number;
}

/**
 * The header of a `.npy` file of a float32 matrix, version 1 to 3
 * (https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html), and its size checked against it.
 */
async function readNpyHeader(handle: FileHandle, file: string): Promise<NpyHeader> {
  const start = Buffer.alloc(12);
  const { bytesRead } = await handle.read(start, 0, 12, 0);
  if (bytesRead < 12 || start.toString('latin1', 0, 6) !== '\u0093NUMPY')
    throw indexError(file, 'is no .npy file: its first bytes are others');
  const wide = (start[6] as number) > 1;
  const offset = wide ? 12 + start.readUInt32LE(8) : 10 + start.readUInt16LE(8);
  const { size } = await handle.stat();
  // Far more than any header has.
  const text = Buffer.alloc(Math.min(offset, size, 65_536));
  await handle.read(text, 0, text.length, 0);
  const header = text.toString('latin1', wide ? 12 : 10);
  const field = (name: string, value: string) => new RegExp(`'${name}':\\s*${value}`).exec(header);
  const shape = field('shape', '\\((\\d+),\\s*(\\d+),?\\)');
  if (field('descr', "'<f4'") === null || field('fortran_order', 'False') === null || shape === null)
    throw indexError(file, `is no float32 matrix in row-major order: ${describe(header.trim().slice(0, 200))}`);
  const [rows, dim] = [Number(shape[1]), Number(shape[2])];
  const expected = offset + 4 * rows * dim;
  if (size !== expected) throw indexError(file, `has ${size} bytes and should have ${expected}: it is incomplete`);
  return { rows, dim, offset };
}

async function* matrixBlocks(file: string, header: NpyHeader, dim: number): AsyncGenerator<IndexBlock> {
  const { rows, offset } = header;
  if (header.dim !== dim) throw widthError(file, dim, header.dim);
  const itemsFile = itemsFileOf(file);
  const matrix = await open(file);
  const items = await openItems(itemsFile, file).catch(async (error) => {
    await matrix.close();
    throw error;
  });
  try {
    const lines = items.readLines()[Symbol.asyncIterator]();
    for (let first = 0; first < rows; first += blockRows) {
      const count = Math.min(blockRows, rows - first);
      const paths: string[] = [];
      for (let row = first; row < first + count; row++) {
        const { value, done } = await lines.next();
        if (done) throw indexError(itemsFile, `ends before row ${row} of the ${rows} rows in ${file}`);
        paths.push(parsePath(value, itemsFile, row, file));
      }
      const values = new Float32Array(count * dim);
      await readFully(matrix, new Uint8Array(values.buffer), offset + 4 * first * dim);
      yield { paths, embeddings: requireFiniteRows(values, dim, file, first) };
    }
    if (!(await lines.next()).done) throw indexError(itemsFile, `has more lines than the ${rows} rows in ${file}`);
  } finally {
    await matrix.close();
    await items.close();
  }
}

async function openItems(itemsFile: string, file: string): Promise<FileHandle> {
  return open(itemsFile).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error;
    throw indexError(file, `needs ${path.basename(itemsFile)} beside it, which says what its rows belong to`);
  });
}

async function* lineBlocks(file: string, dim: number): AsyncGenerator<IndexBlock> {
  const handle = await open(file);
  try {
    let paths: string[] = [];
    let values: number[] = [];
    let row = 0;
    const block = (): IndexBlock => {
      const embeddings = requireFiniteRows(Float32Array.from(values), dim, file, row - paths.length);
      return { paths, embeddings };
    };
    for await (const line of handle.readLines()) {
      const entry = parseLine(line, file, row);
      paths.push(pathOf(entry, file, row, file));
      const { embedding } = entry;
      if (!Array.isArray(embedding) || !embedding.every((value) => typeof value === 'number'))
        throw indexError(file, `line ${row + 1}: embedding, a list of numbers, is expected`);
      if (embedding.length !== dim) throw widthError(file, dim, embedding.length);
      for (const value of embedding) values.push(value);
      row++;
      if (paths.length === blockRows) {
        yield block();
        paths = [];
        values = [];
      }
    }
    if (paths.length > 0) yield block();
  } finally {
    await handle.close();
  }
}

function parseLine(line: string, file: string, row: number): Record<string, unknown> {
  try {
    const entry: unknown = JSON.parse(line);
    if (isJsonObject(entry)) return entry;
  } catch {
    // The same as any other line that is no object.
  }
  throw indexError(file, `line ${row + 1}: a JSON object is expected, got ${describe(line.slice(0, 80))}`);
}

/** The path of a line of `.items.jsonl`, whose number must be that of the row. */
function parsePath(line: string, file: string, row: number, index: string): string {
  const entry = parseLine(line, file, row);
  if (entry.row !== row) throw indexError(file, `line ${row + 1}: row ${row} is expected, got ${describe(entry.row)}`);
  return pathOf(entry, file, row, index);
}

function pathOf(entry: Record<string, unknown>, file: string, row: number, index: string): string {
  if (typeof entry.path === 'string') return entry.path;
  if (typeof entry.text === 'string') throw textsError(index);
  throw indexError(file, `line ${row + 1}: path is expected, got ${describe(entry.path)}`);
}

/** Embeddings that are not finite have no place in an order. */
function requireFiniteRows(values: Float32Array, dim: number, file: string, firstRow: number): Embeddings {
  const wrong = values.findIndex((value) => !Number.isFinite(value));
  if (wrong >= 0) throw indexError(file, `holds NaN or infinite values in row ${firstRow + Math.floor(wrong / dim)}`);
  return new EmbeddingMatrix(values, dim);
}

async function readFully(handle: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const { bytesRead } = await handle.read(bytes, done, bytes.length - done, position + done);
    if (bytesRead === 0) throw new Error('the file became shorter while it was read');
    done += bytesRead;
  }
}
