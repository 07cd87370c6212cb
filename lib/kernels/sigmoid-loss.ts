import { requireBoolean, requireOptions, wrongRange, wrongType } from '../arguments.js';
import { resolveThreads } from '../device.js';
import { SiglipError } from '../errors.js';
import { native } from '../native.js';
import { requireTensorShape } from './attention.js';
import { checkPositivePairs, type PositivePairs } from './positive-pairs.js';
import type { KernelOptions } from './run.js';
import { Tensor } from './tensor.js';
import { measured } from './timing.js';

/** Arguments of {@link sigmoidLoss}. */
export interface SigmoidLossArguments extends KernelOptions {
  /** [n, width], float32, or bfloat16 on devices that compute in it; rows of unit length. */
  images: Tensor;
  /** [m, width], the images' type, rows of unit length. */
  texts: Tensor;
  /** Which texts belong to which images. When omitted there are as many of both, and text i belongs to image i. */
  positives?: PositivePairs;
  /** Logarithm of the factor of the products, at most 80. */
  logitScale: number;
  /** From -1e30 to 1e30. */
  logitBias: number;
  /** Whether gradients are wanted too; about three times the work. */
  gradients?: boolean;
}

/** What {@link sigmoidLoss} returns; gradients only when they are wanted. */
export interface SigmoidLossResult {
  loss: number;
  /** [n, width], float32. */
  gradImages?: Tensor;
  /** [m, width], float32. */
  gradTexts?: Tensor;
  /** Of the logarithm, as it was given. */
  gradLogitScale?: number;
  gradLogitBias?: number;
}

function requireFinite(argument: string, value: unknown): number {
  if (typeof value !== 'number') throw wrongType(argument, 'a number', value);
  if (!Number.isFinite(value)) throw wrongRange(argument, 'a finite number', value);
  return value;
}

/**
 * The sigmoid loss of SigLIP (arXiv 2303.15343) over all pairs of n images and m texts, and its gradients, without a
 * matrix of all pairs in memory: loss = −(1/n) Σ_ij log σ(z_ij l_ij), with logits l_ij = exp(logitScale) ·
 * images_i·texts_j + logitBias and z_ij = 1 for pairs that belong together, else −1. Beyond its inputs and results it
 * needs at most 32 MB, or m numbers if that is more, and some hundred rows a thread.
 * @throws SiglipError ERR_SIGLIP_SHAPE when the shapes differ, but for n and m with `positives`, there are no rows, or
 *   `positives` does not fit them; ERR_SIGLIP_UNSUPPORTED when logitScale or logitBias is so large that float32 would
 *   overflow; ERR_SIGLIP_OUT_OF_MEMORY before any work
 */
export async function sigmoidLoss(args: SigmoidLossArguments): Promise<SigmoidLossResult> {
  if (typeof args !== 'object' || args === null) throw wrongType('args', 'an object of named arguments', args);
  requireOptions('args', args, ['images', 'texts', 'positives', 'logitScale', 'logitBias', 'gradients', 'threads']);
  const images = requireTensorShape('args.images', args.images, 2);
  const texts = requireTensorShape('args.texts', args.texts, 2);
  const [n, width] = images.shape as [number, number];
  const [m, textWidth] = texts.shape as [number, number];
  const listed = args.positives !== undefined;
  if (textWidth !== width || (m !== n && !listed))
    throw new SiglipError(
      'ERR_SIGLIP_SHAPE',
      listed
        ? `args.texts: expected rows of the width of args.images, ${width}, got ${textWidth}`
        : `args.texts: expected the shape of args.images, [${n}, ${width}], got [${m}, ${textWidth}]`,
    );
  const gradients = args.gradients ?? false;
  requireBoolean('args.gradients', gradients);
  const nativeArguments = {
    images: images.handle(),
    texts: texts.handle(),
    positives: listed ? checkPositivePairs('args.positives', args.positives, n, m) : undefined,
    logitScale: requireFinite('args.logitScale', args.logitScale),
    logitBias: requireFinite('args.logitBias', args.logitBias),
    gradients,
    threads: resolveThreads('args.threads', args.threads),
  };
  const result = await measured(nativeArguments, (each) => native().sigmoidLoss(each));
  if (!('gradImages' in result)) return { loss: result.loss };
  return {
    ...result,
    gradImages: new Tensor(result.gradImages, images.device),
    gradTexts: new Tensor(result.gradTexts, images.device),
  };
}
