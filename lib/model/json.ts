/** JSON files of a checkpoint, read defensively: every failure is a coded error that names the file and the place. */
import { open } from 'node:fs/promises';
import { describe } from '../arguments.js';
import { SiglipError, type SiglipErrorCode } from '../errors.js';

/** A parsed JSON object. Read it with `Object.hasOwn` or {@link JsonFields}: a hostile file can use any key. */
export type JsonObject = Record<string, unknown>;

/** Deeper nesting than any real file has; it keeps later recursive work, such as serialising again, off the stack's end. */
const maximumDepth = 128;
const maximumFileBytes = 16 * 1024 * 1024;

export function isJsonObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/**
 * Parses JSON text.
 *
 * @param file names the file in errors
 * @param code of the {@link SiglipError} thrown for text that is not JSON; `details` has `file`, `position`, `line`, `column`
 * @param options.strict also refuses what readers disagree about: duplicate keys, unpaired surrogates, and numbers other
 *   than plain non-negative integers
 * @param options.part the part of the file that the text is, for errors
 */
export function parseJson(
  text: string,
  file: string,
  code: SiglipErrorCode,
  options: { strict?: boolean; part?: string } = {},
): unknown {
  const fault = new Scanner(text, options.strict ?? false).scan();
  if (fault !== undefined) {
    const before = text.slice(0, fault.position);
    const line = before.split('\n').length;
    const column = fault.position - before.lastIndexOf('\n');
    throw new SiglipError(
      code,
      `${file}: ${options.part ?? 'the file'} is not valid JSON: ${fault.message} at line ${line}, column ${column} (position ${fault.position})`,
      { details: { file, position: fault.position, line, column } },
    );
  }
  return JSON.parse(text);
}

/**
 * Reads and parses a JSON file in UTF-8, with or without a byte order mark. A file that does not exist is `undefined`;
 * one that cannot be read, is implausibly large, or is not JSON is an error with `code`.
 */
export async function readJsonFile(
  file: string,
  code: SiglipErrorCode,
  maximumBytes = maximumFileBytes,
): Promise<unknown> {
  let bytes: Buffer;
  try {
    const handle = await open(file, 'r');
    try {
      const { size } = await handle.stat();
      if (size > maximumBytes)
        throw new SiglipError(code, `${file} has ${size} bytes; at most ${maximumBytes} are expected of such a file`, {
          details: { file, bytes: size, maximumBytes },
        });
      bytes = await handle.readFile();
    } finally {
      await handle.close();
    }
  } catch (cause) {
    if (cause instanceof SiglipError) throw cause;
    const reason = (cause as NodeJS.ErrnoException).code;
    if (reason === 'ENOENT' || reason === 'ENOTDIR') return undefined;
    throw new SiglipError(code, `${file} cannot be read: ${(cause as Error).message}`, { details: { file }, cause });
  }
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new SiglipError(code, `${file} is not UTF-8 text`, { details: { file }, cause });
  }
  return parseJson(text, file, code);
}

interface Fault {
  position: number;
  message: string;
}

/** Checks text against the JSON grammar (RFC 8259) and finds the first place where it departs from it. */
class Scanner {
  private position = 0;

  constructor(
    private readonly text: string,
    private readonly strict: boolean,
  ) {}

  scan(): Fault | undefined {
    return this.value(0) ?? this.end();
  }

  private end(): Fault | undefined {
    this.skipSpace();
    return this.position < this.text.length ? this.fault('unexpected text after the value') : undefined;
  }

  private fault(message: string, position = this.position): Fault {
    return { position, message: position >= this.text.length ? 'unexpected end of text' : message };
  }

  private skipSpace(): void {
    for (; this.position < this.text.length; this.position++) {
      const code = this.text.charCodeAt(this.position);
      if (code !== 0x20 && code !== 0x0a && code !== 0x0d && code !== 0x09) return;
    }
  }

  private value(depth: number): Fault | undefined {
    if (depth > maximumDepth) return this.fault(`nesting deeper than ${maximumDepth}`);
    this.skipSpace();
    const first = this.text[this.position];
    if (first === '{') return this.object(depth);
    if (first === '[') return this.array(depth);
    if (first === '"') return this.string();
    for (const word of ['true', 'false', 'null'])
      if (this.text.startsWith(word, this.position)) {
        this.position += word.length;
        return undefined;
      }
    return this.number();
  }

  private object(depth: number): Fault | undefined {
    const keys = this.strict ? new Set<string>() : undefined;
    this.position++;
    this.skipSpace();
    if (this.take('}')) return undefined;
    for (;;) {
      this.skipSpace();
      const start = this.position;
      if (this.text[start] !== '"') return this.fault('expected a key in quotes');
      const broken = this.string();
      if (broken !== undefined) return broken;
      if (keys !== undefined) {
        const key = JSON.parse(this.text.slice(start, this.position)) as string;
        if (keys.has(key)) return this.fault(`duplicate key ${describe(key)}`, start);
        keys.add(key);
      }
      this.skipSpace();
      if (!this.take(':')) return this.fault('expected ":"');
      const inner = this.value(depth + 1);
      if (inner !== undefined) return inner;
      this.skipSpace();
      if (this.take('}')) return undefined;
      if (!this.take(',')) return this.fault('expected "," or "}"');
    }
  }

