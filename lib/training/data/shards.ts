/** WebDataset shards: tar archives, plain or with gzip, in which files of one name are one example. */
import { createReadStream } from 'node:fs';
import { open } from 'node:fs/promises';
import { Readable } from 'node:stream';
import { createGunzip } from 'node:zlib';
import { isJsonObject } from '../../model/json.js';
import loader from '../../native-loader.cjs';
import { dataError, messageOf } from './errors.js';
import { alternatives, captionsOf, decodeUtf8, type FieldNames, type Found, fieldOf } from './example.js';
import type { Part } from './parts.js';

/** Endings of the members that are pictures: what the decoder reads. */
const imageExtensions = new Set(['jpg', 'jpeg', 'png', 'webp', 'gif', 'tif', 'tiff', 'avif']);

/** Larger members are not kept; a damaged header can announce any size. */
const maximumImageBytes = 256 << 20;
const maximumTextBytes = 1 << 20;

/** The members of one name, as far as they have been read. */
interface Sample {
  key: string;
  /** Tells it from all others of the data set. */
  source: string;
  /** Endings of all its members. */
  fields: string[];
  image?: Uint8Array;
  txt?: Uint8Array;
  json?: Uint8Array;
  problem?: string;
}

/** A shard as a part of a data set. */
export function shardPart(file: string, names: FieldNames): Part {
  return { name: file, read: () => readShard(file, names) };
}

async function* readShard(file: string, names: FieldNames): AsyncGenerator<Found> {
  const { extract } = loader.requirePackage('tar-stream') as typeof import('tar-stream');
  const bytes = await openBytes(file);
  // Errors of the source end the stream like a cut file does, so that everything before them is read in any case.
  const failure: { error?: unknown } = {};
  const readable = Readable.from(untilFailure(bytes, failure), { objectMode: false, highWaterMark: readBytes });
  const archive = extract();
  readable.pipe(archive);

  let members = 0;
  let examples = 0;
  let sample: Sample | undefined;
  // Adding to an archive leaves the members of the same name in it: each time they come they are an example of its own.
  const times = new Map<string, number>();
  try {
    for await (const member of archive) {
      members++;
      const { name, type } = member.header;
      const parts = /^((?:.*\/)?[^./]+)\.([^/]*)$/.exec(name);
      if (parts === null || (type !== 'file' && type !== 'contiguous-file')) {
        member.resume();
        continue;
      }
      const [, key, extension] = parts as unknown as [string, string, string];
      if (sample !== undefined && sample.key !== key) {
        examples++;
        yield finish(sample, names);
        sample = undefined;
      }
      if (sample === undefined) {
        const time = (times.get(key) ?? 0) + 1;
        times.set(key, time);
        // With a dot, which no key has there.
        sample = { key, source: `${file} ${key}${time === 1 ? '' : ` (no. ${time})`}`, fields: [] };
      }
      await addMember(sample, extension.toLowerCase(), member);
    }
    if (failure.error !== undefined) throw failure.error;
    if (sample !== undefined) {
      examples++;
      yield finish(sample, names);
    }
    if (examples === 0) yield { source: file, reason: 'the shard holds no examples' };
  } catch (error) {
    const cause = failure.error ?? error;
    if (members === 0) throw dataError(file, `is not a tar archive: ${messageOf(cause)}`, { cause });
    yield {
      source: file,
      reason: `the shard is damaged after ${examples} examples; the rest of it is skipped: ${messageOf(cause)}`,
    };
  } finally {
    readable.destroy();
    archive.destroy();
    bytes.destroy();
  }
}

const readBytes = 1 << 18;
const gzipMagic = 0x1f8b;

