/**
 * Captions in Apache Parquet, with paths of pictures or, as Hugging Face data sets have them, with the pictures
 * themselves. Compression: none, Snappy, gzip, Brotli, Zstandard, LZ4.
 */
import { type FileHandle, open } from 'node:fs/promises';
import { SiglipError } from '../../errors.js';
import { dataError, messageOf } from './errors.js';
import {
  alternatives,
  captionsOf,
  decodeUtf8,
  type FieldNames,
  type Found,
  fieldOf,
  imagePath,
  isSkip,
  rowExample,
} from './example.js';
import type { Part } from './parts.js';
import { PackedRows, type Table } from './table.js';

/** hyparquet and its codecs are loaded on first use; they are ECMAScript modules, so only like this from CommonJS. */
async function loadParquet() {
  const [parquet, { compressors }] = await Promise.all([import('hyparquet'), import('hyparquet-compressors')]);
  return { ...parquet, compressors };
}

type Library = Awaited<ReturnType<typeof loadParquet>>;
type Metadata = Awaited<ReturnType<Library['parquetMetadataAsync']>>;
type SchemaNode = ReturnType<Library['parquetSchema']>['children'][number];
type Row = Record<string, unknown>;

/** A Parquet file and the columns that are read. */
interface ParquetFile {
  file: string;
  /** Absolute path of the pictures' folder. */
  folder: string;
  library: Library;
  metadata: Metadata;
  names: { image: string; text: string };
}

/** What a Parquet file turns out to be: rows in memory, or parts to be read one by one with as many rows in all. */
export type ParquetContent = { table: Table } | { parts: Part[]; rows: number };

/**
 * Opens a Parquet file. Paths and captions are read into memory; pictures are left where they are.
 *
 * @throws SiglipError `ERR_SIGLIP_DATA` when it is damaged or lacks a column
 */
export async function openParquet(file: string, names: FieldNames, folder: string): Promise<ParquetContent> {
  const library = await loadParquet();
  const metadata = await withFile(file, (source) => library.parquetMetadataAsync(source, { geoparquet: false })).catch(
    (cause: unknown) => {
      throw cause instanceof SiglipError
        ? cause
        : dataError(file, `is not a Parquet file: ${messageOf(cause)}`, { cause });
    },
  );
  const columns = library.parquetSchema(metadata).children;
  const image = chooseColumn(file, columns, names.image);
  const text = chooseColumn(file, columns, names.text);
  const parquet = { file, folder, library, metadata, names: { image: image.element.name, text: text.element.name } };
  const groups = rowGroups(parquet);
  if (holdsPictures(file, image))
    return {
      parts: groups.map((group) => ({ name: group.name, read: () => readPictures(parquet, group) })),
      rows: groups.reduce((sum, { start, end }) => sum + end - start, 0),
    };
  return { table: await readTable(parquet, groups) };
}

function chooseColumn(file: string, columns: readonly SchemaNode[], names: readonly string[]): SchemaNode {
  for (const name of names) {
    const column = columns.find(({ element }) => element.name === name);
    if (column !== undefined) return column;
  }
  const present = columns.map(({ element }) => element.name);
  throw dataError(file, `there is no column ${alternatives(names)}; the columns are ${present.join(', ')}`, {
    details: { columns: present },
  });
}

function holdsPictures(file: string, { element, children }: SchemaNode): boolean {
  if (children.some((child) => child.element.name === 'bytes')) return true;
  if (children.length === 0 && element.type === 'BYTE_ARRAY')
    return element.converted_type !== 'UTF8' && element.logical_type?.type !== 'STRING';
  throw dataError(
    file,
    `the column "${element.name}" holds no pictures: expected a path, encoded bytes, or a struct of bytes and path`,
  );
}

/** A row group: numbers of its first row and of the one after its last. */
interface RowGroup {
  name: string;
  start: number;
  end: number;
}

function rowGroups({ file, metadata }: ParquetFile): RowGroup[] {
  let start = 0;
  return metadata.row_groups.map(({ num_rows }, i) => {
    const group = { name: `${file} row group ${i}`, start, end: start + Number(num_rows) };
    start = group.end;
    return group;
  });
}

