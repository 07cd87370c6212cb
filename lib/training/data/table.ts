/** Examples that can be read in any order, because they are rows of a captions file next to their pictures. */
import type { Found } from './example.js';
import { NumberList } from './number-list.js';

/** Rows with numbers. Nothing is open until {@link open}. */
export interface Table {
  readonly length: number;
  open(): Promise<TableReader>;
}

export interface TableReader {
  /** The example of a row from 0 to length - 1, or why it is none. */
  read(row: number): Promise<Found>;
  close(): Promise<void>;
}

/** The rows of several tables, one table after another. */
export function joinTables(tables: readonly Table[]): Table {
  if (tables.length === 1) return tables[0]!;
  const starts: number[] = [];
  let length = 0;
  for (const table of tables) {
    starts.push(length);
    length += table.length;
  }
  return { length, open: () => openAll(tables, starts) };
}

async function openAll(tables: readonly Table[], starts: readonly number[]): Promise<TableReader> {
  const readers: TableReader[] = [];
  const close = async (): Promise<void> => {
    for (const reader of readers) await reader.close();
  };
  try {
    for (const table of tables) readers.push(await table.open());
  } catch (error) {
    await close();
    throw error;
  }
  return {
    read(row) {
      const table = starts.findLastIndex((start) => start <= row);
      return readers[table]!.read(row - starts[table]!);
    },
    close,
  };
}

const chunkBytes = 1 << 20;

/** Rows in memory as serialised JSON: their bytes in UTF-8 and twelve more each, none of it for the garbage collector. */
export class PackedRows {
  private readonly chunks: Buffer[] = [];
  private readonly starts = new NumberList();
  private used = chunkBytes;

  get length(): number {
    return this.starts.length;
  }

  push(row: unknown): void {
    const bytes = Buffer.from(JSON.stringify(row));
    const needed = 4 + bytes.length;
    if (this.used + needed > chunkBytes) {
      // A row that is larger than a chunk gets one to itself.
      this.chunks.push(Buffer.alloc(Math.max(needed, chunkBytes)));
      this.used = 0;
    }
    const chunk = this.chunks[this.chunks.length - 1]!;
    this.starts.push((this.chunks.length - 1) * chunkBytes + this.used);
    chunk.writeUInt32LE(bytes.length, this.used);
    bytes.copy(chunk, this.used + 4);
    this.used += needed;
  }

  at(row: number): unknown {
    const start = this.starts.at(row);
    const chunk = this.chunks[Math.floor(start / chunkBytes)]!;
    const offset = start % chunkBytes;
    const length = chunk.readUInt32LE(offset);
    return JSON.parse(chunk.toString('utf8', offset + 4, offset + 4 + length));
  }
}
