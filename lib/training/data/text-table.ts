/** Captions files of text, `.jsonl` and `.csv`: read once to learn where each row starts, then row by row. */
import { createReadStream } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { dataError, messageOf } from './errors.js';
import { decodeUtf8, type Found } from './example.js';
import { NumberList } from './number-list.js';
import type { Table, TableReader } from './table.js';

/** Finds the rows of a file that is handed over piece by piece. */
export interface RowScanner {
  /**
   * Looks through the next piece.
   *
   * @param offset where the piece lies in the file
   * @param found called with where each row starts: byte and line, the first line being 1
   */
  scan(piece: Uint8Array, offset: number, found: (start: number, line: number) => void): void;
}

/** Turns the text of a row into an example. The text may end in line breaks. */
export type RowParser = (text: string, source: string) => Found;

const pieceBytes = 1 << 18;

/** Longer rows are skipped; nobody writes captions of such a size. */
const maximumRowBytes = 16 << 20;

const byteOrderMark = [0xef, 0xbb, 0xbf];

/** Bytes of a file's byte order mark, 0 or 3. */
async function markLength(handle: FileHandle): Promise<number> {
  const { buffer, bytesRead } = await handle.read(Buffer.alloc(3), 0, 3, 0);
  return bytesRead === 3 && byteOrderMark.every((byte, i) => buffer[i] === byte) ? 3 : 0;
}

/** Where the rows of a text file start. Costs 16 bytes a row; the order of an epoch, four more. */
export class RowIndex {
  private constructor(
    private readonly file: string,
    private readonly starts: NumberList,
    private readonly lines: NumberList,
    private readonly bytes: number,
  ) {}

  /**
   * Reads a file from end to end, a piece at a time.
   *
   * @throws SiglipError `ERR_SIGLIP_DATA` when the file cannot be read
   */
  static async scan(file: string, scanner: RowScanner): Promise<RowIndex> {
    const starts = new NumberList();
    const lines = new NumberList();
    const found = (start: number, line: number): void => {
      starts.push(start);
      lines.push(line);
    };
    let offset: number;
    try {
      const handle = await open(file, 'r');
      try {
        offset = await markLength(handle);
      } finally {
        await handle.close();
      }
      for await (const piece of createReadStream(file, { start: offset, highWaterMark: pieceBytes })) {
        scanner.scan(piece as Buffer, offset, found);
        offset += (piece as Buffer).length;
      }
    } catch (cause) {
      throw dataError(file, `cannot be read: ${messageOf(cause)}`, { cause });
    }
    starts.trim();
    lines.trim();
    return new RowIndex(file, starts, lines, offset);
  }

  get length(): number {
    return this.starts.length;
  }

  /** The name of a row in messages. */
  source(row: number): string {
    return `${this.file} line ${this.lines.at(row)}`;
  }

  /** The text of a row, or the reason why there is none. */
  async read(handle: FileHandle, row: number): Promise<{ text: string } | { reason: string }> {
    const start = this.starts.at(row);
    const length = (row + 1 < this.length ? this.starts.at(row + 1) : this.bytes) - start;
    if (length > maximumRowBytes) return { reason: `the row has ${length} bytes; at most ${maximumRowBytes} are read` };
    const { buffer, bytesRead } = await handle.read(Buffer.allocUnsafe(length), 0, length, start);
    if (bytesRead < length) throw dataError(this.file, 'was shortened while it was in use');
    const text = decodeUtf8(buffer);
    return text === undefined ? { reason: 'the line is not valid UTF-8' } : { text };
  }
}

/** The rows of an index from the first to be taken for an example, as a table. */
export function textTable(file: string, index: RowIndex, firstRow: number, parse: RowParser): Table {
  return {
    length: Math.max(0, index.length - firstRow),
    async open(): Promise<TableReader> {
      let handle: FileHandle;
      try {
        handle = await open(file, 'r');
      } catch (cause) {
        throw dataError(file, `cannot be read: ${messageOf(cause)}`, { cause });
      }
      return {
        async read(row) {
          const source = index.source(firstRow + row);
          const content = await index.read(handle, firstRow + row);
          return 'reason' in content ? { source, reason: content.reason } : parse(content.text, source);
        },
        close: () => handle.close(),
      };
    },
  };
}
