/** A configuration file in YAML, of which every value knows its place. */
import { readFile } from 'node:fs/promises';
import {
  type Document,
  isAlias,
  isMap,
  isScalar,
  isSeq,
  LineCounter,
  type Node,
  parseDocument,
  type Range,
} from 'yaml';
import { describe } from '../../arguments.js';
import { SiglipError } from '../../errors.js';
import { fileError } from '../errors.js';

/** Where a value is in the file: keys and indices from the top. */
export type Way = readonly (string | number)[];

/** Something wrong with the file. Lines and columns start at 1. */
export interface Mistake {
  file: string;
  line: number;
  column: number;
  /** The key as messages show it: `training.optimizer.betas[0]`; empty for the whole file. */
  key: string;
  message: string;
}

/** `training.groups[0].match`. */
export function keyName(way: Way): string {
  return way.reduce<string>(
    (name, part) => (typeof part === 'number' ? `${name}[${part}]` : name === '' ? part : `${name}.${part}`),
    '',
  );
}

/** The `ERR_SIGLIP_CONFIG` of one or more mistakes, a line each. */
export function mistakesError(mistakes: readonly Mistake[], cause?: unknown): SiglipError {
  const lines = mistakes.map(
    ({ file, line, column, key, message }) => `${file}:${line}:${column}: ${key === '' ? '' : `${key}: `}${message}`,
  );
  return new SiglipError('ERR_SIGLIP_CONFIG', lines.join('\n'), { details: { mistakes }, cause });
}

/** A parsed file without mistakes in its syntax. */
export class ConfigDocument {
  private constructor(
    /** As the user named it. */
    readonly file: string,
    readonly text: string,
    private readonly document: Document.Parsed,
    private readonly lines: LineCounter,
  ) {}

  /**
   * Reads a file.
   * @throws SiglipError ERR_SIGLIP_CONFIG for one that is not UTF-8 or not YAML, with every place; the system's error, with
   *   the file's name, when it cannot be read
   */
  static async read(file: string): Promise<ConfigDocument> {
    const bytes = await readFile(file).catch((error) => {
      throw fileError(`the configuration "${file}" cannot be read`, error);
    });
    let text: string;
    try {
      text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
    } catch {
      throw mistakesError([{ file, line: 1, column: 1, key: '', message: 'the file is not valid UTF-8' }]);
    }
    return ConfigDocument.parse(text, file);
  }

  /** As {@link read}, of text. JSON is YAML too. */
  static parse(text: string, file: string): ConfigDocument {
    const lines = new LineCounter();
    const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
    const mistakes = [...document.errors, ...document.warnings].map(({ pos, message }) => ({
      file,
      ...placeOf(lines, pos[0]),
      key: '',
      message: message.replace(/\.$/, ''),
    }));
    if (mistakes.length > 0) throw mistakesError(mistakes);
    return new ConfigDocument(file, text, document, lines);
  }

  /** The value at the top; `undefined` for a file without any. */
  get root(): Node | undefined {
    return this.resolve(this.document.contents);
  }

  /** What an alias stands for; other nodes are returned as they are. */
  resolve(node: unknown): Node | undefined {
    return (isAlias(node) ? node.resolve(this.document) : (node ?? undefined)) as Node | undefined;
  }

  /** A mistake at a key, or at the nearest one above it that is written in the file. */
  mistake(way: Way, message: string, at: 'key' | 'value' = 'value'): Mistake {
    let node = this.root;
    let range = node?.range;
    for (const part of way) {
      const child = this.child(node, part);
      if (child === undefined) break;
      node = child.value;
      range = (at === 'key' ? child.key : (child.written ?? child.key))?.range ?? range;
    }
    return { file: this.file, ...this.place(range), key: keyName(way), message };
  }

  /** Whether a key is written in the file. */
  has(way: Way): boolean {
    let node = this.root;
    for (const part of way) {
      const child = this.child(node, part);
      if (child === undefined) return false;
      node = child.value;
    }
    return true;
  }

  private child(node: Node | undefined, part: string | number) {
    if (isSeq(node) && typeof part === 'number') {
      const written = node.items[part] as Node | undefined;
      return written && { key: written, written, value: this.resolve(written) };
    }
    if (!isMap(node)) return undefined;
    const pair = node.items.find(({ key }) => isScalar(key) && String(key.value) === part);
    return (
      pair && {
        key: pair.key as Node,
        written: (pair.value ?? undefined) as Node | undefined,
        value: this.resolve(pair.value),
      }
    );
  }

  private place(range: Range | null | undefined): { line: number; column: number } {
    return placeOf(this.lines, range?.[0] ?? 0);
  }
}

function placeOf(lines: LineCounter, offset: number): { line: number; column: number } {
  const { line, col } = lines.linePos(offset);
  return { line: Math.max(line, 1), column: Math.max(col, 1) };
}

/** What a node holds, for messages. */
export function describeNode(node: Node | undefined): string {
  if (node === undefined || (isScalar(node) && node.value === null)) return 'nothing';
  if (isMap(node)) return 'a mapping';
  if (isSeq(node)) return `a list of ${node.items.length}`;
  return isScalar(node) ? describe(node.value) : 'an alias of nothing';
}
