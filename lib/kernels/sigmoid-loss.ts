import { requireOptions, wrongRange, wrongType } from '../arguments.js';
import { resolveThreads } from '../device.js';
import { SiglipError } from '../errors.js';
import { native } from '../native.js';
import { requireTensorShape } from './attention.js';
import type { KernelOptions } from './run.js';
import { Tensor } from './tensor.js';
import { measured } from './timing.js';

/** Arguments of {@link sigmoidLoss}. */
export interface SigmoidLossArguments extends KernelOptions {
  /** [n, width], float32, rows of unit length; row i belongs to row i of `texts`. */
  images: Tensor;
  /** [n, width], float32, rows of unit length. */
  texts: Tensor;
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
  /** [n, width], float32. */
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
 * The sigmoid loss of SigLIP (arXiv 2303.15343) over all pairs of a batch, and its gradients, without a matrix of all
 * pairs in memory: loss = −(1/n) Σ_ij log σ(z_ij l_ij), with logits l_ij = exp(logitScale) · images_i·texts_j +
 * logitBias and z_ij = 1 for i = j, else −1. Beyond its inputs and results it needs at most 32 MB and some hundred rows
 * a thread.
 * @throws SiglipError ERR_SIGLIP_SHAPE when the shapes differ or there are no rows; ERR_SIGLIP_UNSUPPORTED when
 *   logitScale or logitBias is so large that float32 would overflow; ERR_SIGLIP_OUT_OF_MEMORY before any work
 */
export async function sigmoidLoss(args: SigmoidLossArguments): Promise<SigmoidLossResult> {
  if (typeof args !== 'object' || args === null) throw wrongType('args', 'an object of named arguments', args);
  requireOptions('args', args, ['images', 'texts', 'logitScale', 'logitBias', 'gradients', 'threads']);
  const images = requireTensorShape('args.images', args.images, 2);
  const texts = requireTensorShape('args.texts', args.texts, 2);
  if (images.shape[0] !== texts.shape[0] || images.shape[1] !== texts.shape[1])
    throw new SiglipError(
      'ERR_SIGLIP_SHAPE',
      `args.texts: expected the shape of args.images, [${images.shape.join(', ')}], got [${texts.shape.join(', ')}]`,
    );
  const gradients = args.gradients ?? false;
  if (typeof gradients !== 'boolean') throw wrongType('args.gradients', 'a boolean', gradients);
  const nativeArguments = {
    images: images.handle(),
    texts: texts.handle(),
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
