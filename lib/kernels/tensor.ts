import { types } from 'node:util';
import { describe, wrongRange, wrongType } from '../arguments.js';
import { type Device, type DType, resolveDevice } from '../device.js';
import { SiglipError } from '../errors.js';
import { type NativeTensor, native, type TensorHandle } from '../native.js';

/** Element types a {@link Tensor} can hold. */
export type TensorDType = Exclude<DType, 'int8'> | 'int32' | 'uint8';

type TensorSource = Float32Array | Int32Array | Uint8Array | Uint16Array;

/** Checks a shape and returns its number of elements. */
function countElements(shape: readonly number[]): number {
  if (!Array.isArray(shape)) throw wrongType('shape', 'an array of sizes', shape);
  let elements = 1;
  shape.forEach((size, index) => {
    if (!Number.isSafeInteger(size) || size < 0) throw wrongRange(`shape[${index}]`, 'an integer of at least 0', size);
    elements *= size;
  });
  return elements;
}

/** The type that a typed array holds, or the one that was asked for if the array can hold it. */
function elementType(data: TensorSource, requested: string | undefined): TensorDType {
  const allowed: TensorDType[] = types.isFloat32Array(data)
    ? ['float32']
    : types.isInt32Array(data)
      ? ['int32']
      : types.isUint16Array(data)
        ? ['bfloat16', 'float16']
        : types.isUint8Array(data)
          ? ['uint8']
          : [];
  if (allowed.length === 0) throw wrongType('data', 'a Float32Array, Int32Array, Uint16Array or Uint8Array', data);
  if (requested === undefined) return allowed[0] as TensorDType;
  if (!(allowed as string[]).includes(requested))
    throw wrongRange('options.dtype', `${allowed.join(' or ')} for ${describe(data)}`, requested);
  return requested as TensorDType;
}

/** A tensor on a device, row-major. Freed by {@link dispose}, by `using`, or by garbage collection. */
export class Tensor {
  readonly shape: number[];
  /** `float32`, `float16`, `bfloat16`, `int32` or `uint8`. */
  readonly dtype: string;
  readonly device: string;
  #handle: TensorHandle | undefined;

  /** @internal */
  constructor(source: NativeTensor, device: string) {
    this.shape = source.shape;
    this.dtype = source.dtype;
    this.device = device;
    this.#handle = source.handle;
  }

  /**
   * Copies data to a device. A Uint16Array holds the bits of bfloat16 (the default) or float16 values.
   * @throws TypeError, RangeError for data of the wrong kind; ERR_SIGLIP_SHAPE when it does not fill the shape
   */
  static from(
    data: TensorSource,
    shape: number[],
    options: { dtype?: DType | 'int32' | 'uint8'; device?: Device } = {},
  ): Tensor {
    const dtype = elementType(data, options.dtype);
    const elements = countElements(shape);
    if (elements !== data.length)
      throw new SiglipError(
        'ERR_SIGLIP_SHAPE',
        `data: shape [${shape.join(', ')}] needs ${elements} elements, got ${data.length}`,
        { details: { shape, expected: elements, actual: data.length } },
      );
    const device = resolveDevice('options.device', options.device);
    const handle = native().createTensor(device, dtype, shape, data);
    return new Tensor({ handle, shape: [...shape], dtype }, device);
  }

  /**
   * The native tensor behind this object.
   * @internal
   */
  handle(): TensorHandle {
    if (this.#handle === undefined)
      throw new SiglipError('ERR_SIGLIP_DISPOSED', 'the tensor has been disposed and cannot be used any more');
    return this.#handle;
  }

  /** The elements as float32, after every operation queued before; bfloat16 and float16 are widened exactly. */
  async read(): Promise<Float32Array> {
    return native().readTensorValues(this.handle());
  }

  /** Frees the device memory as soon as no queued operation needs it. A second call does nothing. */
  dispose(): void {
    if (this.#handle !== undefined) native().release(this.#handle);
    this.#handle = undefined;
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** The native tensor of an argument that must be a {@link Tensor}. */
export function tensorArgument(argument: string, value: unknown): TensorHandle {
  if (!(value instanceof Tensor)) throw wrongType(argument, 'a Tensor', value);
  return value.handle();
}
