/** Devices and element types as callers name them. */
import { describe, requireInteger, wrongType } from './arguments.js';
import { SiglipError } from './errors.js';
import { native } from './native.js';

/**
 * Where work runs. `auto`: a CUDA device when a usable one exists, else the CPU. `simt`: the CUDA kernels emulated on
 * the CPU, for tests. `reference`: every operation in plain double precision, the oracle of the tests.
 */
export type Device = 'auto' | 'cpu' | 'cuda' | `cuda:${number}` | 'simt' | 'reference';

/** Element types of computation. What a device cannot do is ERR_SIGLIP_UNSUPPORTED and names what it can. */
export type DType = 'float32' | 'bfloat16' | 'float16' | 'int8';

/**
 * The name of an existing device, with `auto` resolved.
 * @throws TypeError for something that is no device name
 * @throws SiglipError ERR_SIGLIP_NO_DEVICE when the machine or this build does not have it
 */
export function resolveDevice(argument: string, device: unknown): string {
  if (device === undefined || device === 'auto') return 'cpu';
  if (typeof device !== 'string' || !/^(cpu|cuda(:\d+)?|simt|reference)$/.test(device))
    throw wrongType(argument, '"auto", "cpu", "cuda", "cuda:N", "simt" or "reference"', device);
  const known = native()
    .describe()
    .devices.map((entry) => entry.name);
  if (!known.includes(device))
    throw new SiglipError(
      'ERR_SIGLIP_NO_DEVICE',
      `${argument}: device "${device}" is not available in this build; available: ${known.join(', ')}`,
      { details: { device, available: known } },
    );
  return device;
}

/**
 * The element type to compute in, with `auto` resolved.
 * @throws SiglipError ERR_SIGLIP_UNSUPPORTED when the device cannot compute in it
 */
export function resolveDType(argument: string, dtype: unknown, device: string): DType {
  if (dtype === undefined || dtype === 'auto' || dtype === 'float32') return 'float32';
  if (dtype !== 'bfloat16' && dtype !== 'float16' && dtype !== 'int8')
    throw wrongType(argument, '"auto", "float32", "bfloat16", "float16" or "int8"', dtype);
  throw new SiglipError(
    'ERR_SIGLIP_UNSUPPORTED',
    `${argument}: device "${device}" cannot compute in ${describe(dtype)}; it can in "float32"`,
    { details: { device, dtype, supported: ['float32'] } },
  );
}

/** The number of threads to use: all cores available to the process unless given. */
export function resolveThreads(argument: string, threads: number | undefined): number {
  return threads === undefined ? native().describe().cores : requireInteger(argument, threads, 1, 1024);
}
