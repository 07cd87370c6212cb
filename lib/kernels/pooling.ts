import { requireInteger } from '../arguments.js';
import { checkOffsets, requireTensorShape } from './attention.js';
import { type KernelOptions, runKernel } from './run.js';
import type { Tensor } from './tensor.js';

/**
 * Gradients of `mapPool`. With w_j = softmax_j(probeKeys_h · x_j), p_h = Σ_j w_j x_j and d_h = valueWeight_hᵀ
 * gradOutput_h, the scores have the gradients s_j = w_j (d_h · x_j − d_h · p_h).
 * @param args tokens [Σ tokens, width], offsets (prefix sums, sequences + 1 entries), probeKeys [heads, width],
 *   valueWeight [width, width], gradOutput [sequences, width], float32
 * @returns gradTokens [Σ tokens, width]; gradProbeKeys [heads, width], gradValueWeight [width, width] and gradValueBias
 *   [width], summed over sequences
 * @throws SiglipError ERR_SIGLIP_SHAPE when shapes or offsets do not fit
 */
export async function mapPoolBackward(
  args: {
    tokens: Tensor;
    offsets: Int32Array;
    probeKeys: Tensor;
    valueWeight: Tensor;
    gradOutput: Tensor;
  } & KernelOptions,
): Promise<{ gradTokens: Tensor; gradProbeKeys: Tensor; gradValueWeight: Tensor; gradValueBias: Tensor }> {
  const tokens = requireTensorShape('args.tokens', args?.tokens, 2);
  const offsets = checkOffsets('args.offsets', args.offsets, tokens.shape[0] as number);
  const tensors = ['tokens', 'probeKeys', 'valueWeight', 'gradOutput'];
  const gradients = await runKernel('mapPoolBackward', args, tensors, { offsets });
  return {
    gradTokens: gradients.gradTokens as Tensor,
    gradProbeKeys: gradients.gradProbeKeys as Tensor,
    gradValueWeight: gradients.gradValueWeight as Tensor,
    gradValueBias: gradients.gradValueBias as Tensor,
  };
}

/** What the pooling head's probe keys are derived from, float32. */
export interface ProbeArguments extends KernelOptions {
  /** [width]. */
  probe: Tensor;
  /** Shape [width, width], the query's part of the head's joint projection, row-major [out, in]. */
  queryWeight: Tensor;
  /** [width]. */
  queryBias: Tensor;
  /** Shape [width, width], the key's part. Its bias adds the same to every score of a head and so does nothing. */
  keyWeight: Tensor;
}

const probeTensors = ['probe', 'queryWeight', 'queryBias', 'keyWeight'];

/**
 * The `probeKeys` of `mapPool`: headDim^-0.5 · keyWeight_hᵀ (queryWeight_h probe + queryBias_h) for each head,
 * accumulated in double precision.
 * @param args `heads` must divide the width
 * @returns output [heads, width]
 * @throws SiglipError ERR_SIGLIP_SHAPE when shapes do not fit
 */
export async function probeKeys(args: ProbeArguments & { heads: number }): Promise<{ output: Tensor }> {
  const probe = requireTensorShape('args.probe', args?.probe, 1);
  const heads = requireInteger('args.heads', args.heads, 1, Math.max(1, probe.shape[0] as number));
  const { output } = await runKernel('probeKeys', args, probeTensors, { heads });
  return { output: output as Tensor };
}

/**
 * Gradients of {@link probeKeys} with respect to what they are derived from.
 * @param args `gradProbeKeys` [heads, width], float32
 * @returns gradProbe [width], gradQueryWeight [width, width], gradQueryBias [width], gradKeyWeight [width, width]
 * @throws SiglipError ERR_SIGLIP_SHAPE when shapes do not fit
 */
export async function probeKeysBackward(
  args: ProbeArguments & { gradProbeKeys: Tensor },
): Promise<{ gradProbe: Tensor; gradQueryWeight: Tensor; gradQueryBias: Tensor; gradKeyWeight: Tensor }> {
  const gradients = await runKernel('probeKeysBackward', args, [...probeTensors, 'gradProbeKeys'], {});
  return {
    gradProbe: gradients.gradProbe as Tensor,
    gradQueryWeight: gradients.gradQueryWeight as Tensor,
    gradQueryBias: gradients.gradQueryBias as Tensor,
    gradKeyWeight: gradients.gradKeyWeight as Tensor,
  };
}
