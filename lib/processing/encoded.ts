/** Encoded pictures to RGB through sharp, set up so that libvips decodes what Pillow decodes. */
import type { Metadata, Sharp, SharpOptions } from 'sharp';
import { throwIfAborted } from '../arguments.js';
import { SiglipError } from '../errors.js';
import loader from '../native-loader.cjs';
import type { RawImage } from './decode.js';
import { firstGifFrame, type GifFrame, isGif, placeGifFrame } from './gif.js';
import { clippedGreyToRgb, cmykToRgb, toRgb } from './pixels.js';
import { imageError } from './source.js';

/** What {@link decodeEncoded} and {@link decodeSharp} need besides the picture. */
export interface DecodeContext {
  /** Says which picture it is, in errors. */
  name: string;
  maxPixels: number;
  signal: AbortSignal | undefined;
}

/** The formats that are compared with Pillow; libvips calls AVIF `heif`. Vector formats have no pixels of their own. */
const formats = ['jpeg', 'png', 'webp', 'gif', 'tiff', 'heif'];

const decoderOptions: SharpOptions = {
  // Pillow does not apply colour profiles.
  ignoreIcc: true,
  // Truncated and corrupt files fail; mere warnings do not, as in Pillow.
  failOn: 'error',
  // The pixel limit is checked here, from the header.
  limitInputPixels: false,
};

type OpenImage = (bytes: Uint8Array, options: SharpOptions) => Sharp;

/** sharp is loaded on first use, so that raw pixels need no decoder. */
function loadSharp(): OpenImage {
  try {
    return loader.requirePackage('sharp') as OpenImage;
  } catch (cause) {
    throw new SiglipError(
      'ERR_SIGLIP_UNSUPPORTED',
      'encoded pictures need the package "sharp", which could not be loaded; reinstall it for this platform, or pass raw pixels as { data, width, height, channels }',
      { cause },
    );
  }
}

/** Throws when a picture is empty or has more pixels than allowed. */
export function checkSize(width: number, height: number, { name, maxPixels }: DecodeContext): void {
  if (!(width > 0 && height > 0))
    throw imageError(name, `the picture is empty (${width} × ${height} pixels)`, { details: { width, height } });
  const pixels = width * height;
  if (pixels > maxPixels)
    throw imageError(
      name,
      `${width} × ${height} = ${pixels} pixels are more than the limit of ${maxPixels}; raise maxPixels if the source is trusted`,
      { details: { width, height, pixels, maxPixels } },
    );
}

/** Decoded pixels with transparency: red, green, blue, alpha, 0 to 255, row by row; colours are not multiplied by it. */
export interface RgbaImage {
  data: Uint8Array;
  width: number;
  height: number;
}

/**
 * Decodes like {@link decodeEncoded}, but keeps the transparency that a picture of 8 bits a sample has.
 *
 * @throws {@link SiglipError} `ERR_SIGLIP_IMAGE` for what is damaged, empty, too large or no picture.
 */
export async function decodeWithAlpha(bytes: Uint8Array, context: DecodeContext): Promise<RgbaImage> {
  const sharp = loadSharp();
  try {
    if (!isGif(bytes)) {
      const metadata = await sharp(bytes, decoderOptions).metadata();
      if (metadata.hasAlpha && metadata.depth === 'uchar' && formats.includes(metadata.format)) {
        checkSize(metadata.width, metadata.height, context);
        throwIfAborted(context.signal);
        const pipeline = turned(sharp(bytes, decoderOptions), metadata).toColourspace('srgb').raw();
        const { data, info } = await pipeline.toBuffer({ resolveWithObject: true });
        if (info.channels !== 4) throw new Error('the decoder did not return four channels');
        return {
          data: new Uint8Array(data.buffer, data.byteOffset, data.byteLength),
          width: info.width,
          height: info.height,
        };
      }
    }
  } catch (cause) {
    throw decodeFailure(cause, context);
  }
  const { data, width, height } = await decodeEncoded(bytes, context);
  return { data: opaque(data), width, height };
}

function opaque(rgb: Uint8Array): Uint8Array {
  const rgba = new Uint8Array((rgb.length / 3) * 4).fill(255);
  for (let from = 0, to = 0; from < rgb.length; from += 3, to += 4) {
    rgba[to] = rgb[from]!;
    rgba[to + 1] = rgb[from + 1]!;
    rgba[to + 2] = rgb[from + 2]!;
  }
  return rgba;
}

/**
 * Decodes the first frame or page of an encoded picture, upright, as RGB.
 *
 * @throws {@link SiglipError} `ERR_SIGLIP_IMAGE` for what is damaged, empty, too large or no picture.
 */
export async function decodeEncoded(bytes: Uint8Array, context: DecodeContext): Promise<RawImage> {
  const sharp = loadSharp();
  try {
    if (isGif(bytes)) return await decodeGif(sharp, firstGifFrame(bytes), context);
    const metadata = await sharp(bytes, decoderOptions).metadata();
    if (!formats.includes(metadata.format))
      throw imageError(
        context.name,
        `${metadata.format} pictures are not supported; use JPEG, PNG, WebP, GIF, TIFF or AVIF`,
      );
    checkSize(metadata.width, metadata.height, context);
    throwIfAborted(context.signal);
    return await toRgbImage(turned(sharp(bytes, decoderOptions), metadata), metadata, bytes);
  } catch (cause) {
    throw decodeFailure(cause, context);
  }
}

