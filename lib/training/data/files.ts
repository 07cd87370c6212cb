/** Lists of files from patterns such as `train-{0000..0009}.tar` and `shards/*.tar`. */
import { createHash } from 'node:crypto';
import { readdir, stat } from 'node:fs/promises';
import path from 'node:path';
import { wrongRange, wrongType } from '../../arguments.js';
import { dataError, messageOf } from './errors.js';

/** A file that exists, by its absolute path. */
export interface DataFile {
  path: string;
  bytes: number;
}

const maximumNames = 1_000_000;

/**
 * The files of one or several patterns. Braces stand for every name they spell (`{a,b}`, `{00..11}` with its leading
 * zeros) and each of those must exist; then `*` and `?` stand for what is there, in the order of the names.
 *
 * @param base folder of relative patterns
 * @throws SiglipError `ERR_SIGLIP_DATA` naming a file that does not exist or a pattern that nothing matches
 */
export async function findFiles(patterns: unknown, base: string, argument: string): Promise<DataFile[]> {
  const list: readonly unknown[] = Array.isArray(patterns) ? patterns : [patterns];
  if (list.length === 0) throw wrongRange(argument, 'at least one file', patterns);
  const files: DataFile[] = [];
  for (const pattern of list) {
    if (typeof pattern !== 'string') throw wrongType(argument, 'a path or pattern, or an array of them', pattern);
    if (pattern === '') throw wrongRange(argument, 'a path or pattern', pattern);
    for (const name of expandBraces(pattern, argument)) {
      const file = path.resolve(base, name);
      const found = /[*?]/.test(name) ? await matchingFiles(file) : [file];
      for (const each of found) files.push(await existingFile(each));
    }
  }
  return files;
}

async function existingFile(file: string): Promise<DataFile> {
  try {
    const entry = await stat(file);
    if (!entry.isFile()) throw new Error('it is not a file');
    return { path: file, bytes: entry.size };
  } catch (cause) {
    throw dataError(file, `cannot be read: ${messageOf(cause)}`, { cause });
  }
}

/** Every name that the braces of a pattern spell, the last pair changing fastest. */
export function expandBraces(pattern: string, argument: string): string[] {
  let names = [''];
  let end = 0;
  for (const match of pattern.matchAll(/\{([^{}]*)\}/g)) {
    const between = pattern.slice(end, match.index);
    const choices = braceChoices(match[1]!, names.length, pattern, argument);
    names = names.flatMap((name) => choices.map((choice) => name + between + choice));
    end = match.index + match[0].length;
  }
  return names.map((name) => name + pattern.slice(end));
}

function braceChoices(content: string, names: number, pattern: string, argument: string): string[] {
  const range = /^(\d+)\.\.(\d+)$/.exec(content);
  // As in a shell, braces around a single name are part of it.
  if (range === null) return content.includes(',') ? content.split(',') : [`{${content}}`];
  const [first, last] = [Number(range[1]), Number(range[2])];
  const step = first <= last ? 1 : -1;
  const count = Math.abs(last - first) + 1;
  if (!(count * names <= maximumNames))
    throw wrongRange(argument, `a pattern of at most ${maximumNames} names`, pattern);
  const width = [range[1]!, range[2]!].some((text) => /^0\d/.test(text))
    ? Math.max(range[1]!.length, range[2]!.length)
    : 0;
  return Array.from({ length: count }, (_, i) => String(first + i * step).padStart(width, '0'));
}

/** What `*` and `?` match, neither of which stands for a separator or the dot of a hidden file. */
async function matchingFiles(pattern: string): Promise<string[]> {
  const { root } = path.parse(pattern);
  let folders = [root];
  const parts = pattern.slice(root.length).split(path.sep);
  for (const [i, part] of parts.entries()) {
    const matches: string[] = [];
    for (const folder of folders) matches.push(...(await matchingEntries(folder, part, i === parts.length - 1)));
    folders = matches;
  }
  const files: string[] = [];
  // A last part without a wildcard was taken unseen.
  for (const file of folders) if ((await stat(file).catch(() => undefined))?.isFile()) files.push(file);
  if (files.length === 0) throw dataError(pattern, 'no file matches this pattern');
  return files;
}

async function matchingEntries(folder: string, part: string, last: boolean): Promise<string[]> {
  if (!/[*?]/.test(part)) return [path.join(folder, part)];
  const source = part
    .replace(/[.+^${}()|[\]\\]/g, '\\$&')
    .replaceAll('*', '.*')
    .replaceAll('?', '.');
  const expression = new RegExp(`^${source}$`, 's');
  const entries = await readdir(folder, { withFileTypes: true }).catch(() => []);
  return entries
    .filter((entry) => (last ? !entry.isDirectory() : !entry.isFile()))
    .map(({ name }) => name)
    .filter((name) => expression.test(name) && (part.startsWith('.') || !name.startsWith('.')))
    .sort()
    .map((name) => path.join(folder, name));
}

/** Tells one list of files from another by names and sizes, wherever the files lie. */
export function fingerprint(files: readonly DataFile[]): string {
  const hash = createHash('sha256');
  for (const file of files) hash.update(`${path.basename(file.path)}\0${file.bytes}\n`);
  return hash.digest('hex').slice(0, 16);
}
