/** What may be written in a configuration file, and the values that come out of it. */
import { isMap, isScalar, isSeq, type Node } from 'yaml';
import { type ConfigDocument, describeNode, type Mistake, mistakesError, type Way } from './document.js';

/** Reads a value, or says what is wrong with it and returns `undefined`. */
export interface Schema<T> {
  read(node: Node | undefined, way: Way, reader: Reader): T | undefined;
}

/** The type of what a schema reads. */
export type ValueOf<S> = S extends Schema<infer T> ? T : never;

/** A document being read. */
export class Reader {
  readonly mistakes: Mistake[] = [];

  constructor(readonly document: ConfigDocument) {}

  wrong(way: Way, message: string, at?: 'key' | 'value'): undefined {
    this.mistakes.push(this.document.mistake(way, message, at));
    return undefined;
  }

  unexpected(way: Way, expected: string, node: Node | undefined): undefined {
    const got = way.length === 0 && node === undefined ? 'an empty file' : describeNode(node);
    return this.wrong(way, `expected ${expected}, got ${got}`);
  }
}

/**
 * Reads a whole document.
 * @param check finds mistakes that concern several values, when each by itself is right
 * @throws SiglipError ERR_SIGLIP_CONFIG with every mistake, in the order of their places
 */
export function readDocument<T>(
  document: ConfigDocument,
  schema: Schema<T>,
  check: (value: T, wrong: (way: Way, message: string) => void) => void,
): T {
  const reader = new Reader(document);
  const value = schema.read(document.root, [], reader);
  if (reader.mistakes.length === 0 && value !== undefined)
    check(value, (way, message) => {
      reader.wrong(way, message);
    });
  if (reader.mistakes.length > 0 || value === undefined)
    throw mistakesError(reader.mistakes.sort((a, b) => a.line - b.line || a.column - b.column));
  return value;
}

function scalar<T>(expected: string, accept: (value: unknown) => value is T): Schema<T> {
  return {
    read(node, way, reader) {
      const value: unknown = isScalar(node) ? node.value : undefined;
      return accept(value) ? value : reader.unexpected(way, expected, node);
    },
  };
}

export const text: Schema<string> = scalar(
  'a text',
  (value): value is string => typeof value === 'string' && value !== '',
);

export const boolean: Schema<boolean> = scalar('true or false', (value) => typeof value === 'boolean');

export function integer(least: number, most = Number.MAX_SAFE_INTEGER): Schema<number> {
  const range = most === Number.MAX_SAFE_INTEGER ? `of at least ${least}` : `from ${least} to ${most}`;
  return scalar(
    `an integer ${range}`,
    (value): value is number => Number.isSafeInteger(value) && (value as number) >= least && (value as number) <= most,
  );
}

/** A finite number. Bounds of what goes into options of the library are the library's to check. */
export const number: Schema<number> = scalar('a number', (value): value is number => Number.isFinite(value));

export function oneOf<const T extends string>(...allowed: readonly T[]): Schema<T> {
  return scalar(`one of ${allowed.join(', ')}`, (value): value is T => (allowed as readonly unknown[]).includes(value));
}

/** A list with at least one entry, and of a fixed number when `length` says so. */
export function list<T>(entry: Schema<T>, length?: number): Schema<T[]> {
  return {
    read(node, way, reader) {
      const expected = length === undefined ? 'a list with at least one entry' : `a list of ${length}`;
      if (!isSeq(node) || node.items.length === 0 || (length !== undefined && node.items.length !== length))
        return reader.unexpected(way, expected, node);
      const values = node.items.map((item, index) =>
        entry.read(reader.document.resolve(item), [...way, index], reader),
      );
      return values.some((value) => value === undefined) ? undefined : (values as T[]);
    },
  };
}

/** A list of at least one entry, or a single one without the brackets. */
export function oneOrMore<T>(entry: Schema<T>): Schema<T[]> {
  const several = list(entry);
  return {
    read(node, way, reader) {
      if (isSeq(node)) return several.read(node, way, reader);
      const value = entry.read(node, way, reader);
      return value === undefined ? undefined : [value];
    },
  };
}

/** One of two schemas, whichever the kind of node says. */
export function mappingOr<T, U>(mapping: Schema<T>, other: Schema<U>): Schema<T | U> {
  return { read: (node, way, reader) => (isMap(node) ? mapping : other).read(node, way, reader) as T | U | undefined };
}

type Fields = Readonly<Record<string, Schema<unknown>>>;
type Section<Required extends Fields, Optional extends Fields> = {
  [K in keyof Required]: ValueOf<Required[K]>;
} & { [K in keyof Optional]?: ValueOf<Optional[K]> };

/** A mapping with these keys and no others. */
export function section<Required extends Fields, Optional extends Fields>(
  required: Required,
  optional: Optional,
): Schema<Section<Required, Optional>> {
  const fields: Fields = { ...required, ...optional };
  return {
    read(node, way, reader) {
      if (!isMap(node)) return reader.unexpected(way, `a mapping with ${Object.keys(fields).join(', ')}`, node);
      const values: Record<string, unknown> = {};
      for (const { key, value } of node.items) {
        const name = isScalar(key) ? String(key.value) : '';
        const schema = Object.hasOwn(fields, name) ? fields[name] : undefined;
        if (schema === undefined) reader.wrong([...way, name], unknownKey(name, Object.keys(fields)), 'key');
        else values[name] = schema.read(reader.document.resolve(value), [...way, name], reader);
      }
      for (const name of Object.keys(required))
        if (!Object.hasOwn(values, name)) reader.wrong([...way, name], 'is required', 'key');
      return values as Section<Required, Optional>;
    },
  };
}

function unknownKey(name: string, known: readonly string[]): string {
  const nearest = known
    .map((candidate) => ({ candidate, distance: editDistance(name.toLowerCase(), candidate.toLowerCase()) }))
    .sort((a, b) => a.distance - b.distance)[0];
  const alike = nearest !== undefined && nearest.distance <= Math.max(2, Math.floor(nearest.candidate.length / 3));
  return alike
    ? `there is no such key; did you mean ${nearest.candidate}?`
    : `there is no such key; there are ${known.join(', ')}`;
}

/** Insertions, deletions, replacements and exchanges of neighbours that turn one text into the other. */
function editDistance(a: string, b: string): number {
  let before: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const changed = (last[j - 1] as number) + (a[i - 1] === b[j - 1] ? 0 : 1);
      const exchanged =
        i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]
          ? (before[j - 2] as number) + 1
          : Number.POSITIVE_INFINITY;
      row.push(Math.min(changed, exchanged, (last[j] as number) + 1, (row[j - 1] as number) + 1));
    }
    [before, last] = [last, row];
  }
  return last[b.length] as number;
}
