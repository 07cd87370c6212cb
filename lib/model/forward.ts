/** Tensor-level input and output of the two towers: checks, packing of padded input, padding of packed output. */
import { types } from 'node:util';
import { describe, requireBoolean, requireOptions, wrongRange, wrongType } from '../arguments.js';
import { SiglipError } from '../errors.js';
import type { NativeForwardResult, NativeVisionInput } from '../native.js';
import type { PatchInput, PixelInput } from '../processing/prepare.js';
import type { Siglip2Config } from './config.js';

/** A row-major array of numbers with its shape. */
export interface TensorData {
  data: Float32Array;
  shape: number[];
}

/** Input of the vision tower: planar pixels (fixed resolution) or padded patches (NaFlex). */
export type VisionForwardInput = PixelInput | (Omit<PatchInput, 'mask'> & { mask: Uint8Array | Int32Array });

/** Output of a tower. */
export interface ForwardOutput {
  /** After the final layer norm; [n, tokens, width]. Rows of padding are zero. */
  lastHiddenState: TensorData;
  /** The image or text embedding before normalisation; [n, dim]. */
  pooled: TensorData;
  /** Embeddings and every layer's output, before the final layer norm; [n, tokens, width] each. */
  hiddenStates?: TensorData[];
}

/** Options of the towers' `forward`. */
export interface ForwardOptions {
  hiddenStates?: boolean;
  signal?: AbortSignal;
}

export function checkForwardOptions(options: ForwardOptions | undefined): ForwardOptions {
  const checked = requireOptions('options', options, ['hiddenStates', 'signal']);
  requireBoolean('options.hiddenStates', checked.hiddenStates ?? false);
  return checked;
}

function shapeError(message: string): SiglipError {
  return new SiglipError('ERR_SIGLIP_SHAPE', message);
}

function requireShape(argument: string, shape: unknown, dimensions: number, length: number): number[] {
  if (!Array.isArray(shape) || shape.length !== dimensions) throw wrongType(argument, `${dimensions} sizes`, shape);
  for (const [index, size] of shape.entries())
    if (!Number.isSafeInteger(size) || size < 0) throw wrongRange(`${argument}[${index}]`, 'an integer from 0', size);
  const elements = shape.reduce((product: number, size: number) => product * size, 1);
  if (elements !== length)
    throw shapeError(`${argument}: [${shape.join(', ')}] needs ${elements} values, got ${length}`);
  return shape as number[];
}

/** How packed rows are laid out for the caller: images of `tokens[i]` real tokens in rows of `padded`. */
export interface TokenLayout {
  tokens: number[];
  padded: number;
}

/** Checks the vision tower's input and packs it. */
export function packVisionInput(
  config: Siglip2Config,
  input: VisionForwardInput,
): { native: NativeVisionInput; layout: TokenLayout } {
  if (typeof input !== 'object' || input === null)
    throw wrongType('input', '{ pixelValues, shape } or { patches, shape, mask, spatialShapes }', input);
  if ('pixelValues' in input) return packPixels(config, input);
  if ('patches' in input) return packPatches(config, input);
  throw wrongType('input', '{ pixelValues, shape } or { patches, shape, mask, spatialShapes }', input);
}

function packPixels(config: Siglip2Config, input: PixelInput): { native: NativeVisionInput; layout: TokenLayout } {
  const { pixelValues } = input;
  if (!types.isFloat32Array(pixelValues)) throw wrongType('input.pixelValues', 'a Float32Array', pixelValues);
  const shape = requireShape('input.shape', input.shape, 4, pixelValues.length);
  const [n, channels, height, width] = shape as [number, number, number, number];
  if (channels !== 3) throw shapeError(`input.shape: expected 3 channels, got ${channels}`);
  const { patchSize, imageSize } = config.vision;
  const grid = (pixels: number): number => Math.floor(pixels / patchSize);
  // Not the size itself: 378 and 384 pixels are the same 27 patches of 14, since the rest is dropped.
  const fits = imageSize === undefined || (grid(height) === grid(imageSize) && grid(width) === grid(imageSize));
  if (!fits)
    throw shapeError(`input.shape: this model takes ${imageSize} × ${imageSize} pixels, got ${height} × ${width}`);
  const tokens = grid(height) * grid(width);
  if (tokens === 0)
    throw shapeError(`input.shape: ${height} × ${width} pixels hold no patch of ${patchSize} × ${patchSize}`);
  return {
    native: { kind: 'pixels', pixelValues, shape },
    layout: { tokens: new Array(n).fill(tokens), padded: tokens },
  };
}

