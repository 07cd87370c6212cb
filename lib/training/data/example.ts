/** What the readers of every kind of file find: an example, or the reason why there is none. */
import path from 'node:path';
import { describe } from '../../arguments.js';
import { purposes, RandomStream } from './random.js';

/** One picture and its caption. */
export interface Example {
  /** Path of the picture as the captions file has it, or the name that the members of a shard share. */
  key: string;
  /** The encoded picture, or the absolute path of its file. */
  image: string | Uint8Array;
  /** The caption that was drawn. */
  text: string;
  /** Every caption that the picture has in its row or file, at least one, none empty. */
  texts: readonly string[];
  /** Where it came from, for messages: file and line, row, or key. */
  source: string;
}

/** An example as it is stored, before one of its captions is drawn. */
export type StoredExample = Omit<Example, 'text'>;

/** An example, or more than one, that was left out. */
export interface Skip {
  /** File and line, row, or key; of a shard that ends too soon only the file. */
  source: string;
  reason: string;
}

export type Found = StoredExample | Skip;

export function isSkip(found: Found): found is Skip {
  return 'reason' in found;
}

/** Where pictures and captions are found in a row or a JSON object: the first of these names that is there. */
export interface FieldNames {
  image: readonly string[];
  text: readonly string[];
}

/** The names that are looked for unless the caller chose one. */
export function fieldNames(imageKey?: string, textKey?: string): FieldNames {
  return {
    image: imageKey === undefined ? ['image', 'file_name'] : [imageKey],
    text: textKey === undefined ? ['text', 'caption'] : [textKey],
  };
}

/** Names as messages show them: `"text" or "caption"`. */
export function alternatives(names: readonly string[]): string {
  return names.map((name) => `"${name}"`).join(' or ');
}

/** The value under the first of the names that is there; null counts as absent. */
export function fieldOf(fields: Readonly<Record<string, unknown>>, names: readonly string[]): unknown {
  for (const name of names) {
    const value = Object.hasOwn(fields, name) ? fields[name] : undefined;
    if (value !== undefined && value !== null) return value;
  }
  return undefined;
}

/** Strict UTF-8 to text; a byte order mark is an ordinary character here. */
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** The text of UTF-8 bytes; `undefined` when they are not UTF-8. */
export function decodeUtf8(bytes: Uint8Array): string | undefined {
  try {
    return decoder.decode(bytes);
  } catch {
    return undefined;
  }
}

/** Half of a surrogate pair, which JSON can spell and UTF-8 cannot. */
const unpairedSurrogate = /\p{Surrogate}/u;

/**
 * The captions of a field: a text, or a list of texts of which empty ones do not count. A text that is no valid
 * Unicode spoils the example, because nothing tells what it was meant to be.
 *
 * @param value what the field holds; a reader gives {@link Uint8Array} for text that is not UTF-8
 * @returns the captions, or why there are none
 */
export function captionsOf(value: unknown, names: readonly string[]): readonly string[] | string {
  if (value === undefined || value === null) return `there is no caption ${alternatives(names)}`;
  const texts: string[] = [];
  for (const text of Array.isArray(value) ? value : [value]) {
    if (text instanceof Uint8Array) return 'the caption is not valid UTF-8';
    if (typeof text !== 'string') return `the caption must be a text or a list of texts, not ${describe(text)}`;
    if (unpairedSurrogate.test(text)) return 'the caption is not valid Unicode: it has half of a surrogate pair';
    if (text.trim() !== '') texts.push(text);
  }
  return texts.length > 0 ? texts : 'the caption is empty';
}

/** Absolute path of a picture that a captions file names; `undefined` when it would lie outside of the folder. */
export function imagePath(folder: string, name: string): string | undefined {
  const file = path.resolve(folder, name);
  const way = path.relative(folder, file);
  const outside = way === '' || way === '..' || way.startsWith(`..${path.sep}`) || path.isAbsolute(way);
  return outside ? undefined : file;
}

/** The example of a row that names its picture by a path. `folder` is absolute. */
export function rowExample(
  fields: Readonly<Record<string, unknown>>,
  names: FieldNames,
  folder: string,
  source: string,
): Found {
  const name = fieldOf(fields, names.image);
  if (name === undefined) return { source, reason: `there is no picture ${alternatives(names.image)}` };
  if (typeof name !== 'string' || name === '')
    return { source, reason: `the picture must be the path of a file, not ${describe(name)}` };
  const image = imagePath(folder, name);
  if (image === undefined) return { source, reason: `the picture ${describe(name)} lies outside of ${folder}` };
  const texts = captionsOf(fieldOf(fields, names.text), names.text);
  return typeof texts === 'string' ? { source, reason: texts } : { key: name, image, texts, source };
}

/** Tells the examples of all epochs apart: what is drawn for one depends on this and the seed. */
export type Place = readonly [epoch: number, numberInEpoch: number];

/** An example with one of its captions, drawn anew in every epoch. */
export function withCaption(stored: StoredExample, seed: number, place: Place): Example {
  const { key, image, texts, source } = stored;
  const choice = texts.length === 1 ? 0 : new RandomStream(seed, purposes.caption, ...place).below(texts.length);
  return { key, image, text: texts[choice]!, texts, source };
}

/**
 * Several captions of an example, each drawn like the one of {@link withCaption}, without those that are drawn again:
 * at most `count`, and the first is {@link Example.text}.
 */
export function drawCaptions({ texts }: Example, seed: number, place: Place, count: number): string[] {
  const random = new RandomStream(seed, purposes.caption, ...place);
  const drawn = new Set<string>();
  for (let i = 0; i < count; i++) drawn.add(texts[texts.length === 1 ? 0 : random.below(texts.length)]!);
  return [...drawn];
}
