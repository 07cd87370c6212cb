import { types } from 'node:util';
import { requireInteger, requireOneOf, requireOptions, wrongRange, wrongType } from '../arguments.js';
import { SiglipError } from '../errors.js';
import { checkOffsets, requireTensorShape } from './attention.js';
import { type KernelOptions, namedArguments, runKernel } from './run.js';
import type { Tensor } from './tensor.js';

/** Types that activations may have: float32 everywhere, bfloat16 on devices that compute in it. */
export type ActivationDType = 'float32' | 'bfloat16';
const activationTypes = ['float32', 'bfloat16'] as const;

/** The option `dtype`, if it is given. */
function resultType({ dtype }: { dtype?: ActivationDType } = {}): { dtype?: ActivationDType } {
  return dtype === undefined ? {} : { dtype: requireOneOf('args.dtype', dtype, activationTypes) };
}

/** Types that weights of linear layers may be packed in. */
export type WeightDType = ActivationDType | 'int8';

/** The option `weightDtype`, if it is given. */
export function weightType<Type extends WeightDType>(
  args: { weightDtype?: Type },
  types: readonly Type[],
): { weightDtype: Type | undefined } {
  const dtype = args?.weightDtype;
  return { weightDtype: dtype && requireOneOf('args.weightDtype', dtype, types) };
}

const activations = ['none', 'gelu'] as const;

/** What is applied to a value before it goes on: nothing, or GELU in its tanh form. */
export type ActivationFunction = (typeof activations)[number];

/** The option `inputActivation`. */
export function inputActivation(args: { inputActivation?: ActivationFunction }): {
  inputActivation: ActivationFunction;
} {
  return { inputActivation: requireOneOf('args.inputActivation', args?.inputActivation ?? 'none', activations) };
}

function requireEpsilon(argument: string, epsilon = 1e-6): number {
  if (typeof epsilon !== 'number') throw wrongType(argument, 'a number', epsilon);
  return epsilon;
}

/** A layer norm that is a part of an operation: weight and bias [width], float32, and epsilon, default 1e-6. */
interface Norm {
  weight: Tensor;
  bias: Tensor;
  epsilon?: number;
}

/** The arguments `norm` of a kernel, if it is given: its tensors and its number. */
function normArguments(norm: Norm | undefined): { tensors: Record<string, Tensor>; epsilon: number } {
  if (norm !== undefined) requireOptions('args.norm', norm, ['weight', 'bias', 'epsilon']);
  const epsilon = requireEpsilon('args.norm.epsilon', norm?.epsilon);
  return { tensors: norm ? { normWeight: norm.weight, normBias: norm.bias } : {}, epsilon };
}

/**
 * Linear layer: output = activation(inputActivation(input) · weightᵀ + bias) + residual, accumulated in float32.
 * @param args input [rows, in], residual [rows, out], float32, or both bfloat16 on devices that compute in it; weight
 *   [out, in], float32, float16 or bfloat16, rounded to `weightDtype`, by default the type of the input; bias [out],
 *   float32; `gelu` is the tanh form, and on CPUs part of the product in both places. On CPUs, beside float32 input,
 *   `weightDtype` may be `bfloat16`: the input is rounded to it for the product, too; or `int8`: weights are integers
 *   times a scale for each output, max |w| / 127, the input integers times one for each row, max |x| / 127, and sums of
 *   their products exact. On CPUs what products in bfloat16 round may lie in memory as bfloat16: the input beside
 *   `weightDtype` `bfloat16`, which is then its default, and the output, for another such product: `dtype` is its type, by
 *   default the input's; the residual is float32
 * @returns output [rows, out]
 */
export async function linear(
  args: {
    input: Tensor;
    weight: Tensor;
    bias?: Tensor;
    residual?: Tensor;
    activation?: ActivationFunction;
    inputActivation?: ActivationFunction;
    weightDtype?: WeightDType;
    dtype?: ActivationDType;
  } & KernelOptions,
): Promise<{ output: Tensor }> {
  const activation = requireOneOf('args.activation', args?.activation ?? 'none', activations);
  const types = { ...weightType(args, [...activationTypes, 'int8']), ...resultType(args) };
  const values = { activation, ...inputActivation(args), ...types };
  const { output } = await runKernel('linear', args, ['input', 'weight'], values, ['bias', 'residual']);
  return { output: output as Tensor };
}

