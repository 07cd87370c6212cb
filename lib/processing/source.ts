/** Where a picture comes from: sorts an {@link ImageInput} by kind and brings encoded bytes into memory. */
import { readFile, stat } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { types } from 'node:util';
import type { Sharp } from 'sharp';
import { linkedController } from '../abort.js';
import { describe, requireInteger, throwIfAborted, wrongRange, wrongType } from '../arguments.js';
import { SiglipError } from '../errors.js';

/** Uncompressed 8-bit samples, interleaved, row by row: grey, grey + alpha, RGB or RGB + alpha. */
export interface RawPixels {
  data: Uint8Array | Uint8ClampedArray;
  width: number;
  height: number;
  channels: 1 | 2 | 3 | 4;
}

/**
 * A picture, in any of the forms the package accepts: a path, a `file:`, `http(s):` or `data:` URL (a `URL` or a
 * string), an encoded file in memory, raw samples, or a sharp instance.
 */
export type ImageInput = string | URL | Uint8Array | ArrayBuffer | Blob | RawPixels | Sharp;

/** A picture sorted by kind. `name` says which one it is in error messages. */
export type ImageSource =
  | { kind: 'file'; name: string; path: string }
  | { kind: 'url'; name: string; url: URL }
  | { kind: 'bytes'; name: string; bytes: Uint8Array }
  | { kind: 'blob'; name: string; blob: Blob }
  | { kind: 'raw'; name: string; pixels: RawPixels }
  | { kind: 'sharp'; name: string; sharp: Sharp };

/** Limits on what is fetched. */
export interface FetchLimits {
  maxBytes: number;
  timeoutMs: number;
  signal: AbortSignal | undefined;
}

const expected =
  'a path, a URL, an encoded picture (Uint8Array, ArrayBuffer, Blob), { data, width, height, channels } or a sharp instance';

/** The error for a picture that cannot be read. */
export function imageError(
  name: string,
  reason: string,
  options: { details?: Record<string, unknown>; cause?: unknown } = {},
): SiglipError {
  return new SiglipError('ERR_SIGLIP_IMAGE', `${name}: ${reason}`, {
    ...options,
    details: { source: name, ...options.details },
  });
}

/**
 * Sorts an input by kind without reading anything.
 *
 * @throws TypeError or RangeError naming `argument` when it is no picture at all.
 */
export function imageSource(input: unknown, argument: string): ImageSource {
  if (typeof input === 'string') return locationSource(input, argument);
  if (input instanceof URL) return urlSource(input, argument);
  // Checks that also hold for values from another realm (workers, vm contexts).
  if (types.isUint8Array(input)) return { kind: 'bytes', name: argument, bytes: input };
  if (types.isAnyArrayBuffer(input)) return { kind: 'bytes', name: argument, bytes: new Uint8Array(input) };
  if (typeof input !== 'object' || input === null || Array.isArray(input) || ArrayBuffer.isView(input))
    throw wrongType(argument, expected, input);
  if (input instanceof Blob) return { kind: 'blob', name: argument, blob: input };
  const methods = input as Partial<Record<keyof Sharp, unknown>>;
  if (['clone', 'raw', 'toBuffer', 'toColourspace'].every((name) => typeof methods[name as keyof Sharp] === 'function'))
    return { kind: 'sharp', name: argument, sharp: input as Sharp };
  if (!('data' in input) || !('width' in input)) throw wrongType(argument, expected, input);
  return { kind: 'raw', name: argument, pixels: checkPixels(input as RawPixels, argument) };
}

/**
 * Sorts one input, or each of a list, as {@link imageSource} does. `first` is the number of the first of the list.
 *
 * @throws As {@link imageSource}; members of a list are called `argument[0]` and so on
 */
export function imageSources(
  inputs: ImageInput | readonly ImageInput[],
  argument: string,
  first: number,
): ImageSource[] {
  // Array.from also visits the holes of a list.
  return Array.isArray(inputs)
    ? Array.from(inputs, (input, index) => imageSource(input, `${argument}[${first + index}]`))
    : [imageSource(inputs, argument)];
}

function locationSource(location: string, argument: string): ImageSource {
  if (/^(?:data|file):|^[a-z][a-z\d+.-]+:\/\//i.test(location)) {
    let url: URL;
    try {
      url = new URL(location);
    } catch (cause) {
      throw imageError(named(argument, location), 'is not a valid URL', { cause });
    }
    return urlSource(url, argument);
  }
  return { kind: 'file', name: named(argument, location), path: location };
}

function urlSource(url: URL, argument: string): ImageSource {
  const name = named(argument, shownUrl(url));
  switch (url.protocol) {
    case 'file:':
      try {
        return { kind: 'file', name, path: fileURLToPath(url) };
      } catch (cause) {
        throw imageError(name, `is not the URL of a local file (${(cause as Error).message})`, { cause });
      }
    case 'http:':
    case 'https:':
      // fetch refuses such a URL too, with the password in its message.
      if (url.username !== '' || url.password !== '')
        throw imageError(name, 'the URL contains a user name or password; fetch it yourself and pass the bytes');
      return { kind: 'url', name, url };
    case 'data:':
      return { kind: 'url', name, url };
    default:
      throw wrongRange(argument, 'a path or a file:, http:, https: or data: URL', shownUrl(url));
  }
}

