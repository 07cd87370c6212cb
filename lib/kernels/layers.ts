import { requireOneOf, wrongType } from '../arguments.js';
import { SiglipError } from '../errors.js';
import { checkOffsets, requireTensorShape } from './attention.js';
import { type KernelOptions, runKernel } from './run.js';
import type { Tensor } from './tensor.js';

/**
 * Linear layer: output = activation(input · weightᵀ + bias) + residual, accumulated in float32.
 * @param args input [rows, in], weight [out, in], bias [out], residual [rows, out], all float32; activation `gelu` is
 *   the tanh form
 * @returns output [rows, out]
 */
export async function linear(
  args: {
    input: Tensor;
    weight: Tensor;
    bias?: Tensor;
    residual?: Tensor;
    activation?: 'none' | 'gelu';
  } & KernelOptions,
): Promise<{ output: Tensor }> {
  const activation = requireOneOf('args.activation', args?.activation ?? 'none', ['none', 'gelu']);
  const { output } = await runKernel('linear', args, ['input', 'weight'], { activation }, ['bias', 'residual']);
  return { output: output as Tensor };
}

/**
 * Layer normalisation over the last dimension: (x − mean) / √(variance + epsilon) · weight + bias.
 * @param args input [rows, width], weight [width], bias [width], float32; epsilon default 1e-6
 * @returns output [rows, width]
 */
export async function layerNorm(
  args: { input: Tensor; weight: Tensor; bias: Tensor; epsilon?: number } & KernelOptions,
): Promise<{ output: Tensor }> {
  const epsilon = args?.epsilon ?? 1e-6;
  if (typeof epsilon !== 'number') throw wrongType('args.epsilon', 'a number', epsilon);
  const { output } = await runKernel('layerNorm', args, ['input', 'weight', 'bias'], { epsilon });
  return { output: output as Tensor };
}

/**
 * GELU in its tanh form: 0.5 z (1 + tanh(√(2/π) (z + 0.044715 z³))).
 * @param args input [rows, columns], float32
 * @returns output [rows, columns]
 */
export async function gelu(args: { input: Tensor } & KernelOptions): Promise<{ output: Tensor }> {
  const { output } = await runKernel('gelu', args, ['input'], {});
  return { output: output as Tensor };
}

/**
 * Rows scaled to unit Euclidean length; a row of zeros stays zero.
 * @param args input [rows, width], float32
 * @returns output [rows, width]
 */
export async function l2Normalize(args: { input: Tensor } & KernelOptions): Promise<{ output: Tensor }> {
  const { output } = await runKernel('l2Normalize', args, ['input'], {});
  return { output: output as Tensor };
}

/**
 * The same values in another element type, rounded to nearest, ties to even.
 * @param args input [rows, columns], float32 or bfloat16; dtype `float32` or `bfloat16`
 * @returns output [rows, columns]
 */
export async function convert(
  args: { input: Tensor; dtype: 'float32' | 'bfloat16' } & KernelOptions,
): Promise<{ output: Tensor }> {
  const dtype = requireOneOf('args.dtype', args?.dtype, ['float32', 'bfloat16']);
  const { output } = await runKernel('convert', args, ['input'], { dtype });
  return { output: output as Tensor };
}

/**
 * The attention of the MAP (multihead attention pooling) head, without forming keys or values of every token:
 * pooled_h = Σ softmax(probeKeys_h · x) x over a sequence's tokens, output_h = valueWeight_h pooled_h + valueBias_h.
 * @param args tokens [Σ tokens, width], offsets (prefix sums, sequences + 1 entries), probeKeys [heads, width]
 *   (headDim^-0.5 · W_kᵀ(W_q probe + b_q) for each head), valueWeight [width, width], valueBias [width], float32
 * @returns output [sequences, width]
 */
export async function mapPool(
  args: {
    tokens: Tensor;
    offsets: Int32Array;
    probeKeys: Tensor;
    valueWeight: Tensor;
    valueBias: Tensor;
  } & KernelOptions,
): Promise<{ output: Tensor }> {
  const tokens = requireTensorShape('args.tokens', args?.tokens, 2);
  const offsets = checkOffsets('args.offsets', args.offsets, tokens.shape[0] as number);
  const { output } = await runKernel('mapPool', args, ['tokens', 'probeKeys', 'valueWeight', 'valueBias'], { offsets });
  return { output: output as Tensor };
}

/**
 * A learned position table resized to each image's grid with an antialiased triangle filter (half-pixel centres), as
 * torch's interpolate(mode='bilinear', antialias=True) does.
 * @param args table [rows, columns, width], float32; spatialShapes: rows and columns for every image
 * @returns output [Σ rows·columns, width], grids one after the other, row-major
 */
export async function positionEmbedding(
  args: { table: Tensor; spatialShapes: Int32Array } & KernelOptions,
): Promise<{ output: Tensor }> {
  const shapes = args?.spatialShapes;
  if (!(shapes instanceof Int32Array)) throw wrongType('args.spatialShapes', 'an Int32Array', shapes);
  const { output } = await runKernel('positionEmbedding', args, ['table'], { spatialShapes: shapes });
  return { output: output as Tensor };
}

/**
 * Text embeddings: output[r] = table[ids[r]] + positions[r mod length].
 * @param args ids [texts · length]; table [vocabulary, width], float32, float16 or bfloat16; positions
 *   [length, width], float32
 * @returns output [texts · length, width]
 * @throws SiglipError ERR_SIGLIP_SHAPE for an id outside the table
 */
export async function tokenEmbedding(
  args: { ids: Int32Array; table: Tensor; positions: Tensor } & KernelOptions,
): Promise<{ output: Tensor }> {
  const positions = requireTensorShape('args.positions', args?.positions, 2);
  if (!(args.ids instanceof Int32Array)) throw wrongType('args.ids', 'an Int32Array', args.ids);
  const length = positions.shape[0] as number;
  if (length === 0 || args.ids.length % length !== 0)
    throw new SiglipError(
      'ERR_SIGLIP_SHAPE',
      `args.ids: expected a multiple of the ${length} positions, got ${args.ids.length} ids`,
    );
  const { output } = await runKernel('tokenEmbedding', args, ['table', 'positions'], { ids: args.ids, length });
  return { output: output as Tensor };
}
