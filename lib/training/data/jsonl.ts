/** Captions in JSON Lines: an object a line. */
import { isJsonObject } from '../../model/json.js';
import { messageOf } from './errors.js';
import { type FieldNames, type Found, rowExample } from './example.js';
import type { Table } from './table.js';
import { RowIndex, type RowScanner, textTable } from './text-table.js';

const newline = 0x0a;
const carriageReturn = 0x0d;

/** Finds the lines that are not empty. */
export class LineScanner implements RowScanner {
  private line = 1;
  /** Whether the line has had its first character. */
  private started = false;

  scan(piece: Uint8Array, offset: number, found: (start: number, line: number) => void): void {
    for (let i = 0; i < piece.length; i++) {
      if (piece[i] === newline) {
        this.line++;
        this.started = false;
      } else if (!this.started && piece[i] !== carriageReturn) {
        this.started = true;
        found(offset + i, this.line);
        const end = piece.indexOf(newline, i);
        i = (end < 0 ? piece.length : end) - 1;
      }
    }
  }
}

/** Opens a `.jsonl` captions file; `folder` is that of the pictures. */
export async function openJsonLines(file: string, names: FieldNames, folder: string): Promise<Table> {
  const index = await RowIndex.scan(file, new LineScanner());
  return textTable(file, index, 0, (text, source): Found => {
    let row: unknown;
    try {
      row = JSON.parse(text);
    } catch (error) {
      return { source, reason: `the line is not valid JSON: ${messageOf(error)}` };
    }
    if (!isJsonObject(row)) return { source, reason: 'the line is not a JSON object' };
    return rowExample(row, names, folder, source);
  });
}
