import { types } from 'node:util';
import { requireBoolean, requireOneOf, wrongRange, wrongType } from '../arguments.js';
import { SiglipError } from '../errors.js';
import type { ActivationDType } from './layers.js';
import { type KernelOptions, runKernel } from './run.js';
import { Tensor } from './tensor.js';

/** Arguments of {@link attention}. */
export interface AttentionArguments extends KernelOptions {
  /**
   * [Σq, heads, headDim], float32, or bfloat16 on devices that compute in it; one type for all activations. On CPUs it may
   * be bfloat16, too, for products in that type, and so may `output` and `gradOutput` be, each by itself.
   */
  query: Tensor;
  /** [Σk, heads, headDim], the query's type. */
  key: Tensor;
  /** [Σk, heads, headDim], the query's type. */
  value: Tensor;
  /** Prefix sums of query lengths, sequences + 1 entries; one sequence when omitted. */
  queryOffsets?: Int32Array;
  /** Prefix sums of key lengths; the query's when omitted and the lengths agree. */
  keyOffsets?: Int32Array;
  /** Query i attends to keys j ≤ i of its sequence. */
  causal?: boolean;
  /** Factor of the scores; default headDim^-0.5. */
  scale?: number;
  /**
   * `bfloat16`, on CPUs: the operands of all products are rounded to it, the query of the scores after it has been
   * multiplied by scale · log₂ e; sums, softmax and `logSumExp` stay float32. Default: the type of the query.
   */
  productDtype?: ActivationDType;
}

/** Checks prefix sums over `rows` rows, or things of another name: from 0, never falling, to `rows`. */
export function checkOffsets(argument: string, offsets: unknown, rows: number, counted = 'rows'): Int32Array {
  if (!types.isInt32Array(offsets)) throw wrongType(argument, 'an Int32Array of prefix sums', offsets);
  const fail = (expected: string, actual: unknown): never => {
    throw new SiglipError('ERR_SIGLIP_SHAPE', `${argument}: expected ${expected}, got ${actual}`);
  };
  if (offsets.length === 0) fail('at least one entry', 'none');
  if (offsets[0] !== 0) fail('the first entry to be 0', offsets[0]);
  for (let i = 1; i < offsets.length; i++)
    if ((offsets[i] as number) < (offsets[i - 1] as number))
      fail(`entry ${i} to be at least ${offsets[i - 1]}`, offsets[i]);
  if (offsets[offsets.length - 1] !== rows)
    fail(`the last entry to be ${rows} ${counted}`, offsets[offsets.length - 1]);
  return offsets;
}

/**
 * Scaled dot-product attention over packed ragged sequences, without a score matrix in memory:
 * output = softmax(scale · query·keyᵀ) value within each sequence and head.
 * @returns `output` [Σq, heads, headDim] in the type that the device computes in, float32 on CPUs, and `logSumExp` [Σq, heads],
 *   float32, the natural logarithm of the summed exponentials of the scaled scores; a query without keys gives 0 and −∞.
 * @throws SiglipError ERR_SIGLIP_SHAPE when shapes or offsets do not fit
 */
export async function attention(args: AttentionArguments): Promise<{ output: Tensor; logSumExp: Tensor }> {
  const tensors = ['query', 'key', 'value'];
  const { output, logSumExp } = await runKernel('attention', args, tensors, attentionOptions(args));
  return { output: output as Tensor, logSumExp: logSumExp as Tensor };
}

/** Arguments of {@link attentionBackward}: those of the forward pass, what it returned, and the output's gradient. */
export interface AttentionBackwardArguments extends AttentionArguments {
  /** [Σq, heads, headDim], from {@link attention} with the same arguments, in its type. */
  output: Tensor;
  /** [Σq, heads], float32, likewise. */
  logSumExp: Tensor;
  /** Gradient with respect to `output`, of its shape, and its type on GPUs. */
  gradOutput: Tensor;
}

/**
 * Gradients of {@link attention} with respect to query, key and value. The weights are recomputed from `logSumExp`
 * (FlashAttention, arXiv 2205.14135, appendix B), so nothing of the size of the scores is stored.
 * @returns `gradQuery` [Σq, heads, headDim], `gradKey` and `gradValue` [Σk, heads, headDim], in their types; 0 for a query
 *   without keys and a key without queries
 * @throws SiglipError ERR_SIGLIP_SHAPE when shapes or offsets do not fit
 */
export async function attentionBackward(
  args: AttentionBackwardArguments,
): Promise<{ gradQuery: Tensor; gradKey: Tensor; gradValue: Tensor }> {
  const tensors = ['query', 'key', 'value', 'output', 'logSumExp', 'gradOutput'];
  const { gradQuery, gradKey, gradValue } = await runKernel('attentionBackward', args, tensors, attentionOptions(args));
  return { gradQuery: gradQuery as Tensor, gradKey: gradKey as Tensor, gradValue: gradValue as Tensor };
}

/** The arguments of attention that are no tensors, checked, with their defaults. */
function attentionOptions(args: AttentionArguments): Record<string, unknown> {
  const query = requireTensorShape('args.query', args?.query, 3);
  const key = requireTensorShape('args.key', args.key, 3);
  const queries = query.shape[0] as number;
  const keys = key.shape[0] as number;
  const queryOffsets = args.queryOffsets ?? Int32Array.of(0, queries);
  const keyOffsets = args.keyOffsets ?? (keys === queries ? queryOffsets : Int32Array.of(0, keys));
  const scale = args.scale ?? (query.shape[2] as number) ** -0.5;
  if (typeof scale !== 'number') throw wrongType('args.scale', 'a number', scale);
  if (!Number.isFinite(scale) && query.shape[2] !== 0) throw wrongRange('args.scale', 'a finite number', scale);
  const product = args.productDtype;
  const type = product && requireOneOf('args.productDtype', product, ['float32', 'bfloat16']);
  return {
    queryOffsets: checkOffsets('args.queryOffsets', queryOffsets, queries),
    keyOffsets: checkOffsets('args.keyOffsets', keyOffsets, keys),
    causal: requireBoolean('args.causal', args.causal ?? false),
    scale,
    // The type of the query is what products are made in anyway.
    productDtype: type === query.dtype ? undefined : type,
  };
}

/** Requires a {@link Tensor} of the given number of dimensions. */
export function requireTensorShape(argument: string, value: unknown, rank: number): Tensor {
  if (!(value instanceof Tensor)) throw wrongType(argument, 'a Tensor', value);
  if (value.shape.length !== rank)
    throw new SiglipError(
      'ERR_SIGLIP_SHAPE',
      `${argument}: expected ${rank} dimensions, got shape [${value.shape.join(', ')}]`,
    );
  return value;
}