/** A URL without its password, and cut short, for messages. */
function shownUrl(url: URL): string {
  const copy = new URL(url.protocol === 'data:' ? `${url.href.slice(0, 40)}…` : url);
  copy.username = '';
  copy.password = '';
  return url.protocol === 'data:' ? `${url.href.slice(0, 40)}…` : copy.href;
}

function named(argument: string, location: string): string {
  const shown = location.length > 200 ? `${location.slice(0, 197)}…` : location;
  return `${argument} (${shown})`;
}

/**
 * Requires decoded pixels whose samples fill their size.
 *
 * @throws TypeError, RangeError naming the part that is wrong; `ERR_SIGLIP_IMAGE` for an empty picture.
 */
export function checkPixels(pixels: RawPixels, argument: string): RawPixels {
  if (typeof pixels !== 'object' || pixels === null)
    throw wrongType(argument, 'decoded pixels { data, width, height, channels }', pixels);
  const { data, width, height, channels } = pixels;
  if (!types.isUint8Array(data) && !types.isUint8ClampedArray(data))
    throw wrongType(`${argument}.data`, 'a Uint8Array or Uint8ClampedArray of samples', data);
  requireInteger(`${argument}.width`, width, 0);
  requireInteger(`${argument}.height`, height, 0);
  requireInteger(`${argument}.channels`, channels, 1, 4);
  if (width === 0 || height === 0)
    throw imageError(argument, `the picture is empty (${width} × ${height} pixels)`, { details: { width, height } });
  if (data.length !== width * height * channels)
    throw wrongRange(
      `${argument}.data`,
      `width × height × channels = ${width} × ${height} × ${channels} = ${width * height * channels} samples`,
      data,
    );
  return pixels;
}

/**
 * The encoded bytes of a source.
 *
 * @throws {@link SiglipError} `ERR_SIGLIP_IMAGE` when they cannot be read, `ERR_SIGLIP_ABORTED` when the signal fired.
 */
export async function readEncoded(
  source: Extract<ImageSource, { kind: 'file' | 'url' | 'bytes' | 'blob' }>,
  limits: FetchLimits,
): Promise<Uint8Array> {
  const bytes = await readSource(source, limits);
  if (bytes.length === 0) throw imageError(source.name, 'the picture is empty (0 bytes)');
  return bytes;
}

async function readSource(
  source: Extract<ImageSource, { kind: 'file' | 'url' | 'bytes' | 'blob' }>,
  limits: FetchLimits,
): Promise<Uint8Array> {
  const { name } = source;
  switch (source.kind) {
    case 'bytes':
      // A copy: the decoder reads on another thread, and the caller may change, shrink or transfer the memory meanwhile.
      return new Uint8Array(source.bytes);
    case 'blob':
      try {
        return new Uint8Array(await source.blob.arrayBuffer());
      } catch (cause) {
        throw imageError(name, `the Blob cannot be read (${describe((cause as Error).message)})`, { cause });
      }
    case 'file':
      try {
        if (!(await stat(source.path)).isFile()) throw new Error('it is not a file');
        return await readFile(source.path, limits.signal ? { signal: limits.signal } : {});
      } catch (cause) {
        throwIfAborted(limits.signal);
        throw imageError(name, `cannot be read: ${(cause as Error).message}`, { cause });
      }
    case 'url':
      return download(source.url, name, limits);
  }
}

async function download(url: URL, name: string, limits: FetchLimits): Promise<Uint8Array> {
  const { maxBytes, timeoutMs, signal } = limits;
  const { controller, release } = linkedController(signal);
  let late = false;
  const deadline = setTimeout(() => {
    late = true;
    controller.abort();
  }, timeoutMs);
  try {
    const response = await fetch(url, { signal: controller.signal });
    if (response.status !== 200) {
      await response.body?.cancel();
      throw imageError(name, `the server answered ${response.status} ${response.statusText}`.trimEnd(), {
        details: { status: response.status },
      });
    }
    const tooLarge = (bytes: number): SiglipError =>
      imageError(name, `is larger than the ${maxBytes} bytes that are fetched at most`, {
        details: { bytes, maxBytes },
      });
    const announced = Number(response.headers.get('content-length') ?? 0);
    if (announced > maxBytes) {
      await response.body?.cancel();
      throw tooLarge(announced);
    }
    const chunks: Uint8Array[] = [];
    let received = 0;
    for await (const chunk of response.body ?? []) {
      received += chunk.length;
      // Leaving the loop cancels the transfer.
      if (received > maxBytes) throw tooLarge(received);
      chunks.push(chunk);
    }
    return Buffer.concat(chunks, received);
  } catch (cause) {
    throwIfAborted(signal);
    if (cause instanceof SiglipError) throw cause;
    if (late) throw imageError(name, `was not received within ${timeoutMs} ms`, { cause });
    const { message, cause: inner } = cause as Error;
    throw imageError(name, `cannot be fetched: ${types.isNativeError(inner) ? inner.message : message}`, { cause });
  } finally {
    clearTimeout(deadline);
    release();
  }
}