/**
 * A transformer block's MLP: output = residual + fc2(gelu(fc1(layerNorm(input)))), the tanh form of GELU. On CPUs in one
 * pass over blocks of rows whose intermediate activations stay in the cache; elsewhere one operation after the other. The
 * same bits as {@link layerNorm} and two of {@link linear}.
 * @param args input and residual [rows, width], float32, or both bfloat16 on devices that compute in it; norm: weight and
 *   bias [width], float32, and epsilon, default 1e-6; without it the input is taken as it is; fc1Weight
 *   [intermediate, width] and fc2Weight [width, intermediate], as `weight` of {@link linear}, as is `weightDtype`; fc1Bias
 *   [intermediate] and fc2Bias [width], float32
 * @returns output [rows, width] in the input's type
 * @throws SiglipError ERR_SIGLIP_SHAPE when shapes do not fit
 */
export async function mlp(
  args: {
    input: Tensor;
    norm?: Norm;
    fc1Weight: Tensor;
    fc1Bias?: Tensor;
    fc2Weight: Tensor;
    fc2Bias?: Tensor;
    residual?: Tensor;
    weightDtype?: WeightDType;
  } & KernelOptions,
): Promise<{ output: Tensor }> {
  const { norm, ...given } = namedArguments(args);
  const { tensors, epsilon } = normArguments(norm);
  const values = { epsilon, ...weightType(given, [...activationTypes, 'int8']) };
  const required = ['input', 'fc1Weight', 'fc2Weight', ...Object.keys(tensors)];
  const optional = ['fc1Bias', 'fc2Bias', 'residual'];
  const { output } = await runKernel('mlp', { ...given, ...tensors }, required, values, optional);
  return { output: output as Tensor };
}

/**
 * A transformer block's attention: output = residual + out(attention(query, key, value)), where query, key and value are
 * thirds of queryKeyValue(layerNorm(input)), and scores are scaled by headDim^-0.5. On CPUs in one pass over blocks of
 * whole sequences, whose queries, keys and values stay in the cache, a few heads at a time; elsewhere one operation after
 * the other. The same bits as {@link layerNorm}, {@link linear}, {@link attention} and {@link linear}; the products of
 * attention are in bfloat16 (its `productDtype`) where weights are narrower than the input.
 * @param args input and residual [rows, width], float32, or both bfloat16 on devices that compute in it; heads, a divisor
 *   of the width that makes heads of at most 256; offsets: prefix sums of lengths, sequences + 1 entries, by default one
 *   sequence; norm: weight and bias [width], float32, and epsilon, default 1e-6; without it the input is taken as it is;
 *   queryKeyValueWeight [3·width, width], query over key over value, and outWeight [width, width], as `weight` of
 *   {@link linear}, as is `weightDtype`; queryKeyValueBias [3·width] and outBias [width], float32
 * @returns output [rows, width] in the input's type
 * @throws SiglipError ERR_SIGLIP_SHAPE when shapes or offsets do not fit
 */
export async function selfAttention(
  args: {
    input: Tensor;
    heads: number;
    offsets?: Int32Array;
    norm?: Norm;
    queryKeyValueWeight: Tensor;
    queryKeyValueBias?: Tensor;
    outWeight: Tensor;
    outBias?: Tensor;
    residual?: Tensor;
    weightDtype?: WeightDType;
  } & KernelOptions,
): Promise<{ output: Tensor }> {
  const { norm, ...given } = namedArguments(args);
  const [rows, width] = requireTensorShape('args.input', given.input, 2).shape as [number, number];
  const heads = requireInteger('args.heads', given.heads, 1);
  if (width % heads !== 0) throw wrongRange('args.heads', `a divisor of the width ${width}`, heads);
  const offsets = checkOffsets('args.offsets', given.offsets ?? Int32Array.of(0, rows), rows);
  const { tensors, epsilon } = normArguments(norm);
  const values = { heads, offsets, epsilon, ...weightType(given, [...activationTypes, 'int8']) };
  const required = ['input', 'queryKeyValueWeight', 'outWeight', ...Object.keys(tensors)];
  const optional = ['queryKeyValueBias', 'outBias', 'residual'];
  const { output } = await runKernel('selfAttention', { ...given, ...tensors }, required, values, optional);
  return { output: output as Tensor };
}

/**
 * Layer normalisation over the last dimension: (x − mean) / √(variance + epsilon) · weight + bias.
 * @param args input [rows, width], float32, or bfloat16 on devices that compute in it; weight [width], bias [width],
 *   float32; epsilon default 1e-6; dtype of the output, by default the input's: on CPUs it may be bfloat16, for products
 *   that round their operands to it
 * @returns output [rows, width]
 */
