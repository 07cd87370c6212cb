/**
 * Compiled tokenizers on disk: to parse and compile the vocabulary of SigLIP 2 takes seconds, to read the tables back
 * next to nothing.
 *
 * A file is named by a SHA-256 digest of all that its contents depend on: the bytes of `tokenizer.json` and
 * `tokenizer_config.json`, the options, and the version of what compiles them. So a file is never out of date, whatever
 * happened to the checkpoint and to its modification times, and checkpoints with the same tokenizer share one. To hash the
 * JSON costs little beside parsing it.
 *
 *     8 numbers    magic, version, bytes of the file, CRC-32 of all that follows these 16 bytes,
 *                  bytes of the description, and three zeros
 *     32 bytes     the digest
 *     JSON         the description: {@link Description}, padded with spaces to a multiple of 4
 *     numbers      the arrays, one after the other
 *
 * Numbers have 32 bits in the byte order of the machine; elsewhere the magic number does not fit.
 */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { mkdir, open, readdir, rm, stat } from 'node:fs/promises';
import path from 'node:path';
import { crc32 } from 'node:zlib';
import { replace, writeDurably } from '../hub/cache.js';
import { derivedCache } from '../hub/settings.js';
import loader from '../native-loader.cjs';
import type { CompiledTokenizer, TokenizerTables } from './tokenizer-tables.js';

/** To be raised with every change of what is compiled from a file or of how it is written; a test says when. */
const version = 1;
const magic = 0x6b544c53; // "SLTk"
const headerBytes = 64;
const digestOffset = 32;
/** What the checksum covers begins here. */
const checkedOffset = 16;

/** Smaller files are compiled in less time than it is worth keeping the result. */
const leastBytes = 1_000_000;
/** More than the tables of any tokenizer; a longer file is not one of ours. */
const mostBytes = 2 ** 30;
/** A temporary file this old, in milliseconds, was left behind by a process that ended. */
const abandonedAfter = 3_600_000;

/** Bytes of a file that are hashed at a time. */
const sliceBytes = 2 ** 20;

const arrays = [
  'unitTokens',
  'astralCharacters',
  'astralTokens',
  'byteTokens',
  'merges',
  'results',
  'neighbours',
] as const;

/** The part of a file that is JSON. */
interface Description extends Pick<CompiledTokenizer, 'vocabSize' | 'eosId' | 'padId' | 'added'> {
  longestMerge: number;
  /** Numbers of each array, in the order of the file. */
  lengths: Record<(typeof arrays)[number], number>;
}

/** The files that a tokenizer is compiled from; the second need not be there. */
export interface TokenizerFiles {
  tokenizer: string;
  config: string;
}

/**
 * Reads the compiled form of a tokenizer; undefined when there is none that is whole, which includes every trouble with
 * the files it was compiled from.
 */
export async function readKept(files: TokenizerFiles, lowercase: boolean): Promise<CompiledTokenizer | undefined> {
  try {
    if ((await stat(files.tokenizer)).size < leastBytes) return undefined;
    const [json, config] = await Promise.all([
      digestFile(files.tokenizer),
      digestFile(files.config).catch((error: NodeJS.ErrnoException) => {
        if (error.code === 'ENOENT') return undefined;
        throw error;
      }),
    ]);
    const place = findPlace(json, config, lowercase);
    return place && parseCompiled(await readWhole(place.file), place.digest);
  } catch {
    return undefined;
  }
}

/**
 * Keeps the compiled form of a tokenizer, where that is possible: without it the next start takes longer, no more.
 * @param json, config the contents that it was compiled from
 */
export async function keep(
  compiled: CompiledTokenizer,
  json: Uint8Array,
  config: Uint8Array | undefined,
  lowercase: boolean,
): Promise<void> {
  if (json.length < leastBytes) return;
  const place = findPlace(digestOf(json), config && digestOf(config), lowercase);
  if (place === undefined) return;
  try {
    const folder = path.dirname(place.file);
    await makeFolder(folder);
    await removeAbandoned(folder);
    await replace(place.file, (temporary) => writeDurably(temporary, formatCompiled(compiled, place.digest)));
  } catch {
    // A folder that cannot be written to, or a full disk.
  }
}

/** Where the compiled form of files with these digests lies, and the digest that it has; undefined when nothing is kept. */
function findPlace(
  json: string,
  config: string | undefined,
  lowercase: boolean,
): { file: string; digest: Buffer } | undefined {
  const folder = derivedCache();
  if (folder === undefined) return undefined;
  const manifest = JSON.parse(readFileSync(path.join(loader.packageRoot, 'package.json'), 'utf8')) as {
    version: string;
  };
  // Node's Unicode tables lower-case the added tokens.
  const compiler = [version, manifest.version, process.versions.unicode];
  const digest = createHash('sha256')
    .update(JSON.stringify([compiler, lowercase, json, config ?? null]))
    .digest();
  return { file: path.join(folder, 'tokenizers', `${digest.toString('hex')}.tokenizer`), digest };
}

