/** Random inputs of benchmarks: normally distributed, never zeros, the same for the same seed. */

import type { Device } from '../device.js';
import { type ActivationDType, convert, Tensor } from '../kernels/index.js';

const blockSize = 1 << 20;

/** Standard normal values (Box and Muller) from an xorshift generator. */
function normalBlock(seed: number): Float32Array {
  let state = (seed * 2_654_435_761) >>> 0 || 1;
  const uniform = (): number => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return ((state >>> 0) + 0.5) / 4_294_967_296;
  };
  const values = new Float32Array(blockSize);
  for (let i = 0; i < blockSize; i += 2) {
    const radius = Math.sqrt(-2 * Math.log(uniform()));
    const angle = 2 * Math.PI * uniform();
    values[i] = radius * Math.cos(angle);
    values[i + 1] = radius * Math.sin(angle);
  }
  return values;
}

/** Makes the inputs of one benchmark. */
export class RandomInputs {
  readonly #block: Float32Array;
  readonly #device: Device;
  readonly #dtype: ActivationDType;
  #next = 0;

  constructor(device: Device, dtype: ActivationDType, seed: number) {
    this.#block = normalBlock(seed);
    this.#device = device;
    this.#dtype = dtype;
  }

  /** `count` values with the given deviation; long arrays repeat a million values, from another start each time. */
  values(count: number, deviation = 1): Float32Array {
    const values = new Float32Array(count);
    this.#next = (this.#next + 77_773) % blockSize;
    let start = this.#next;
    for (let at = 0; at < count; start = 0) {
      const part = this.#block.subarray(start, start + Math.min(blockSize - start, count - at));
      values.set(part, at);
      at += part.length;
    }
    if (deviation !== 1) for (let i = 0; i < count; i++) values[i] = (values[i] as number) * deviation;
    return values;
  }

  /** A float32 tensor: parameters and their gradients. */
  parameter(shape: number[], deviation = 1): Tensor {
    const count = shape.reduce((product, size) => product * size, 1);
    return Tensor.from(this.values(count, deviation), shape, { device: this.#device });
  }

  /** A tensor of the type of activations. */
  async activation(shape: number[], deviation = 1): Promise<Tensor> {
    return this.toActivation(this.parameter(shape, deviation));
  }

  /** Converts a float32 tensor, which is given up. */
  async toActivation(tensor: Tensor): Promise<Tensor> {
    if (this.#dtype === 'float32') return tensor;
    const { output } = await convert({ input: tensor, dtype: this.#dtype });
    tensor.dispose();
    return output;
  }
}