export async function layerNorm(
  args: { input: Tensor; weight: Tensor; bias: Tensor; epsilon?: number; dtype?: ActivationDType } & KernelOptions,
): Promise<{ output: Tensor }> {
  const values = { epsilon: requireEpsilon('args.epsilon', args?.epsilon), ...resultType(args) };
  const { output } = await runKernel('layerNorm', args, ['input', 'weight', 'bias'], values);
  return { output: output as Tensor };
}

/**
 * GELU in its tanh form: 0.5 z (1 + tanh(√(2/π) (z + 0.044715 z³))).
 * @param args input [rows, columns], float32, or bfloat16 on devices that compute in it
 * @returns output [rows, columns] in the input's type
 */
export async function gelu(args: { input: Tensor } & KernelOptions): Promise<{ output: Tensor }> {
  const { output } = await runKernel('gelu', args, ['input'], {});
  return { output: output as Tensor };
}

/**
 * Rows scaled to unit Euclidean length; a row of zeros stays zero.
 * @param args input [rows, width], float32, or bfloat16 on devices that compute in it; dtype of the output, default the
 *   input's
 * @returns output [rows, width]
 */
export async function l2Normalize(
  args: { input: Tensor; dtype?: ActivationDType } & KernelOptions,
): Promise<{ output: Tensor }> {
  const { output } = await runKernel('l2Normalize', args, ['input'], resultType(args));
  return { output: output as Tensor };
}

/**
 * The same values in another element type, rounded to nearest, ties to even.
 * @param args input of any shape, float32 or bfloat16; dtype `float32` or `bfloat16`
 * @returns output of the input's shape
 */
export async function convert(
  args: { input: Tensor; dtype: ActivationDType } & KernelOptions,
): Promise<{ output: Tensor }> {
  const dtype = requireOneOf('args.dtype', args?.dtype, activationTypes);
  const { output } = await runKernel('convert', args, ['input'], { dtype });
  return { output: output as Tensor };
}

/**
 * The attention of the MAP (multihead attention pooling) head, without forming keys or values of every token:
 * pooled_h = Σ softmax(probeKeys_h · x) x over a sequence's tokens, output_h = valueWeight_h pooled_h + valueBias_h.
 * @param args tokens [Σ tokens, width], offsets (prefix sums, sequences + 1 entries), probeKeys [heads, width]
 *   (headDim^-0.5 · W_kᵀ(W_q probe + b_q) for each head), valueWeight [width, width], valueBias [width]; tokens float32,
 *   or bfloat16 on devices that compute in it, the rest float32
 * @returns output [sequences, width] in the tokens' type
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
 * @param args table [rows, columns, width], float32; spatialShapes: rows and columns for every image; dtype of the
 *   output, default float32
 * @returns output [Σ rows·columns, width], grids one after the other, row-major
 */
export async function positionEmbedding(
  args: { table: Tensor; spatialShapes: Int32Array; dtype?: ActivationDType } & KernelOptions,
): Promise<{ output: Tensor }> {
  const shapes = args?.spatialShapes;
  if (!types.isInt32Array(shapes)) throw wrongType('args.spatialShapes', 'an Int32Array', shapes);
  const { output } = await runKernel('positionEmbedding', args, ['table'], {
    spatialShapes: shapes,
    ...resultType(args),
  });
  return { output: output as Tensor };
}

/**
 * Text embeddings: output[r] = table[ids[r]] + positions[r mod length].
 * @param args ids [texts · length]; table [vocabulary, width], float32, float16 or bfloat16; positions
 *   [length, width], float32; dtype of the output, default float32
 * @returns output [texts · length, width]
 * @throws SiglipError ERR_SIGLIP_SHAPE for an id outside the table
 */
export async function tokenEmbedding(
  args: { ids: Int32Array; table: Tensor; positions: Tensor; dtype?: ActivationDType } & KernelOptions,
): Promise<{ output: Tensor }> {
  const positions = requireTensorShape('args.positions', args?.positions, 2);
  if (!types.isInt32Array(args.ids)) throw wrongType('args.ids', 'an Int32Array', args.ids);
  const length = positions.shape[0] as number;
  if (length === 0 || args.ids.length % length !== 0)
    throw new SiglipError(
      'ERR_SIGLIP_SHAPE',
      `args.ids: expected a multiple of the ${length} positions, got ${args.ids.length} ids`,
    );
  const { output } = await runKernel('tokenEmbedding', args, ['table', 'positions'], {
    ids: args.ids,
    length,
    ...resultType(args),
  });
  return { output: output as Tensor };
}
