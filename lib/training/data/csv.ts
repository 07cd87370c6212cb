/** Captions in comma-separated values (RFC 4180): a header, quotes where needed, line breaks within quotes. */
import { open } from 'node:fs/promises';
import { dataError } from './errors.js';
import { alternatives, type FieldNames, type Found, rowExample } from './example.js';
import type { Table } from './table.js';
import { RowIndex, type RowScanner, textTable } from './text-table.js';

const newline = 0x0a;
const carriageReturn = 0x0d;
const comma = 0x2c;
const quote = 0x22;

/** Finds records: lines, except for line breaks within quotes. Empty lines are none. */
export class RecordScanner implements RowScanner {
  private line = 1;
  private state: 'record' | 'field' | 'plain' | 'quoted' | 'closed' = 'record';

  scan(piece: Uint8Array, offset: number, found: (start: number, line: number) => void): void {
    let { line, state } = this;
    for (let i = 0; i < piece.length; i++) {
      const byte = piece[i]!;
      if (state === 'record' && byte !== newline && byte !== carriageReturn) {
        found(offset + i, line);
        state = 'field';
      }
      if (byte === newline) line++;
      if (state === 'quoted') {
        if (byte === quote) state = 'closed';
      } else if (byte === newline) state = 'record';
      else if (byte === quote) {
        // The second of two quotes stands for one; a quote within a plain field is an ordinary character.
        if (state === 'field' || state === 'closed') state = 'quoted';
      } else if (byte === comma) state = 'field';
      else if (state === 'field') state = 'plain';
    }
    this.line = line;
    this.state = state;
  }
}

/** The fields of one record, or what is wrong with it. What follows the record's line break is ignored. */
export function parseRecord(text: string): string[] | string {
  const fields: string[] = [];
  let position = 0;
  for (;;) {
    let field: string;
    if (text[position] === '"') {
      const end = closingQuote(text, position + 1);
      if (end < 0) return `the quotes of field ${fields.length + 1} are not closed`;
      field = text.slice(position + 1, end).replaceAll('""', '"');
      position = end + 1;
    } else {
      const [plain] = /^[^,\n]*/.exec(text.slice(position))!;
      position += plain.length;
      field = text[position] === ',' ? plain : plain.replace(/\r$/, '');
    }
    fields.push(field);
    if (text[position] === ',') {
      position++;
      continue;
    }
    if (/^(\r?\n|\r?$)/.test(text.slice(position, position + 2))) return fields;
    return `field ${fields.length} goes on after its closing quotes`;
  }
}

function closingQuote(text: string, from: number): number {
  let end = text.indexOf('"', from);
  while (end >= 0 && text[end + 1] === '"') end = text.indexOf('"', end + 2);
  return end;
}

/**
 * Opens a `.csv` captions file; `folder` is that of the pictures.
 *
 * @throws SiglipError `ERR_SIGLIP_DATA` when the file cannot be read or its header lacks a column
 */
export async function openCsv(file: string, names: FieldNames, folder: string): Promise<Table> {
  const index = await RowIndex.scan(file, new RecordScanner());
  const columns = await readHeader(file, index);
  for (const wanted of [names.image, names.text])
    if (!wanted.some((name) => columns.includes(name)))
      throw dataError(file, `there is no column ${alternatives(wanted)}; the columns are ${columns.join(', ')}`, {
        details: { columns },
      });
  return textTable(file, index, 1, (text, source): Found => {
    const record = parseRecord(text);
    if (typeof record === 'string') return { source, reason: record };
    if (record.length !== columns.length)
      return { source, reason: `the row has ${record.length} fields and the header ${columns.length}` };
    const row: Record<string, unknown> = Object.create(null);
    columns.forEach((column, i) => {
      // An empty field is how CSV spells a value that is not there.
      row[column] ??= record[i] === '' ? undefined : record[i];
    });
    return rowExample(row, names, folder, source);
  });
}

async function readHeader(file: string, index: RowIndex): Promise<string[]> {
  if (index.length === 0) throw dataError(file, 'is empty; a header with the names of the columns is needed');
  const handle = await open(file, 'r');
  try {
    const content = await index.read(handle, 0);
    const header = 'text' in content ? parseRecord(content.text) : content.reason;
    if (typeof header === 'string') throw dataError(file, `the header cannot be read: ${header}`);
    return header;
  } finally {
    await handle.close();
  }
}
