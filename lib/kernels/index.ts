/**
 * The operations that SigLIP 2 is made of, on tensors: for micro-benchmarks, for models of your own, and for checking
 * one device against another.
 * @module siglip2/kernels
 */
import { native } from '../native.js';

export type { Device, DType } from '../device.js';
export { SiglipError, type SiglipErrorCode } from '../errors.js';
export type { RawPixels } from '../processing/source.js';
export {
  type AttentionArguments,
  type AttentionBackwardArguments,
  attention,
  attentionBackward,
} from './attention.js';
export { positionEmbeddingBackward, tokenEmbeddingBackward } from './embedding-backward.js';
export {
  type ActivationDType,
  type ActivationFunction,
  convert,
  gelu,
  l2Normalize,
  layerNorm,
  linear,
  mapPool,
  mlp,
  positionEmbedding,
  selfAttention,
  tokenEmbedding,
  type WeightDType,
} from './layers.js';
export { geluBackward, l2NormalizeBackward, layerNormBackward, linearBackward } from './layers-backward.js';
export { type AdamwArguments, adamw, sumOfSquares } from './optimizer.js';
export { type DevicePixels, type NaflexPatchifyOptions, naflexPatchify } from './patchify.js';
export { mapPoolBackward, type ProbeArguments, probeKeys, probeKeysBackward } from './pooling.js';
export type { PositivePairs } from './positive-pairs.js';
export type { KernelOptions } from './run.js';
export { type SigmoidLossArguments, type SigmoidLossResult, sigmoidLoss } from './sigmoid-loss.js';
export { Tensor, type TensorDType } from './tensor.js';

/** A device that this process can use. */
export interface DeviceInfo {
  name: string;
  kind: 'cpu' | 'cuda' | 'simt' | 'reference';
  /** For instance the instruction set of the CPU kernels, or the GPU's model. */
  description: string;
  /** GPUs only. */
  facts?: {
    name: string;
    /** For instance `sm_90`. */
    architecture: string;
    memoryBytes: number;
    freeBytes: number;
    multiprocessors: number;
    /** 13000 is 13.0. */
    driverVersion: number;
    /** Something to know about this device, or empty. */
    notice: string;
  };
}

/** The devices that tensors can live on. The emulated one is among them once something has asked for it. */
export function devices(): DeviceInfo[] {
  return native()
    .describe()
    .devices.map((device) => ({ ...device, kind: device.name.replace(/:\d+$/, '') as DeviceInfo['kind'] }));
}