  private array(depth: number): Fault | undefined {
    this.position++;
    this.skipSpace();
    if (this.take(']')) return undefined;
    for (;;) {
      const inner = this.value(depth + 1);
      if (inner !== undefined) return inner;
      this.skipSpace();
      if (this.take(']')) return undefined;
      if (!this.take(',')) return this.fault('expected "," or "]"');
    }
  }

  private take(character: string): boolean {
    if (this.text[this.position] !== character) return false;
    this.position++;
    return true;
  }

  private string(): Fault | undefined {
    const start = this.position++;
    for (; this.position < this.text.length; this.position++) {
      const code = this.text.charCodeAt(this.position);
      if (code === 0x22) {
        this.position++;
        if (this.strict && /\p{Surrogate}/u.test(JSON.parse(this.text.slice(start, this.position)) as string))
          return this.fault('a string with an unpaired surrogate', start);
        return undefined;
      }
      if (code < 0x20) return this.fault('a control character inside a string');
      if (code !== 0x5c) continue;
      const escaped = this.text[++this.position];
      if (escaped === 'u') {
        if (!/^[0-9a-fA-F]{4}$/.test(this.text.slice(this.position + 1, this.position + 5)))
          return this.fault('a broken \\u escape');
        this.position += 4;
      } else if (escaped === undefined || !'"\\/bfnrt'.includes(escaped)) {
        return this.fault('an unknown escape');
      }
    }
    return this.fault('an unterminated string');
  }

  private number(): Fault | undefined {
    const pattern = this.strict ? /(?:0|[1-9]\d*)(?![\d.eE])/y : /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
    pattern.lastIndex = this.position;
    const match = pattern.exec(this.text);
    if (match === null)
      return this.fault(this.strict ? 'expected a value (numbers: non-negative integers)' : 'expected a value');
    this.position += match[0].length;
    return undefined;
  }
}

/**
 * Typed access to the members of a JSON object of a configuration. A missing or `null` member takes the fallback; one of
 * the wrong kind is `ERR_SIGLIP_CONFIG` that names the file and the member.
 */
export class JsonFields {
  constructor(
    private readonly object: JsonObject,
    private readonly where: string,
    private readonly prefix = '',
  ) {}

  /** The member's value; `undefined` when missing or `null`. */
  get(key: string): unknown {
    return Object.hasOwn(this.object, key) ? (this.object[key] ?? undefined) : undefined;
  }

  /** The error for a member that is not what was expected. */
  wrong(key: string, expected: string, value: unknown): SiglipError {
    const field = this.prefix + key;
    return new SiglipError(
      'ERR_SIGLIP_CONFIG',
      `${this.where}: ${field}: expected ${expected}, got ${describe(value)}`,
      {
        details: { file: this.where, field },
      },
    );
  }

  /** An object member; a missing one is empty. */
  section(key: string): JsonFields {
    const value = this.get(key) ?? {};
    if (!isJsonObject(value)) throw this.wrong(key, 'an object', value);
    return new JsonFields(value, this.where, `${this.prefix}${key}.`);
  }

  integer(key: string, fallback: number, maximum: number): number {
    const value = this.get(key);
    return value === undefined ? fallback : this.checkInteger(key, value, maximum);
  }

  /** An integer, or a pair of equal integers (height and width). */
  squareInteger(key: string, fallback: number, maximum: number): number {
    const value = this.get(key);
    if (Array.isArray(value)) {
      if (value.length !== 2 || value[0] !== value[1])
        throw this.wrong(key, 'one number or two equal ones (only square sizes are supported)', JSON.stringify(value));
      return this.checkInteger(key, value[0], maximum);
    }
    return this.integer(key, fallback, maximum);
  }

  private checkInteger(key: string, value: unknown, maximum: number): number {
    if (typeof value !== 'number' || !Number.isInteger(value) || value < 1 || value > maximum)
      throw this.wrong(key, `an integer from 1 to ${maximum}`, value);
    return value;
  }

  positiveNumber(key: string, fallback: number): number {
    const value = this.get(key);
    if (value === undefined) return fallback;
    if (typeof value !== 'number' || !Number.isFinite(value) || value <= 0)
      throw this.wrong(key, 'a finite number above 0', value);
    return value;
  }

  boolean(key: string, fallback: boolean): boolean {
    const value = this.get(key);
    if (value === undefined) return fallback;
    if (typeof value !== 'boolean') throw this.wrong(key, 'true or false', value);
    return value;
  }

  string(key: string, fallback: string): string {
    const value = this.get(key);
    if (value === undefined) return fallback;
    if (typeof value !== 'string') throw this.wrong(key, 'a string', value);
    return value;
  }
}