/** The bytes of the archive; gzip is told by its first bytes, whatever the file is called. */
async function openBytes(file: string): Promise<Readable> {
  let magic: number;
  try {
    const handle = await open(file, 'r');
    try {
      const { buffer, bytesRead } = await handle.read(Buffer.alloc(2), 0, 2, 0);
      magic = bytesRead === 2 ? buffer.readUInt16BE() : 0;
    } finally {
      await handle.close();
    }
  } catch (cause) {
    throw dataError(file, `cannot be read: ${messageOf(cause)}`, { cause });
  }
  const stored = createReadStream(file, { highWaterMark: readBytes });
  if (magic !== gzipMagic) return stored;
  // Room for one byte makes the decoder wait until each piece is taken; it drops what is waiting when it fails.
  const options = { chunkSize: readBytes, readableHighWaterMark: 1 };
  const unpacked = createGunzip(options);
  stored.on('error', (error) => unpacked.destroy(error));
  unpacked.on('close', () => stored.destroy());
  return stored.pipe(unpacked);
}

async function* untilFailure(bytes: Readable, failure: { error?: unknown }): AsyncGenerator<Buffer> {
  try {
    yield* bytes as AsyncIterable<Buffer>;
  } catch (error) {
    failure.error = error;
  }
}

async function addMember(sample: Sample, extension: string, member: Readable): Promise<void> {
  sample.fields.push(extension);
  const field = imageExtensions.has(extension) ? 'image' : extension;
  if (field !== 'image' && field !== 'txt' && field !== 'json') {
    member.resume();
    return;
  }
  const limit = field === 'image' ? maximumImageBytes : maximumTextBytes;
  const content = await collect(member, limit);
  if (sample[field] !== undefined) sample.problem ??= `there are two members of kind ${field}`;
  else if (content === undefined) sample.problem ??= `the member .${extension} has more than ${limit} bytes`;
  else sample[field] = content;
}

/** The content of a member; `undefined` when it is larger than the limit. */
async function collect(member: Readable, limit: number): Promise<Uint8Array | undefined> {
  const pieces: Buffer[] = [];
  let length = 0;
  for await (const piece of member as AsyncIterable<Buffer>) {
    length += piece.length;
    if (length <= limit) pieces.push(piece);
    else pieces.length = 0;
  }
  // Joining copies, so that no example keeps the pieces of its neighbours in memory.
  return length <= limit ? Buffer.concat(pieces, length) : undefined;
}

/** The example of a complete sample. The caption is that of the `.txt` member; without one, that of the `.json`. */
function finish(sample: Sample, names: FieldNames): Found {
  const { key, source, image, problem } = sample;
  if (problem !== undefined) return { source, reason: problem };
  if (image === undefined) return { source, reason: `there is no picture (members: ${sample.fields.join(', ')})` };
  const caption = storedCaption(sample, names);
  if ('reason' in caption) return { source, reason: caption.reason };
  const texts = captionsOf(caption.value, names.text);
  return typeof texts === 'string' ? { source, reason: texts } : { key, image, texts, source };
}

/** The text of a member without its byte order mark; `undefined` when it is not UTF-8. */
function memberText(bytes: Uint8Array): string | undefined {
  return decodeUtf8(bytes)?.replace(/^\uFEFF/, '');
}

function storedCaption({ fields, txt, json }: Sample, names: FieldNames): { value: unknown } | { reason: string } {
  // Line breaks at the end belong to the file, not to the caption.
  if (txt !== undefined) return { value: memberText(txt)?.replace(/[\r\n]+$/, '') ?? txt };
  if (json === undefined) return { reason: `there is no caption .txt or .json (members: ${fields.join(', ')})` };
  const text = memberText(json);
  if (text === undefined) return { reason: 'the member .json is not valid UTF-8' };
  try {
    const value: unknown = JSON.parse(text);
    if (!isJsonObject(value)) return { reason: 'the member .json is not a JSON object' };
    const caption = fieldOf(value, names.text);
    return caption === undefined
      ? { reason: `the member .json has no ${alternatives(names.text)}` }
      : { value: caption };
  } catch (error) {
    return { reason: `the member .json is not valid JSON: ${messageOf(error)}` };
  }
}
