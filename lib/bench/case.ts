import type { Device } from '../device.js';
import type { ActivationDType, Tensor, WeightDType } from '../kernels/index.js';

/** Element types that benchmarks run in. */
export type BenchDType = WeightDType;

/**
 * Whether a benchmark in this type is of kernels with float32 activations and weights of the type: CPUs have no others.
 */
export function narrowsWeights(device: string, dtype: BenchDType): boolean {
  return dtype === 'int8' || (dtype === 'bfloat16' && (device === 'cpu' || device === 'reference'));
}

/** The type of activations in a benchmark in a type. */
export function activationType(device: string, dtype: BenchDType): ActivationDType {
  return dtype === 'int8' || narrowsWeights(device, dtype) ? 'float32' : dtype;
}

/** What a case is made for. */
export interface CaseSettings {
  device: Device;
  /** Of activations. */
  dtype: ActivationDType;
  /** Of weights, where it is another: see {@link KernelCase.weightTypes}. */
  weightDtype?: WeightDType;
  /** Takes the place of the case's batch: small for the check against the oracle. */
  batch?: number;
}

/** A call that can be measured, with its inputs on the device. */
export interface Prepared {
  /** One call; returns its outputs by name. */
  run(): Promise<Record<string, Tensor | number | undefined>>;
  /** Frees the inputs. */
  dispose(): void;
}

/** One kernel at one shape. */
export interface KernelCase {
  /** Of `siglip2/kernels`. */
  kernel: string;
  /** What it is in a model: `vision So400m/16-256`. */
  name: string;
  /** The shape in words a peer can be made from. */
  shape: Record<string, number | boolean | string>;
  /** Sequences, rows, pairs or pictures on a GPU. */
  batch: number;
  /** On a CPU, where a run would otherwise take seconds. */
  cpuBatch: number;
  /** Floating-point operations that matter: no credit for padding. */
  operations(batch: number): number;
  /** Bytes of memory that must be read and written once, for elements of `size` bytes, and of `weightSize` in weights. */
  bytes(batch: number, size: number, weightSize: number): number;
  /** The batch of the check; the kernel's path must be the same. */
  checkBatch: number;
  /** Largest error of a bfloat16 result, relative to its value or to the root mean square of the output. */
  tolerance: number;
  /** Types of weights that the kernel takes beside float32 activations, on CPUs; absent where all is of one type. */
  weightTypes?: readonly WeightDType[];
  prepare(settings: CaseSettings): Promise<Prepared>;
}
