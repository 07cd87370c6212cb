/** Files of embeddings, written as they come and put in place when they are complete. */
import { readdirSync, rmSync } from 'node:fs';
import { type FileHandle, stat } from 'node:fs/promises';
import path from 'node:path';
import { StagedFiles } from '../model/staged-files.js';
import { type EmbeddingOrigin, originFileOf } from './embedding-origin.js';
import { fileError, UsageError } from './errors.js';

/** A row and what it belongs to: `{ path }` or `{ text }`. */
export interface EmbeddedItem {
  item: Record<string, string>;
  embedding: Float32Array;
}

/** Receives rows in order. */
export type AddRows = (rows: EmbeddedItem[]) => Promise<void>;

/** Bytes of the header: room for any number of rows, and a multiple of 64, as the format asks. */
const headerBytes = 128;

/** The header of a `.npy` file, version 1.0, of a float32 matrix in row-major order. */
export function npyHeader(rows: number, columns: number): Buffer {
  const description = `{'descr': '<f4', 'fortran_order': False, 'shape': (${rows}, ${columns}), }`;
  const header = Buffer.alloc(headerBytes, ' ');
  header.write('\u0093NUMPY\u0001\u0000', 'latin1');
  header.writeUInt16LE(headerBytes - 10, 8);
  header.write(description, 10, 'latin1');
  header.write('\n', headerBytes - 1, 'latin1');
  return header;
}

/** Where embeddings go. */
export interface EmbeddingOutput {
  kind: 'npy' | 'jsonl';
  /** The file as the user named it. */
  file: string;
  /** Of a matrix: the file that says what its rows belong to. */
  items?: string;
  /** The file that says which model made the embeddings. */
  origin: string;
}

/** How the names of files end that say what the rows of a matrix belong to. */
export const itemsEnding = '.items.jsonl';

/** The file that says what the rows of a matrix belong to. */
export function itemsFileOf(matrix: string): string {
  return path.join(path.dirname(matrix), `${path.basename(matrix, '.npy')}${itemsEnding}`);
}

/**
 * What --out names.
 * @throws UsageError when nothing can be written there; the system's error when that cannot be found out
 */
export async function checkOutput(file: string): Promise<EmbeddingOutput> {
  const extension = path.extname(file);
  if (extension !== '.npy' && extension !== '.jsonl')
    throw new UsageError(
      `--out: expected a name that ends in .npy or .jsonl, got "${file}"`,
      'name the file embeddings.npy',
    );
  // Writing there would destroy an index: the file says what the rows of the matrix beside it belong to.
  if (file.endsWith(itemsEnding))
    throw new UsageError(
      `--out: expected another name than one that ends in ${itemsEnding}, which belongs to a matrix, got "${file}"`,
      'name the file embeddings.jsonl',
    );
  const folder = path.dirname(file);
  if ((await kindOf(folder)) !== 'folder')
    throw new UsageError(`--out: there is no folder "${folder}"`, 'make the folder first, or name another one');
  const output: EmbeddingOutput = {
    ...(extension === '.jsonl' ? { kind: 'jsonl', file } : { kind: 'npy', file, items: itemsFileOf(file) }),
    origin: originFileOf(file),
  };
  for (const each of [output.file, output.items, output.origin])
    if (each !== undefined && (await kindOf(each)) === 'folder')
      throw new UsageError(
        `--out: "${each}"${each === file ? '' : `, which is written with "${file}",`} is a folder`,
        'name another file',
      );
  return output;
}

/** What is at a path where something is to be written; undefined when nothing is. */
async function kindOf(location: string): Promise<'folder' | 'file' | undefined> {
  try {
    return (await stat(location)).isDirectory() ? 'folder' : 'file';
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
    throw fileError(`--out: "${location}" cannot be written`, error);
  }
}

/**
 * Writes what `fill` adds. Files that were there before are replaced when everything is written and nothing failed, and
 * not at all when no row was added; an interruption leaves no part of a file.
 *
 * @param rows their width, and what made them
 * @returns the number of rows
 */
export async function writeEmbeddings(
  output: EmbeddingOutput,
  { dim, origin }: { dim: number; origin: EmbeddingOrigin },
  fill: (add: AddRows) => Promise<void>,
): Promise<number> {
  const folder = path.resolve(path.dirname(output.file));
  const staged = new StagedFiles(folder);
  // Asynchronous tidying does not happen any more when the process is told to end a second time.
  const tidyAtExit = (): void => {
    for (const name of readdirSync(folder))
      if (name.startsWith('.') && name.includes(`.${staged.token}.`)) rmSync(path.join(folder, name), { force: true });
  };
  process.on('exit', tidyAtExit);
  try {
    const name = path.basename(output.file);
    const originName = path.basename(output.origin);
    // First, so that what keeps it from being written shows before the work.
    await staged.write(originName, (handle) => handle.appendFile(`${JSON.stringify(origin, null, 2)}\n`));
    const rows = await (output.items === undefined
      ? writeLines(staged, name, fill)
      : writeMatrix(staged, name, path.basename(output.items), dim, fill));
    if (rows > 0) {
      await staged.replace(originName);
      if (output.items !== undefined) await staged.replace(path.basename(output.items));
      await staged.place(name, name);
      await staged.sync();
    }
    await staged.finish();
    return rows;
  } catch (error) {
    await staged.undo();
    // The system knows only temporary names.
    throw fileError(`${output.file} cannot be written`, error);
  } finally {
    process.off('exit', tidyAtExit);
  }
}

async function writeMatrix(
  staged: StagedFiles,
  matrixName: string,
  itemsName: string,
  dim: number,
  fill: (add: AddRows) => Promise<void>,
): Promise<number> {
  let row = 0;
  await staged.write(matrixName, (matrix) =>
    staged.write(itemsName, async (items) => {
      await matrix.appendFile(npyHeader(0, dim));
      await fill(async (rows) => {
        await matrix.appendFile(joined(rows));
        await items.appendFile(rows.map(({ item }) => `${JSON.stringify({ row: row++, ...item })}\n`).join(''));
      });
      // How many rows there are is known only now.
      await writeAt(matrix, npyHeader(row, dim), 0);
    }),
  );
  return row;
}

async function writeLines(staged: StagedFiles, name: string, fill: (add: AddRows) => Promise<void>): Promise<number> {
  let count = 0;
  await staged.write(name, async (handle) => {
    await fill(async (rows) => {
      count += rows.length;
      await handle.appendFile(rows.map(jsonLine).join(''));
    });
  });
  return count;
}

/** Nine significant digits name a float32 exactly. */
function jsonLine({ item, embedding }: EmbeddedItem): string {
  const values = Array.from(embedding, (value) => Number(value.toPrecision(9)));
  return `${JSON.stringify({ ...item, embedding: values })}\n`;
}

/** The rows, one after the other, as bytes. */
function joined(rows: EmbeddedItem[]): Buffer {
  return Buffer.concat(
    rows.map(({ embedding }) => Buffer.from(embedding.buffer, embedding.byteOffset, embedding.byteLength)),
  );
}

async function writeAt(handle: FileHandle, bytes: Buffer, position: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const { bytesWritten } = await handle.write(bytes, done, bytes.length - done, position + done);
    done += bytesWritten;
  }
}