function digestOf(content: Uint8Array): string {
  return createHash('sha256').update(content).digest('hex');
}

/**
 * The SHA-256 digest of a file. It passes through a buffer that stays in the processor's caches: to hold all of it would
 * take several times as long.
 */
async function digestFile(file: string): Promise<string> {
  const hash = createHash('sha256');
  const buffer = Buffer.allocUnsafeSlow(sliceBytes);
  const handle = await open(file);
  try {
    for (;;) {
      const { bytesRead } = await handle.read(buffer, 0, buffer.length);
      if (bytesRead === 0) return hash.digest('hex');
      hash.update(buffer.subarray(0, bytesRead));
    }
  } finally {
    await handle.close();
  }
}

/** All bytes of a file in a buffer of its own, read at once: `readFile` asks again for every half a megabyte. */
async function readWhole(file: string): Promise<Buffer> {
  const handle = await open(file);
  try {
    const { size } = await handle.stat();
    if (size > mostBytes) throw new RangeError(`${file}: ${size} bytes`);
    const bytes = Buffer.allocUnsafeSlow(size);
    let filled = 0;
    for (let read = 1; filled < size && read > 0; filled += read)
      read = (await handle.read(bytes, filled, size - filled, filled)).bytesRead;
    return bytes.subarray(0, filled);
  } finally {
    await handle.close();
  }
}

/**
 * Makes a folder, for this user alone, and those above it as far as they are missing. (`mkdir` with `recursive` never
 * comes back from a file system that takes no folders, such as `/proc`.)
 */
async function makeFolder(folder: string): Promise<void> {
  const make = (): Promise<void> =>
    mkdir(folder, { mode: 0o700 }).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'EEXIST') throw error;
    });
  await make().catch(async (error: NodeJS.ErrnoException) => {
    const above = path.dirname(folder);
    if (error.code !== 'ENOENT' || above === folder) throw error;
    await makeFolder(above);
    await make();
  });
}

async function removeAbandoned(folder: string): Promise<void> {
  for (const name of await readdir(folder)) {
    if (!name.endsWith('.tmp')) continue;
    const file = path.join(folder, name);
    const modified = await stat(file).then(
      ({ mtimeMs }) => mtimeMs,
      () => Number.POSITIVE_INFINITY,
    );
    if (Date.now() - modified > abandonedAfter) await rm(file, { force: true });
  }
}

/** The contents of a file. */
export function formatCompiled(compiled: CompiledTokenizer, digest: Uint8Array): Uint8Array {
  const { tables, added, vocabSize, eosId, padId } = compiled;
  const lengths = Object.fromEntries(arrays.map((name) => [name, tables[name].length])) as Description['lengths'];
  const description: Description = { vocabSize, eosId, padId, added, longestMerge: tables.longestMerge, lengths };
  const json = Buffer.from(JSON.stringify(description));
  const descriptionBytes = Math.ceil(json.length / 4) * 4;
  const total = headerBytes + descriptionBytes + arrays.reduce((sum, name) => sum + tables[name].byteLength, 0);
  const bytes = new Uint8Array(total);
  const header = new Uint32Array(bytes.buffer, 0, headerBytes / 4);
  bytes.set(digest, digestOffset);
  bytes.fill(0x20, headerBytes, headerBytes + descriptionBytes);
  bytes.set(json, headerBytes);
  let offset = headerBytes + descriptionBytes;
  for (const name of arrays) {
    new Int32Array(bytes.buffer, offset).set(tables[name]);
    offset += tables[name].byteLength;
  }
  header[4] = descriptionBytes;
  header.set([magic, version, total, crc32(bytes.subarray(checkedOffset))]);
  return bytes;
}

/**
 * Reads the contents of a file; the arrays are views of it.
 * @param bytes a buffer of its own
 * @returns undefined when it was not written for this digest, or is damaged
 */
export function parseCompiled(bytes: Uint8Array, digest: Uint8Array): CompiledTokenizer | undefined {
  if (bytes.length < headerBytes || bytes.length % 4 !== 0) return undefined;
  const header = new Uint32Array(bytes.buffer, bytes.byteOffset, headerBytes / 4);
  if (header[0] !== magic || header[1] !== version || header[2] !== bytes.length) return undefined;
  if (Buffer.compare(bytes.subarray(digestOffset, headerBytes), digest) !== 0) return undefined;
  if (header[3] !== crc32(bytes.subarray(checkedOffset))) return undefined;
  // From here on the file is what was written.
  const start = headerBytes + header[4]!;
  const json = Buffer.from(bytes.buffer, bytes.byteOffset + headerBytes, header[4]!).toString('utf8');
  const { longestMerge, lengths, ...rest } = JSON.parse(json) as Description;
  const tables: Partial<TokenizerTables> = { longestMerge };
  let offset = bytes.byteOffset + start;
  for (const name of arrays) {
    tables[name] = new Int32Array(bytes.buffer, offset, lengths[name]);
    offset += 4 * lengths[name];
  }
  return { ...rest, tables: tables as TokenizerTables };
}
