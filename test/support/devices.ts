/**
 * The device that kernel tests run on, and its element types. Each test of an operation is written once and runs in
 * several vitest projects: on the CPU with every instruction set, on the emulated GPU (SIGLIP2_TEST_DEVICE=simt), and
 * on a GPU (SIGLIP2_TEST_DEVICE=cuda, `npm run test:gpu`).
 */
import { Tensor } from '../../lib/kernels/index.js';
import { Random, runSeed } from './random.js';

// Results start as NaN. Read by the addon when it makes its first tensor.
process.env.SIGLIP2_POISON ??= '1';

export type TestDevice = 'cpu' | 'simt' | 'cuda';
/** Element types that activations may have. */
export type ActivationType = 'float32' | 'bfloat16';

const requested = process.env.SIGLIP2_TEST_DEVICE ?? 'cpu';
if (!['cpu', 'simt', 'cuda'].includes(requested)) throw new Error(`SIGLIP2_TEST_DEVICE: no such device: ${requested}`);
/** The device under test. */
export const testDevice = requested as TestDevice;
/**
 * An emulator takes milliseconds for what others do in microseconds: tests give it smaller shapes. So do sanitizers:
 * SIGLIP2_TEST_SHAPES=small.
 */
export const emulated = testDevice === 'simt' || process.env.SIGLIP2_TEST_SHAPES === 'small';
/** Whether products may run on cuBLASLt: it rounds biases and its GELU is an approximation, and batches of other sizes have other sums. */
export const vendorProducts = testDevice === 'cuda' && process.env.SIGLIP2_CUBLASLT !== '0';
/** What the device under test computes in. */
export const activationTypes: readonly ActivationType[] = testDevice === 'cpu' ? ['float32'] : ['float32', 'bfloat16'];

export type ModelType = ActivationType | 'int8';
/** What models compute in on it: CPUs have bfloat16 and int8 for the operands of products. */
export const modelTypes: readonly ModelType[] =
  testDevice === 'cpu' ? ['float32', 'bfloat16', 'int8'] : ['float32', 'bfloat16'];

/** Shapes of every test device, or other, smaller ones for the emulator. */
export function shapesFor<Shape>(others: Shape[], emulator: Shape[]): Shape[] {
  return emulated ? emulator : others;
}

/** Numbers of threads that results must not depend on; nothing to test on GPUs. */
export const threadCounts: readonly number[] = testDevice === 'cpu' ? [1, 3] : [];

/** Random numbers of this run's seed; `stream` tells one use from another. */
export function draw(stream: number): Random {
  return new Random((Math.imul(stream + 1, 0x9e3779b1) ^ runSeed) >>> 0);
}

/** Half a unit in the last place of a bfloat16 number near 1: the most relative error of rounding to it. */
export const bfloat16Rounding = 2 ** -8;

/** The bound of an error for results that are rounded to a type once, given that of float32. */
export function roundedOnce(dtype: ActivationType, float32: number): number {
  return dtype === 'float32' ? float32 : float32 + bfloat16Rounding * 1.001;
}

const bits = new DataView(new ArrayBuffer(4));

/** The bits of the nearest bfloat16 number, ties to even; NaN stays NaN. */
export function bfloat16Bits(value: number): number {
  bits.setFloat32(0, value);
  const word = bits.getUint32(0);
  if ((word & 0x7fffffff) > 0x7f800000) return (word >>> 16) | 0x40;
  return ((word + 0x7fff + ((word >>> 16) & 1)) >>> 16) & 0xffff;
}

/** The numbers that are left of these when they are stored in a type. */
export function rounded(values: Float32Array, dtype: ActivationType): Float32Array {
  if (dtype === 'float32') return values;
  return values.map((value) => {
    bits.setUint32(0, bfloat16Bits(value) * 0x10000);
    return bits.getFloat32(0);
  });
}

/** A device, and the type of its activations. */
export class Place {
  /** The oracle: double precision, given the same numbers as the device under test. */
  static reference(dtype: ActivationType): Place {
    return new Place('reference', dtype);
  }
  /** The device under test. */
  static tested(dtype: ActivationType): Place {
    return new Place(testDevice, dtype);
  }

  private constructor(
    readonly device: TestDevice | 'reference',
    readonly dtype: ActivationType,
  ) {}

  /** Activations: values rounded to the place's type. The oracle keeps them in float32. */
  activation(values: Float32Array, shape: number[]): Tensor {
    if (this.dtype === 'float32') return this.parameter(values, shape);
    if (this.device === 'reference') return this.parameter(rounded(values, this.dtype), shape);
    return Tensor.from(Uint16Array.from(values, bfloat16Bits), shape, { dtype: 'bfloat16', device: this.device });
  }
  /** What is float32 whatever the activations are. */
  parameter(values: Float32Array, shape: number[]): Tensor {
    return Tensor.from(values, shape, { device: this.device });
  }
}
