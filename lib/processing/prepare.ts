import { requireInteger, requireOptions, wrongType } from '../arguments.js';
import type { Siglip2Config } from '../model/config.js';
import { type NativeImages, native, withCancellation } from '../native.js';
import {
  type DecodeLimits,
  decodeImages,
  decodeLimitNames,
  decodeOptionsOf,
  type ImageInput,
  type RawImage,
} from './decode.js';

/** Options of {@link preprocessImages}. */
export interface PreprocessOptions extends DecodeLimits {
  /** The model's configuration. */
  config: Siglip2Config;
  /** NaFlex only: most patches an image may have; default 256. */
  maxPatches?: number;
  /** CPU: most threads to use; default all cores available to the process. */
  threads?: number;
  signal?: AbortSignal;
}

/** Model input of fixed-resolution models: normalised planar pixels. */
export interface PixelInput {
  pixelValues: Float32Array;
  shape: [n: number, channels: 3, height: number, width: number];
}

/** Model input of NaFlex models: patches in row, column, channel order, padded with zeros. */
export interface PatchInput {
  patches: Float32Array;
  shape: [n: number, maxPatches: number, patchDim: number];
  /** `[n, maxPatches]`: 1 for a patch, 0 for padding. */
  mask: Int32Array;
  /** `[n, 2]`: rows and columns of patches. */
  spatialShapes: Int32Array;
}

/** The default of `maxPatches`, what Hugging Face's processor uses. */
export const defaultMaxPatches = 256;

/** The checked `maxPatches` option: the default where there is none. */
export function resolveMaxPatches(argument: string, config: Siglip2Config, value: number | undefined): number {
  if (value !== undefined && config.architecture === 'fixed')
    throw wrongType(argument, 'no value for a model of fixed resolution', value);
  return requireInteger(argument, value ?? defaultMaxPatches, 1, 1 << 20);
}

/** The size in pixels that each picture is resized to: [height, width] pairs. */
export function targetSizes(config: Siglip2Config, images: readonly RawImage[], maxPatches: number): Int32Array {
  const sizes = new Int32Array(2 * images.length);
  const { size } = config.preprocessing;
  const side = config.vision.imageSize as number;
  images.forEach((image, index) => {
    sizes.set(
      config.architecture === 'naflex'
        ? native().naflexTargetSize(image.height, image.width, config.vision.patchSize, maxPatches)
        : [size?.height ?? side, size?.width ?? side],
      2 * index,
    );
  });
  return sizes;
}

/** Decoded pictures with everything the native core needs to make them model input. */
export function nativeImages(config: Siglip2Config, images: readonly RawImage[], maxPatches: number): NativeImages {
  const { imageMean, imageStd, rescaleFactor, resample } = config.preprocessing;
  return {
    images: images as RawImage[],
    targetSizes: targetSizes(config, images, maxPatches),
    mean: imageMean,
    deviation: imageStd,
    rescale: rescaleFactor,
    mode: 'pil',
    filter: resample,
  };
}

/**
 * Decodes, resizes and normalises pictures as Hugging Face's processors do (Pillow's resampling, bit for bit).
 * @returns planar pixels for fixed-resolution models, padded patches for NaFlex models; feed either to
 *   `model.vision.forward`
 * @throws SiglipError ERR_SIGLIP_IMAGE for a picture that cannot be read, naming it
 */
export async function preprocessImages(
  images: ImageInput | ImageInput[],
  options: PreprocessOptions,
): Promise<PixelInput | PatchInput> {
  if (typeof options !== 'object' || options === null) throw wrongType('options', 'an options object', options);
  requireOptions('options', options, ['config', 'maxPatches', ...decodeLimitNames, 'threads', 'signal']);
  const { config } = options;
  if (typeof config?.architecture !== 'string') throw wrongType('options.config', 'a model configuration', config);
  const maxPatches = resolveMaxPatches('options.maxPatches', config, options.maxPatches);
  const threads = requireInteger('options.threads', options.threads ?? native().describe().cores, 1, 1024);
  const decoded = await decodeImages(images, decodeOptionsOf(options));

  const input = nativeImages(config, decoded, maxPatches);
  const { patchSize } = config.vision;
  const fixed = config.architecture === 'fixed';
  const values = await withCancellation(options.signal, (token) =>
    native().prepareImages(input, { device: 'cpu', threads, patchSize, layout: fixed ? 'planar' : 'patches' }, token),
  );
  const n = decoded.length;
  if (fixed) {
    const side = config.vision.imageSize as number;
    const { height, width } = config.preprocessing.size ?? { height: side, width: side };
    return { pixelValues: values, shape: [n, 3, height, width] };
  }
  const spatialShapes = input.targetSizes.map((pixels) => pixels / patchSize);
  return padPatches(values, spatialShapes, maxPatches, 3 * patchSize ** 2);
}

/** Packed patches [Σ rows·columns, patchDim] as padded rows [n, maxPatches, patchDim] with their mask. */
function padPatches(packed: Float32Array, spatialShapes: Int32Array, maxPatches: number, patchDim: number): PatchInput {
  const n = spatialShapes.length / 2;
  const patches = new Float32Array(n * maxPatches * patchDim);
  const mask = new Int32Array(n * maxPatches);
  let offset = 0;
  for (let image = 0; image < n; image++) {
    const count = (spatialShapes[2 * image] as number) * (spatialShapes[2 * image + 1] as number);
    patches.set(packed.subarray(offset, offset + count * patchDim), image * maxPatches * patchDim);
    mask.fill(1, image * maxPatches, image * maxPatches + count);
    offset += count * patchDim;
  }
  return { patches, shape: [n, maxPatches, patchDim], mask, spatialShapes };
}
