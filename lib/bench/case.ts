import type { Device } from '../device.js';
import type { Tensor } from '../kernels/index.js';
import type { BenchDType } from './random.js';

/** What a case is made for. */
export interface CaseSettings {
  device: Device;
  dtype: BenchDType;
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
  /** Bytes of memory that must be read and written once, for elements of `size` bytes. */
  bytes(batch: number, size: number): number;
  /** The batch of the check; the kernel's path must be the same. */
  checkBatch: number;
  /** Largest error of a bfloat16 result, relative to the root mean square of the output. */
  tolerance: number;
  prepare(settings: CaseSettings): Promise<Prepared>;
}
