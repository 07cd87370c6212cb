import { requireInteger, requireOneOf, requireOptions, wrongRange, wrongType } from '../arguments.js';
import { resolveThreads } from '../device.js';
import { native } from '../native.js';
import { type KernelOptions, runKernel } from './run.js';
import { type Tensor, tensorArgument } from './tensor.js';

/** Arguments of {@link adamw}. */
export interface AdamwArguments extends KernelOptions {
  /** Of any shape, float32, as the three others. */
  parameter: Tensor;
  gradient: Tensor;
  /** Running mean of the gradient; zeros before the first step. */
  firstMoment: Tensor;
  /** Running mean of the squared gradient; zeros before the first step. */
  secondMoment: Tensor;
  /** Number of this step, from 1. */
  step: number;
  learningRate: number;
  /** Decay rates of the two means, from 0 up to but not including 1; default [0.9, 0.95], as SigLIP was trained. */
  betas?: readonly [number, number];
  /** Added to the root of the second moment; positive, default 1e-8. */
  epsilon?: number;
  /** Default 0. */
  weightDecay?: number;
  /**
   * `learning-rate`, the default: the parameter shrinks by learningRate · weightDecay of itself, as in
   * torch.optim.AdamW. `decoupled`: by weightDecay of itself, as in big_vision.
   */
  decay?: 'learning-rate' | 'decoupled';
}

const tensors = ['parameter', 'gradient', 'firstMoment', 'secondMoment'] as const;
const options = ['step', 'learningRate', 'betas', 'epsilon', 'weightDecay', 'decay', 'threads'];

/** Requires a finite number of at least 0. */
function requireAmount(argument: string, value: unknown): number {
  const expected = 'a finite number of at least 0';
  if (typeof value !== 'number') throw wrongType(argument, expected, value);
  if (!Number.isFinite(value) || value < 0) throw wrongRange(argument, expected, value);
  return value;
}

function requireBetas(value: unknown): [number, number] {
  if (!Array.isArray(value) || value.length !== 2) throw wrongType('args.betas', 'an array of two numbers', value);
  const [first, second] = value.map((beta: unknown, index) => {
    const argument = `args.betas[${index}]`;
    if (requireAmount(argument, beta) >= 1) throw wrongRange(argument, 'a number below 1', beta);
    return beta as number;
  });
  return [first as number, second as number];
}

/**
 * One step of Adam with decoupled weight decay (AdamW; Kingma and Ba, arXiv 1412.6980; Loshchilov and Hutter,
 * arXiv 1711.05101). With m and v the moments, g the gradient and t the step:
 * m ← β₁ m + (1 − β₁) g, v ← β₂ v + (1 − β₂) g²,
 * θ ← θ − decay · θ − learningRate · (m / (1 − β₁ᵗ)) / (√(v / (1 − β₂ᵗ)) + ε).
 * @returns the new parameter and moments; the tensors given are left as they are
 * @throws SiglipError ERR_SIGLIP_SHAPE when the tensors differ in shape
 */
export async function adamw(
  args: AdamwArguments,
): Promise<{ parameter: Tensor; firstMoment: Tensor; secondMoment: Tensor }> {
  if (args === undefined) throw wrongType('args', 'an object of named arguments', args);
  requireOptions('args', args, [...tensors, ...options]);
  const [beta1, beta2] = requireBetas(args.betas ?? [0.9, 0.95]);
  const epsilon = requireAmount('args.epsilon', args.epsilon ?? 1e-8);
  if (epsilon === 0) throw wrongRange('args.epsilon', 'a positive number', epsilon);
  const stepSize = requireAmount('args.learningRate', args.learningRate);
  const weightDecay = requireAmount('args.weightDecay', args.weightDecay ?? 0);
  const convention = requireOneOf('args.decay', args.decay ?? 'learning-rate', ['learning-rate', 'decoupled']);
  const values = {
    step: requireInteger('args.step', args.step, 1),
    beta1,
    beta2,
    epsilon,
    stepSize,
    decay: convention === 'decoupled' ? weightDecay : stepSize * weightDecay,
    gradientScale: 1,
    averageDecay: 0,
  };
  const { parameter, gradient, firstMoment, secondMoment, threads } = args;
  const named = { parameter, gradient, firstMoment, secondMoment, threads };
  const outputs = await runKernel('adam', named, tensors, values);
  return {
    parameter: outputs.parameter as Tensor,
    firstMoment: outputs.firstMoment as Tensor,
    secondMoment: outputs.secondMoment as Tensor,
  };
}

/**
 * The sum of a tensor's squares, in double precision: for the global norm of gradients.
 * @param args values, of any shape, float32
 * @returns a number that is not finite when an element is not
 */
export async function sumOfSquares(args: { values: Tensor } & KernelOptions): Promise<number> {
  if (args === undefined) throw wrongType('args', 'an object of named arguments', args);
  requireOptions('args', args, ['values', 'threads']);
  return native().sumOfSquares({
    values: tensorArgument('args.values', args.values),
    threads: resolveThreads('args.threads', args.threads),
  });
}
