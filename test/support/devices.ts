/**
 * The device that kernel tests run on, and its element types. Each test of an operation is written once and runs in
 * several vitest projects: on the CPU with every instruction set, on the emulated GPU (SIGLIP2_TEST_DEVICE=simt), and
 * on a GPU (SIGLIP2_TEST_DEVICE=cuda, `npm run test:gpu`).
 */
import { Tensor } from '../../lib/kernels/index.js';

export type TestDevice = 'cpu' | 'simt' | 'cuda';
/** Element types that activations may have. */
export type ActivationType = 'float32' | 'bfloat16';

const requested = process.env.SIGLIP2_TEST_DEVICE ?? 'cpu';
if (!['cpu', 'simt', 'cuda'].includes(requested)) throw new Error(`SIGLIP2_TEST_DEVICE: no such device: ${requested}`);
/** The device under test. */
export const testDevice = requested as TestDevice;
/** An emulator takes milliseconds for what others do in microseconds: tests give it smaller shapes. */
export const emulated = testDevice === 'simt';
/** What the device under test computes in. */
export const activationTypes: readonly ActivationType[] = testDevice === 'cpu' ? ['float32'] : ['float32', 'bfloat16'];

/** Half a unit in the last place of a bfloat16 number near 1: the relative error of rounding to it. */
export const bfloat16Rounding = 2 ** -9;

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
