import { wrongType } from '../arguments.js';
import { type ActivationDType, type ActivationFunction, inputActivation, weightType } from './layers.js';
import { type KernelOptions, runKernel } from './run.js';
import type { Tensor } from './tensor.js';

/**
 * Gradients of {@link linear} without an activation of its output: gradInput = gradOutput · weight, gradWeight =
 * gradOutputᵀ · input, gradBias = Σ gradOutput over the rows. With `inputActivation` `gelu` gradInput is multiplied by
 * gelu′(input), element by element, and gradWeight = gradOutputᵀ · gelu(input). Accumulated in float32.
 * @param args input [rows, in], gradOutput [rows, out], float32 or both bfloat16; weight [out, in], float32, float16 or
 *   bfloat16, rounded to `weightDtype`, by default the type of the input. `weightDtype` `bfloat16` beside float32 input
 *   (CPUs) rounds gradOutput for gradInput, and gradOutput and input for gradWeight, too, and each of them may lie rounded,
 *   in bfloat16; gradBias is the sum of gradOutput as it is given
 * @returns gradInput [rows, in] in the input's type; gradWeight [out, in], gradBias [out], float32
 * @throws SiglipError ERR_SIGLIP_SHAPE when shapes do not fit
 */
export async function linearBackward(
  args: {
    input: Tensor;
    weight: Tensor;
    gradOutput: Tensor;
    inputActivation?: ActivationFunction;
    weightDtype?: ActivationDType;
  } & KernelOptions,
): Promise<{ gradInput: Tensor; gradWeight: Tensor; gradBias: Tensor }> {
  const { gradInput, gradWeight, gradBias } = await runKernel(
    'linearBackward',
    args,
    ['input', 'weight', 'gradOutput'],
    { ...inputActivation(args), ...weightType(args, ['float32', 'bfloat16']) },
  );
  return { gradInput: gradInput as Tensor, gradWeight: gradWeight as Tensor, gradBias: gradBias as Tensor };
}

/**
 * Gradients of {@link layerNorm}. With x̂ = (x − mean) / √(variance + epsilon) and g = gradOutput · weight:
 * gradInput = (g − mean(g) − x̂ · mean(g · x̂)) / √(variance + epsilon), gradWeight = Σ gradOutput · x̂ and
 * gradBias = Σ gradOutput over the rows.
 * @param args input [rows, width], gradOutput [rows, width], float32 or both bfloat16; weight [width], float32; epsilon
 *   default 1e-6
 * @returns gradInput [rows, width] in the input's type; gradWeight [width], gradBias [width], float32
 * @throws SiglipError ERR_SIGLIP_SHAPE when shapes do not fit
 */
export async function layerNormBackward(
  args: { input: Tensor; weight: Tensor; gradOutput: Tensor; epsilon?: number } & KernelOptions,
): Promise<{ gradInput: Tensor; gradWeight: Tensor; gradBias: Tensor }> {
  const epsilon = args?.epsilon ?? 1e-6;
  if (typeof epsilon !== 'number') throw wrongType('args.epsilon', 'a number', epsilon);
  const tensors = ['input', 'weight', 'gradOutput'];
  const { gradInput, gradWeight, gradBias } = await runKernel('layerNormBackward', args, tensors, { epsilon });
  return { gradInput: gradInput as Tensor, gradWeight: gradWeight as Tensor, gradBias: gradBias as Tensor };
}

/**
 * Gradient of {@link gelu}: gradOutput · (½(1 + tanh u) + ½ z (1 − tanh² u) u′), u = √(2/π)(z + 0.044715 z³).
 * @param args input [rows, columns], gradOutput [rows, columns], float32 or both bfloat16
 * @returns gradInput [rows, columns] in that type
 * @throws SiglipError ERR_SIGLIP_SHAPE when shapes do not fit
 */
export async function geluBackward(
  args: { input: Tensor; gradOutput: Tensor } & KernelOptions,
): Promise<{ gradInput: Tensor }> {
  const { gradInput } = await runKernel('geluBackward', args, ['input', 'gradOutput'], {});
  return { gradInput: gradInput as Tensor };
}

/**
 * Gradient of {@link l2Normalize}: with y = input / ‖input‖, (gradOutput − (gradOutput · y) y) / ‖input‖; 0 for a row of
 * zeros. Accumulated in double precision.
 * @param args input [rows, width], gradOutput [rows, width], each float32 or bfloat16
 * @returns gradInput [rows, width] in the input's type
 * @throws SiglipError ERR_SIGLIP_SHAPE when shapes do not fit
 */
export async function l2NormalizeBackward(
  args: { input: Tensor; gradOutput: Tensor } & KernelOptions,
): Promise<{ gradInput: Tensor }> {
  const { gradInput } = await runKernel('l2NormalizeBackward', args, ['input', 'gradOutput'], {});
  return { gradInput: gradInput as Tensor };
}
