import { requireInteger, requireOneOf, requireOptions, wrongRange, wrongType } from '../arguments.js';
import { type Device, type DType, resolveDevice, resolveDType, resolveThreads } from '../device.js';
import { SiglipError } from '../errors.js';
import { native, type TensorHandle } from '../native.js';
import { checkPixels, type RawPixels } from '../processing/source.js';
import { Tensor, tensorArgument } from './tensor.js';
import { measured } from './timing.js';

/** Options of {@link naflexPatchify}. */
export interface NaflexPatchifyOptions {
  /** Side of a patch in pixels. */
  patchSize: number;
  /** Most patches an image may have; the image is resized, up or down, to come close. */
  maxPatches: number;
  /** Per channel, default 0.5. */
  mean?: number[];
  /** Per channel, default 0.5. */
  std?: number[];
  /** `pil`: Pillow's 8-bit resampling to the bit, as Hugging Face; `float`: unrounded, as big_vision trains. */
  mode?: 'pil' | 'float';
  /** Type of the patches: `float32`, or on GPUs `bfloat16`. Default `auto`: `bfloat16` on CUDA devices, else `float32`. */
  dtype?: DType | 'auto';
  device?: Device;
  /** CPU: most threads to use; default all cores available to the process. */
  threads?: number;
}

/** Decoded pixels that are in a device's memory already, as a GPU's decoder leaves them. */
export interface DevicePixels {
  /** `uint8`, [height, width, channels], 1 to 4 channels as in {@link RawPixels}. It must live on the call's device. */
  data: Tensor;
}

interface NativePixels {
  data?: Uint8Array | Uint8ClampedArray;
  tensor?: TensorHandle;
  width: number;
  height: number;
  channels: number;
}

/** An image as the native function takes it: `tensor` in place of `data` where the device has the pixels. */
function nativePixels(image: RawPixels | DevicePixels, argument: string): NativePixels {
  if (!(image?.data instanceof Tensor)) return checkPixels(image as RawPixels, argument);
  requireOptions(argument, image, ['data']);
  const { shape } = image.data;
  const [height, width, channels] = shape as [number, number, number];
  if (shape.length !== 3 || height === 0 || width === 0 || channels < 1 || channels > 4)
    throw new SiglipError(
      'ERR_SIGLIP_SHAPE',
      `${argument}.data: expected [height, width, channels] with 1 to 4 channels and no size 0, got [${shape.join(', ')}]`,
      { details: { shape } },
    );
  return { tensor: tensorArgument(`${argument}.data`, image.data), height, width, channels };
}

function threeNumbers(argument: string, value: unknown, fallback: number): number[] {
  if (value === undefined) return [fallback, fallback, fallback];
  if (!Array.isArray(value) || value.length !== 3 || !value.every((entry) => Number.isFinite(entry)))
    throw wrongType(argument, 'an array of three finite numbers', value);
  return value as number[];
}

/**
 * Decoded pixels in, packed normalised patches out: resize, normalise, patchify and pack in one pass. Sizes follow
 * Hugging Face's NaFlex rule: the largest grid of the image's shape with at most `maxPatches` patches. Pixels may be
 * on the device already, which saves the copy; images of both kinds may be mixed.
 * @returns `patches` [Σ rows·columns, 3·patchSize²] in row, column, channel order; `spatialShapes` (rows, columns) of
 *   every image; `offsets`, prefix sums of patches, images + 1 entries
 */
export async function naflexPatchify(
  images: readonly (RawPixels | DevicePixels)[],
  options: NaflexPatchifyOptions,
): Promise<{ patches: Tensor; spatialShapes: Int32Array; offsets: Int32Array }> {
  if (!Array.isArray(images)) throw wrongType('images', 'an array of decoded images', images);
  if (options === undefined) throw wrongType('options', 'an options object', options);
  requireOptions('options', options, ['patchSize', 'maxPatches', 'mean', 'std', 'mode', 'dtype', 'device', 'threads']);
  const patchSize = requireInteger('options.patchSize', options.patchSize, 1, 1024);
  const maxPatches = requireInteger('options.maxPatches', options.maxPatches, 1, 1 << 20);
  const mode = requireOneOf('options.mode', options.mode ?? 'pil', ['pil', 'float']);
  const device = resolveDevice('options.device', options.device);
  const dtype = resolveDType('options.dtype', options.dtype, device, 'patchify');
  const deviation = threeNumbers('options.std', options.std, 0.5);
  if (deviation.some((value) => value <= 0)) throw wrongRange('options.std', 'positive numbers', deviation.join(', '));

  const checked = images.map((image, index) => nativePixels(image, `images[${index}]`));
  const targetSizes = new Int32Array(2 * images.length);
  const spatialShapes = new Int32Array(2 * images.length);
  const offsets = new Int32Array(images.length + 1);
  checked.forEach(({ width, height }, index) => {
    const size = native().naflexTargetSize(height, width, patchSize, maxPatches);
    targetSizes.set(size, 2 * index);
    const [rows, columns] = [size[0] / patchSize, size[1] / patchSize];
    spatialShapes.set([rows, columns], 2 * index);
    offsets[index + 1] = (offsets[index] as number) + rows * columns;
  });
  const nativeArguments = {
    images: checked,
    targetSizes,
    mean: threeNumbers('options.mean', options.mean, 0.5),
    deviation,
    rescale: 1 / 255,
    mode,
    filter: 'bilinear',
    patchSize,
    dtype,
    device,
    threads: resolveThreads('options.threads', options.threads),
  };
  const { patches } = await measured(nativeArguments, (each) => native().naflexPatchify(each));
  return { patches: new Tensor(patches as NonNullable<typeof patches>, device), spatialShapes, offsets };
}
