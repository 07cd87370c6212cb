/**
 * Pictures to RGB pixels: what Pillow's `ImageOps.exif_transpose(Image.open(file)).convert("RGB")` gives, to the byte
 * for lossless formats, because that is what the models were trained and are evaluated on.
 */
import { availableParallelism } from 'node:os';
import { linkedController } from '../abort.js';
import { requireInteger, requireOptions, requireString, throwIfAborted, wrongType } from '../arguments.js';
import { checkSize, decodeEncoded, decodeSharp, decodeWithAlpha, type RgbaImage } from './encoded.js';
import { toRgb } from './pixels.js';
import { type ImageInput, type ImageSource, imageSource, imageSources, readEncoded } from './source.js';

export type { ImageInput, RawPixels } from './source.js';

/** Decoded pixels: `data[(y * width + x) * 3 + channel]`, red, green, blue, 0..255. */
export interface RawImage {
  data: Uint8Array;
  width: number;
  height: number;
  channels: 3;
}

/** Limits on pictures, for everything that takes some; see docs/images.md. */
export interface DecodeLimits {
  /** Largest accepted width × height, checked from the header; default 178 956 970. */
  maxPixels?: number;
  /** Largest download in bytes, for `http(s):` and `data:` URLs; default 256 MiB. */
  maxBytes?: number;
  /** Longest wait for a download, in milliseconds; default 60 000. */
  timeoutMs?: number;
}

/** Options of {@link decodeImage}. */
export interface DecodeOptions extends DecodeLimits {
  /** Gives up with `ERR_SIGLIP_ABORTED` when it fires. */
  signal?: AbortSignal;
  /** What errors call the picture; default `image`. */
  argument?: string;
}

/** Options of {@link decodeImages}. */
export interface DecodeManyOptions extends DecodeOptions {
  /** How many pictures are decoded at the same time; default 4, or the processors there are if fewer. */
  concurrency?: number;
  /** Number of the first picture in errors, for callers that decode a list in parts; default 0. */
  firstIndex?: number;
}

/** Pillow's limit against decompression bombs: twice its `MAX_IMAGE_PIXELS`. As RGB this is half a gigabyte. */
export const defaultMaxPixels = 178_956_970;

const defaultMaxBytes = 256 * 2 ** 20;
const defaultTimeoutMs = 60_000;
/** The names of {@link DecodeLimits}. */
export const decodeLimitNames = ['maxPixels', 'maxBytes', 'timeoutMs'] as const;
const optionNames = [...decodeLimitNames, 'signal', 'argument'];

interface Settings {
  maxPixels: number;
  maxBytes: number;
  timeoutMs: number;
  signal: AbortSignal | undefined;
}

/**
 * Decodes one picture to RGB.
 *
 * Alpha is dropped, not blended; grey is repeated; colour profiles and gamma are ignored; the EXIF (or XMP)
 * orientation is applied to encoded pictures; of several frames or pages the first is taken. Raw samples and the
 * output of a sharp instance are taken as they are.
 *
 * @throws TypeError or RangeError naming the argument when `input` is no picture.
 * @throws SiglipError `ERR_SIGLIP_IMAGE` when the picture cannot be read or decoded or exceeds a limit,
 *   `ERR_SIGLIP_ABORTED` when the signal fired, `ERR_SIGLIP_UNSUPPORTED` when the decoder is not installed.
 */
export async function decodeImage(input: ImageInput, options?: DecodeOptions): Promise<RawImage> {
  const settings = checkOptions(requireOptions('options', options, optionNames));
  return decodeSource(imageSource(input, argumentName(options, 'image')), settings);
}

/**
 * Decodes one encoded picture, by its path or its bytes, with its transparency.
 *
 * @throws As {@link decodeImage}
 */