function packPatches(
  config: Siglip2Config,
  input: Extract<VisionForwardInput, { patches: Float32Array }>,
): { native: NativeVisionInput; layout: TokenLayout } {
  const { patches, mask, spatialShapes } = input;
  if (!types.isFloat32Array(patches)) throw wrongType('input.patches', 'a Float32Array', patches);
  if (!types.isInt32Array(mask) && !types.isUint8Array(mask))
    throw wrongType('input.mask', 'an Int32Array or Uint8Array', mask);
  if (!types.isInt32Array(spatialShapes)) throw wrongType('input.spatialShapes', 'an Int32Array', spatialShapes);
  if (config.architecture !== 'naflex')
    throw shapeError('input.patches: this model has a fixed resolution and takes pixelValues');
  const [n, padded, patchDim] = requireShape('input.shape', input.shape, 3, patches.length) as [number, number, number];
  const expected = 3 * config.vision.patchSize ** 2;
  if (patchDim !== expected) throw shapeError(`input.shape: expected patches of ${expected} values, got ${patchDim}`);
  if (mask.length !== n * padded) throw shapeError(`input.mask: expected ${n} × ${padded} entries, got ${mask.length}`);
  if (spatialShapes.length !== 2 * n)
    throw shapeError(`input.spatialShapes: expected ${n} × 2 entries, got ${spatialShapes.length}`);

  const tokens: number[] = [];
  for (let image = 0; image < n; image++) {
    const rows = spatialShapes[2 * image] as number;
    const columns = spatialShapes[2 * image + 1] as number;
    const count = rows * columns;
    if (rows < 1 || columns < 1 || count > padded)
      throw shapeError(
        `input.spatialShapes: image ${image} has ${rows} × ${columns} patches; expected 1 to ${padded} in all`,
      );
    for (let i = 0; i < padded; i++)
      if ((mask[image * padded + i] !== 0) !== i < count)
        throw shapeError(
          `input.mask: image ${image} should have ones for its ${rows} × ${columns} patches and zeros after; entry ${i} is ${mask[image * padded + i]}`,
        );
    tokens.push(count);
  }
  const total = tokens.reduce((sum, count) => sum + count, 0);
  const packed = total === n * padded ? patches : new Float32Array(total * patchDim);
  if (packed !== patches) {
    let offset = 0;
    tokens.forEach((count, image) => {
      const start = image * padded * patchDim;
      packed.set(patches.subarray(start, start + count * patchDim), offset);
      offset += count * patchDim;
    });
  }
  return { native: { kind: 'patches', patches: packed, spatialShapes }, layout: { tokens, padded } };
}

/** Checks token ids and returns the texts' length. */
export function checkTextInput(config: Siglip2Config, inputIds: unknown, shape: unknown): number {
  if (!types.isInt32Array(inputIds)) throw wrongType('inputIds', 'an Int32Array', inputIds);
  const [, length] = requireShape('shape', shape, 2, inputIds.length) as [number, number];
  const { maxPositionEmbeddings, vocabSize } = config.text;
  if (length < 1 || length > maxPositionEmbeddings)
    throw shapeError(`shape: expected texts of 1 to ${maxPositionEmbeddings} tokens, got ${length}`);
  const wrong = inputIds.findIndex((id) => id < 0 || id >= vocabSize);
  if (wrong >= 0)
    throw shapeError(`inputIds[${wrong}]: expected an id from 0 to ${vocabSize - 1}, got ${describe(inputIds[wrong])}`);
  return length;
}

/** Packed rows [Σ tokens, width] as [n, padded, width], padding zero. */
function padTokens(packed: Float32Array, { tokens, padded }: TokenLayout, width: number): TensorData {
  const shape = [tokens.length, padded, width];
  if (packed.length === tokens.length * padded * width) return { data: packed, shape };
  const data = new Float32Array(tokens.length * padded * width);
  let offset = 0;
  tokens.forEach((count, row) => {
    data.set(packed.subarray(offset, offset + count * width), row * padded * width);
    offset += count * width;
  });
  return { data, shape };
}

/** What the native core returned, in the caller's layout, with `stateCount` hidden states; 0: none were asked for. */
export function toForwardOutput(
  result: NativeForwardResult,
  layout: TokenLayout,
  width: number,
  pooledWidth: number,
  stateCount: number,
): ForwardOutput {
  const n = layout.tokens.length;
  // Without a row the native core has nothing to do, and returns no states.
  const states = n === 0 ? Array.from({ length: stateCount }, () => new Float32Array(0)) : result.hiddenStates;
  return {
    lastHiddenState: padTokens(result.lastHiddenState, layout, width),
    pooled: { data: result.pooled, shape: [n, n === 0 ? pooledWidth : result.pooled.length / n] },
    ...(stateCount > 0 ? { hiddenStates: states.map((state) => padTokens(state, layout, width)) } : {}),
  };
}