/** The output of a sharp pipeline as RGB; the caller's instance is left as it was. */
export async function decodeSharp(pipeline: Sharp, context: DecodeContext): Promise<RawImage> {
  try {
    // Fixed here, because four channels of another colour space would be taken for RGB and alpha.
    const output = pipeline.clone().toColourspace('srgb').raw({ depth: 'uchar' });
    const { data, info } = await output.toBuffer({ resolveWithObject: true });
    checkSize(info.width, info.height, context);
    return { data: toRgb(data, info.channels as 1 | 2 | 3 | 4), width: info.width, height: info.height, channels: 3 };
  } catch (cause) {
    throw decodeFailure(cause, context);
  }
}

function decodeFailure(cause: unknown, { name, signal }: DecodeContext): unknown {
  if (cause instanceof SiglipError) return cause;
  throwIfAborted(signal);
  // libvips reports the same trouble once per attempt; one line tells it.
  const reason = (cause as Error).message.split('\n')[0]!;
  return imageError(name, `cannot be decoded: ${reason}`, { cause });
}

async function decodeGif(sharp: OpenImage, frame: GifFrame, context: DecodeContext): Promise<RawImage> {
  const { width, height } = frame;
  checkSize(frame.frameWidth, frame.frameHeight, context);
  checkSize(width, height, context);
  const { data } = await sharp(frame.bytes, decoderOptions)
    .removeAlpha()
    .toColourspace('srgb')
    .raw()
    .toBuffer({ resolveWithObject: true });
  return { data: placeGifFrame(frame, data), width, height, channels: 3 };
}

/** Turns a pipeline upright by the picture's orientation (EXIF 1..8), first from EXIF, then from XMP. */
function turned(pipeline: Sharp, metadata: Metadata): Sharp {
  switch (metadata.orientation ?? xmpOrientation(metadata)) {
    case 2:
      return pipeline.flop();
    case 3:
      return pipeline.rotate(180);
    case 4:
      return pipeline.flip();
    // sharp mirrors before it rotates, whatever the order of the calls.
    case 5:
      return pipeline.flop().rotate(270);
    case 6:
      return pipeline.rotate(90);
    case 7:
      return pipeline.flop().rotate(90);
    case 8:
      return pipeline.rotate(270);
    default:
      return pipeline;
  }
}

/** The orientation in XMP, which Pillow takes when EXIF has none. AVIF carries its own, which libheif has applied. */
function xmpOrientation({ format, xmp }: Metadata): number | undefined {
  if (xmp === undefined || format === 'heif') return undefined;
  const match = /tiff:Orientation(?:="|>)([0-9])/.exec(xmp.toString('latin1'));
  return match === null ? undefined : Number(match[1]);
}

async function toRgbImage(pipeline: Sharp, metadata: Metadata, bytes: Uint8Array): Promise<RawImage> {
  const { space, depth } = metadata;
  if (space === 'b-w' && metadata.channels === 1 && ['float', 'double', 'int', 'uint'].includes(depth)) {
    const grey = pipeline.toColourspace('b-w').raw({ depth: 'float' });
    const { data, info } = await grey.toBuffer({ resolveWithObject: true });
    return rgbImage(clippedGreyToRgb(new Float32Array(data.buffer, data.byteOffset, data.byteLength / 4)), info);
  }
  if (depth !== 'uchar' && depth !== 'ushort') throw new Error(`samples of type ${depth} are not supported`);
  const wide = depth === 'ushort';
  if (space === 'cmyk') {
    // sharp would convert through a colour profile; Pillow computes.
    const inks = pipeline.pipelineColourspace('cmyk').toColourspace('cmyk').raw({ depth });
    const { data, info } = await inks.toBuffer({ resolveWithObject: true });
    return rgbImage(cmykToRgb(wide ? asUint16(data) : data, info.channels), info);
  }
  if (space === 'grey16' && isPlainGrey(metadata, bytes)) {
    const grey = pipeline.removeAlpha().toColourspace('grey16').raw({ depth: 'ushort' });
    const { data, info } = await grey.toBuffer({ resolveWithObject: true });
    return rgbImage(clippedGreyToRgb(asUint16(data)), info);
  }
  if (!['srgb', 'b-w', 'rgb16', 'grey16'].includes(space)) throw new Error(`colour space ${space} is not supported`);
  // 16-bit colour is reduced to its high byte by this conversion, as in Pillow.
  const { data, info } = await pipeline.removeAlpha().toColourspace('srgb').raw().toBuffer({ resolveWithObject: true });
  return rgbImage(data, info);
}

/** Whether 16-bit grey has no alpha channel. A PNG's transparent colour shows as one in libvips, but is none. */
function isPlainGrey(metadata: Metadata, bytes: Uint8Array): boolean {
  const colourTypeOffset = 25;
  return metadata.channels === 1 || (metadata.format === 'png' && bytes[colourTypeOffset] === 0);
}

function asUint16(data: Buffer): Uint16Array {
  return new Uint16Array(data.buffer, data.byteOffset, data.byteLength / 2);
}

function rgbImage(data: Uint8Array, { width, height }: { width: number; height: number }): RawImage {
  if (data.length !== width * height * 3) throw new Error('the decoder did not return three channels');
  return { data: new Uint8Array(data.buffer, data.byteOffset, data.byteLength), width, height, channels: 3 };
}
