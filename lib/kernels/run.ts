import { requireOptions, wrongType } from '../arguments.js';
import { resolveThreads } from '../device.js';
import { native } from '../native.js';
import { Tensor, tensorArgument } from './tensor.js';
import { measured } from './timing.js';

/** Options that every kernel takes. */
export interface KernelOptions {
  /** CPU: most threads to use; default all cores available to the process. Results do not depend on it. */
  threads?: number;
}

type KernelName =
  | 'linear'
  | 'mlp'
  | 'selfAttention'
  | 'layerNorm'
  | 'gelu'
  | 'l2Normalize'
  | 'convert'
  | 'attention'
  | 'attentionBackward'
  | 'mapPool'
  | 'mapPoolBackward'
  | 'probeKeys'
  | 'probeKeysBackward'
  | 'positionEmbedding'
  | 'tokenEmbedding'
  | 'linearBackward'
  | 'layerNormBackward'
  | 'geluBackward'
  | 'l2NormalizeBackward'
  | 'tokenEmbeddingBackward'
  | 'positionEmbeddingBackward'
  | 'adam';

/** The arguments of a kernel, which are an object. */
export function namedArguments<Args extends object>(args: Args): Args {
  if (typeof args !== 'object' || args === null) throw wrongType('args', 'an object of named arguments', args);
  return args;
}

/**
 * Queues a kernel on the device of its tensors: checks that the tensors are tensors, and wraps what comes back.
 * `values` are arguments that are no tensors; `optional` names tensors that may be absent.
 */
export async function runKernel(
  name: KernelName,
  args: object,
  tensors: readonly string[],
  values: Record<string, unknown>,
  optional: readonly string[] = [],
): Promise<Record<string, Tensor>> {
  const named = namedArguments(args) as Record<string, unknown>;
  const known = [...tensors, ...optional, ...Object.keys(values), 'threads'];
  requireOptions('args', named, known);
  const nativeArguments: Record<string, unknown> & { threads: number } = {
    ...values,
    threads: resolveThreads('args.threads', named.threads as number | undefined),
  };
  for (const tensor of tensors) nativeArguments[tensor] = tensorArgument(`args.${tensor}`, named[tensor]);
  for (const tensor of optional)
    if (named[tensor] !== undefined) nativeArguments[tensor] = tensorArgument(`args.${tensor}`, named[tensor]);
  const { device } = named[tensors[0] as string] as Tensor;
  const outputs = await measured(nativeArguments, (each) => native()[name](each));
  return Object.fromEntries(Object.entries(outputs).map(([key, output]) => [key, new Tensor(output, device)]));
}
