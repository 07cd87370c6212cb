/** The safetensors format: what a file's header says about its tensors. Only headers are read here, never weights. */
import { type FileHandle, open } from 'node:fs/promises';
import { describe } from '../arguments.js';
import { SiglipError } from '../errors.js';
import { isJsonObject, type JsonObject, parseJson } from './json.js';

/** Bits of one element, for every dtype of the format. */
const bitsOfDType = {
  BOOL: 8,
  F4: 4,
  F6_E2M3: 6,
  F6_E3M2: 6,
  U8: 8,
  I8: 8,
  F8_E5M2: 8,
  F8_E4M3: 8,
  F8_E8M0: 8,
  F8_E4M3FNUZ: 8,
  F8_E5M2FNUZ: 8,
  I16: 16,
  U16: 16,
  F16: 16,
  BF16: 16,
  I32: 32,
  U32: 32,
  F32: 32,
  C64: 64,
  F64: 64,
  I64: 64,
  U64: 64,
} as const;

/** An element type of the format, under the format's name for it. */
export type SafetensorsDType = keyof typeof bitsOfDType;

/** The dtypes in the format's order, by which writers sort tensors (the last ones first). */
export const safetensorsDTypes = Object.keys(bitsOfDType) as readonly SafetensorsDType[];

/** Where a tensor lies in its file: bytes `begin` to `end` (exclusive), counted from the start of the file. */
export interface SafetensorsEntry {
  readonly dtype: SafetensorsDType;
  readonly shape: readonly number[];
  readonly begin: number;
  readonly end: number;
}

/** A safetensors file, as its header describes it. */
export interface SafetensorsFile {
  readonly path: string;
  /** Bytes of the file. */
  readonly size: number;
  /** Where the tensors' bytes start. */
  readonly dataOffset: number;
  readonly metadata: ReadonlyMap<string, string>;
  /** By name, in the order of their bytes. */
  readonly tensors: ReadonlyMap<string, SafetensorsEntry>;
}

/** The format's own limit on the length of a header. */
export const maximumHeaderBytes = 100_000_000;
const prefixBytes = 8;

/** The bytes that a tensor occupies, or `undefined` when that is not a whole, exactly representable number. */
export function tensorBytes(dtype: SafetensorsDType, shape: readonly number[]): number | undefined {
  let elements = 1;
  for (const size of shape) {
    elements *= size;
    if (!Number.isSafeInteger(elements)) return undefined;
  }
  const bits = elements * bitsOfDType[dtype];
  return Number.isSafeInteger(bits) && bits % 8 === 0 ? bits / 8 : undefined;
}

/**
 * Reads and validates the header of a safetensors file, and nothing else of it.
 *
 * @throws SiglipError ERR_SIGLIP_CHECKPOINT naming the file and, where there is one, the tensor: for a file that is missing,
 *   truncated or malformed in any way {@link parseSafetensorsHeader} knows
 */
export async function readSafetensorsHeader(file: string): Promise<SafetensorsFile> {
  let handle: FileHandle | undefined;
  try {
    handle = await open(file, 'r');
    const stat = await handle.stat();
    if (!stat.isFile()) throw damaged(file, 'is not a file');
    const prefix = await readExactly(handle, file, 0, Math.min(prefixBytes, stat.size));
    const headerBytes = headerLength(prefix, stat.size, file);
    const header = await readExactly(handle, file, prefixBytes, headerBytes);
    return parseHeader(header, stat.size, file);
  } catch (cause) {
    if (cause instanceof SiglipError) throw cause;
    throw damaged(file, `cannot be read: ${(cause as Error).message}`, {}, cause);
  } finally {
    await handle?.close();
  }
}

async function readExactly(handle: FileHandle, file: string, position: number, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  for (let done = 0; done < length; ) {
    const { bytesRead } = await handle.read(bytes, done, length - done, position + done);
    if (bytesRead === 0) throw damaged(file, 'became shorter while it was read');
    done += bytesRead;
  }
  return bytes;
}

/**
 * Validates the first bytes of a safetensors file, at least up to the end of the header. Checked are the header's length,
 * encoding and JSON (without duplicate keys), every tensor's dtype, shape and byte range, and that the ranges cover the rest
 * of the file without overlap or hole.
 *
 * @param bytes the file from its start
 * @param fileSize bytes of the whole file
 * @param file names the file in errors
 */
export function parseSafetensorsHeader(bytes: Uint8Array, fileSize: number, file: string): SafetensorsFile {
  const length = headerLength(bytes, fileSize, file);
  return parseHeader(bytes.subarray(prefixBytes, prefixBytes + length), fileSize, file);
}

function damaged(file: string, what: string, details: Record<string, unknown> = {}, cause?: unknown): SiglipError {
  return new SiglipError('ERR_SIGLIP_CHECKPOINT', `${file}: ${what}`, { details: { file, ...details }, cause });
}