export async function decodeImageWithAlpha(input: string | Uint8Array, options?: DecodeOptions): Promise<RgbaImage> {
  const settings = checkOptions(requireOptions('options', options, optionNames));
  const source = imageSource(input, argumentName(options, 'image'));
  if (source.kind === 'raw' || source.kind === 'sharp') throw wrongType('image', 'a path or encoded bytes', input);
  const { maxPixels, signal } = settings;
  throwIfAborted(signal);
  const image = await decodeWithAlpha(await readEncoded(source, settings), { name: source.name, maxPixels, signal });
  throwIfAborted(signal);
  return image;
}

/**
 * Decodes pictures to RGB, several at a time, and keeps their order. Every input is checked before the first is read;
 * the first failure ends the work.
 *
 * @throws As {@link decodeImage}; errors call the pictures `images[0]`, `images[1]`, … (or `argument[0]`, …).
 */
export async function decodeImages(
  inputs: ImageInput | readonly ImageInput[],
  options?: DecodeManyOptions,
): Promise<RawImage[]> {
  const settings = checkOptions(requireOptions('options', options, [...optionNames, 'concurrency', 'firstIndex']));
  const workers = requireInteger('options.concurrency', options?.concurrency ?? Math.min(4, availableParallelism()), 1);
  const argument = argumentName(options, 'images');
  const first = requireInteger('options.firstIndex', options?.firstIndex ?? 0, 0);
  const sources = imageSources(inputs, argument, first);

  // Aborted by the caller or by the first failure.
  const { controller: stop, release } = linkedController(settings.signal);
  const { signal } = stop;
  const images = new Array<RawImage>(sources.length);
  let next = 0;
  let failure: { error: unknown } | undefined;
  const work = async (): Promise<void> => {
    while (next < sources.length && failure === undefined) {
      const index = next++;
      try {
        images[index] = await decodeSource(sources[index]!, { ...settings, signal });
      } catch (error) {
        // Those stopped because of the first failure fail too; only the first one tells something.
        failure ??= { error };
        stop.abort();
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(workers, sources.length) }, work)).finally(release);
  if (failure !== undefined) throw failure.error;
  return images;
}

/** What the options of a caller that takes pictures say about decoding them. */
export function decodeOptionsOf(options: DecodeLimits & { signal?: AbortSignal }): DecodeOptions {
  const { maxPixels, maxBytes, timeoutMs, signal } = options;
  const given = Object.entries({ maxPixels, maxBytes, timeoutMs, signal });
  return Object.fromEntries(given.filter(([, value]) => value !== undefined));
}

function argumentName(options: DecodeOptions | undefined, fallback: string): string {
  return requireString('options.argument', options?.argument ?? fallback);
}

function checkOptions(options: DecodeOptions): Settings {
  const { signal } = options;
  if (signal !== undefined && !(signal instanceof AbortSignal))
    throw wrongType('options.signal', 'an AbortSignal', signal);
  return {
    maxPixels: requireInteger('options.maxPixels', options.maxPixels ?? defaultMaxPixels, 1),
    maxBytes: requireInteger('options.maxBytes', options.maxBytes ?? defaultMaxBytes, 1),
    timeoutMs: requireInteger('options.timeoutMs', options.timeoutMs ?? defaultTimeoutMs, 1, 2 ** 31 - 1),
    signal,
  };
}

async function decodeSource(source: ImageSource, settings: Settings): Promise<RawImage> {
  const { signal, maxPixels } = settings;
  const context = { name: source.name, maxPixels, signal };
  throwIfAborted(signal);
  let image: RawImage;
  if (source.kind === 'raw') {
    const { data, width, height, channels } = source.pixels;
    checkSize(width, height, context);
    image = { data: toRgb(data, channels), width, height, channels: 3 };
  } else if (source.kind === 'sharp') {
    image = await decodeSharp(source.sharp, context);
  } else {
    image = await decodeEncoded(await readEncoded(source, settings), context);
  }
  throwIfAborted(signal);
  return image;
}