/** Runs an action with a file that is open meanwhile. */
async function withFile<T>(
  file: string,
  action: (source: { byteLength: number; slice(start: number, end?: number): Promise<ArrayBuffer> }) => Promise<T>,
): Promise<T> {
  let handle: FileHandle;
  try {
    handle = await open(file, 'r');
  } catch (cause) {
    throw dataError(file, `cannot be read: ${messageOf(cause)}`, { cause });
  }
  try {
    const { size } = await handle.stat();
    return await action({
      byteLength: size,
      async slice(start, end = size) {
        const length = Math.min(end, size) - start;
        if (!(start >= 0 && length >= 0)) throw new Error(`bytes ${start} to ${end} are not in the file of ${size}`);
        const { buffer, bytesRead } = await handle.read(new Uint8Array(length), 0, length, start);
        if (bytesRead < length) throw new Error('the file was shortened while it was in use');
        return buffer.buffer;
      },
    });
  } finally {
    await handle.close();
  }
}

/** The rows of a group. Texts that are not UTF-8 stay bytes. */
function readGroup({ file, library, metadata, names }: ParquetFile, { start, end }: RowGroup): Promise<Row[]> {
  return withFile(file, (source) =>
    library.parquetReadObjects({
      file: source,
      metadata,
      columns: [names.image, names.text],
      rowStart: start,
      rowEnd: end,
      compressors: library.compressors,
      geoparquet: false,
      utf8: false,
      parsers: {
        stringFromBytes: (bytes: Uint8Array | undefined) =>
          bytes === undefined ? bytes : (decodeUtf8(bytes) ?? bytes),
      },
    }),
  );
}

async function readTable(parquet: ParquetFile, groups: readonly RowGroup[]): Promise<Table> {
  const { file, folder } = parquet;
  const names = { image: [parquet.names.image], text: [parquet.names.text] };
  const packed = new PackedRows();
  for (const group of groups) {
    let rows: Row[];
    try {
      rows = await readGroup(parquet, group);
    } catch (cause) {
      if (cause instanceof SiglipError) throw cause;
      throw dataError(group.name, `cannot be read: ${messageOf(cause)}`, { cause });
    }
    for (const row of rows) {
      const found = rowExample(textRow(row), names, folder, '');
      packed.push(isSkip(found) ? found.reason : [found.key, ...found.texts]);
    }
  }
  return {
    length: packed.length,
    open: async () => ({
      read: async (row): Promise<Found> => {
        const source = `${file} row ${row}`;
        const stored = packed.at(row) as string | [string, ...string[]];
        if (typeof stored === 'string') return { source, reason: stored };
        const [key, ...texts] = stored;
        return { key, image: imagePath(folder, key)!, texts, source };
      },
      close: async () => {},
    }),
  };
}

/** A row in which every text is one: writers that do not annotate texts leave bytes. */
function textRow(row: Row): Row {
  const asText = (value: unknown): unknown => (value instanceof Uint8Array ? (decodeUtf8(value) ?? value) : value);
  return Object.fromEntries(
    Object.entries(row).map(([name, value]) => [name, Array.isArray(value) ? value.map(asText) : asText(value)]),
  );
}

async function* readPictures(parquet: ParquetFile, group: RowGroup): AsyncGenerator<Found> {
  let rows: Row[];
  try {
    rows = await readGroup(parquet, group);
  } catch (cause) {
    if (cause instanceof SiglipError) throw cause;
    yield {
      source: group.name,
      reason: `the row group of ${group.end - group.start} rows cannot be read and is skipped: ${messageOf(cause)}`,
    };
    return;
  }
  for (const [i, row] of rows.entries()) yield pictureExample(parquet, row, `${parquet.file} row ${group.start + i}`);
}

function pictureExample({ folder, names }: ParquetFile, row: Row, source: string): Found {
  const picture = row[names.image];
  const { bytes, path } =
    picture instanceof Uint8Array ? { bytes: picture, path: undefined } : ((picture ?? {}) as Row);
  const rest = textRow({ [names.image]: path, [names.text]: row[names.text] });
  const name = rest[names.image];
  if (!(bytes instanceof Uint8Array))
    return rowExample(rest, { image: [names.image], text: [names.text] }, folder, source);
  const texts = captionsOf(fieldOf(rest, [names.text]), [names.text]);
  if (typeof texts === 'string') return { source, reason: texts };
  // Copied: a view would keep the whole page in memory for as long as the example waits in a shuffle buffer.
  return { key: typeof name === 'string' && name !== '' ? name : source, image: bytes.slice(), texts, source };
}