function headerLength(prefix: Uint8Array, fileSize: number, file: string): number {
  if (fileSize < prefixBytes || prefix.byteLength < prefixBytes)
    throw damaged(file, `has ${fileSize} bytes; a safetensors file has at least ${prefixBytes}`, { bytes: fileSize });
  const view = new DataView(prefix.buffer, prefix.byteOffset, prefixBytes);
  const length = view.getBigUint64(0, true);
  if (length > BigInt(maximumHeaderBytes))
    throw damaged(
      file,
      `is not a safetensors file: its header would have ${length} bytes, more than the format's limit of ${maximumHeaderBytes}`,
    );
  const needed = prefixBytes + Number(length);
  if (needed > fileSize)
    throw damaged(file, `is truncated or not a safetensors file: the header ends at byte ${needed} of ${fileSize}`, {
      bytes: fileSize,
      expectedBytes: needed,
    });
  return Number(length);
}

function parseHeader(header: Uint8Array, fileSize: number, file: string): SafetensorsFile {
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(header);
  } catch (cause) {
    throw damaged(file, 'the header is not UTF-8 text', {}, cause);
  }
  const json = parseJson(text, file, 'ERR_SIGLIP_CHECKPOINT', { strict: true, part: 'the header' });
  if (!isJsonObject(json)) throw damaged(file, `the header is ${describe(json)}, not a JSON object`);

  const dataOffset = prefixBytes + header.byteLength;
  const dataBytes = fileSize - dataOffset;
  const entries: [string, SafetensorsEntry][] = [];
  let metadata: ReadonlyMap<string, string> = new Map();
  for (const [name, value] of Object.entries(json)) {
    if (name === '__metadata__') metadata = parseMetadata(value, file);
    else entries.push([name, parseEntry(name, value, dataOffset, dataBytes, file)]);
  }
  entries.sort(([, left], [, right]) => left.begin - right.begin || left.end - right.end);
  checkCoverage(entries, dataOffset, fileSize, file);
  return { path: file, size: fileSize, dataOffset, metadata, tensors: new Map(entries) };
}

function parseMetadata(value: unknown, file: string): ReadonlyMap<string, string> {
  if (value === null) return new Map();
  if (!isJsonObject(value)) throw damaged(file, `__metadata__ is ${describe(value)}, not an object of strings`);
  const metadata = new Map<string, string>();
  for (const [key, text] of Object.entries(value)) {
    if (typeof text !== 'string')
      throw damaged(file, `__metadata__ member ${describe(key)} is ${describe(text)}, not a string`);
    metadata.set(key, text);
  }
  return metadata;
}

function parseEntry(
  name: string,
  value: unknown,
  dataOffset: number,
  dataBytes: number,
  file: string,
): SafetensorsEntry {
  const wrong = (what: string, details: Record<string, unknown> = {}): SiglipError =>
    damaged(file, `tensor ${describe(name)} ${what}`, { tensor: name, ...details });
  if (!isJsonObject(value)) throw wrong(`is described by ${describe(value)}, not an object`);
  const member = (key: string): unknown => (Object.hasOwn(value as JsonObject, key) ? value[key] : undefined);

  const dtype = member('dtype');
  if (typeof dtype !== 'string' || !Object.hasOwn(bitsOfDType, dtype))
    throw wrong(`has an unknown dtype ${describe(dtype)}`);
  const known = dtype as SafetensorsDType;

  const shape = member('shape');
  if (!isNaturalArray(shape)) throw wrong('has a shape that is not an array of non-negative integers');
  const expectedBytes = tensorBytes(known, shape);
  if (expectedBytes === undefined)
    throw wrong(`has a shape without a representable size: ${dtype} [${shape.slice(0, 8).join(', ')}]`);

  const offsets = member('data_offsets');
  if (!isNaturalArray(offsets) || offsets.length !== 2)
    throw wrong('has data_offsets that are not two non-negative integers');
  const [begin, end] = offsets as [number, number];
  if (begin > end) throw wrong(`has data_offsets in the wrong order: [${begin}, ${end}]`);
  if (end - begin !== expectedBytes)
    throw wrong(
      `of ${dtype} [${shape.join(', ')}] needs ${expectedBytes} bytes, its data_offsets give ${end - begin}`,
      {
        bytes: end - begin,
        expectedBytes,
      },
    );
  if (end > dataBytes)
    throw wrong(`ends at byte ${dataOffset + end} of a file of ${dataOffset + dataBytes}: is the file truncated?`, {
      bytes: dataOffset + dataBytes,
      expectedBytes: dataOffset + end,
    });
  return { dtype: known, shape, begin: dataOffset + begin, end: dataOffset + end };
}

function isNaturalArray(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((item) => Number.isSafeInteger(item) && item >= 0);
}

function checkCoverage(
  entries: [string, SafetensorsEntry][],
  dataOffset: number,
  fileSize: number,
  file: string,
): void {
  let position = dataOffset;
  let previous = '';
  for (const [name, { begin, end }] of entries) {
    if (begin < position)
      throw damaged(file, `tensors ${describe(previous)} and ${describe(name)} overlap from byte ${begin}`, {
        tensor: name,
      });
    if (begin > position)
      throw damaged(file, `bytes ${position} to ${begin}, before tensor ${describe(name)}, belong to no tensor`, {
        tensor: name,
      });
    position = end;
    previous = name;
  }
  if (position !== fileSize)
    throw damaged(file, `has ${fileSize - position} bytes after its last tensor`, {
      bytes: fileSize,
      expectedBytes: position,
    });
}
