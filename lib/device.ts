/** Devices and element types as callers name them. */
import { describe, requireInteger, wrongType } from './arguments.js';
import { SiglipError } from './errors.js';
import { native } from './native.js';

/**
 * Where work runs. `auto`: a CUDA device when a usable one exists, else the CPU. `simt`: the CUDA kernels emulated on
 * the CPU, for tests. `reference`: every operation in plain double precision, the oracle of the tests.
 */
export type Device = 'auto' | 'cpu' | 'cuda' | `cuda:${number}` | 'simt' | 'reference';

/**
 * Element types of computation. What a device cannot do is ERR_SIGLIP_UNSUPPORTED and names what it can. `auto` in their
 * place runs a model in the fastest one in which embeddings have a cosine of at least 0.9995 to those in float32:
 * bfloat16 on CUDA devices and on CPUs that multiply it (instruction sets `avx512bf16` and `amx`), else float32.
 */
export type DType = 'float32' | 'bfloat16' | 'float16' | 'int8';

/** What `device: 'auto'` chooses, and why. */
export function chooseDevice(): { device: string; reason: string } {
  const { devices, noCuda } = native().describe();
  const cuda = devices.find(({ name }) => name === 'cuda');
  return cuda === undefined
    ? { device: 'cpu', reason: noCuda ?? 'there is no CUDA device' }
    : { device: cuda.name, reason: cuda.description };
}

/**
 * The name of an existing device, with `auto` resolved.
 * @throws TypeError for something that is no device name
 * @throws SiglipError ERR_SIGLIP_NO_DEVICE, with the reason, when it cannot be used
 */
export function resolveDevice(argument: string, device: unknown): string {
  if (device === undefined || device === 'auto') return chooseDevice().device;
  if (typeof device !== 'string' || !/^(cpu|cuda(:\d+)?|simt|reference)$/.test(device))
    throw wrongType(argument, '"auto", "cpu", "cuda", "cuda:N", "simt" or "reference"', device);
  try {
    return native().openDevice(device);
  } catch (error) {
    if (!(error instanceof SiglipError)) throw error;
    const available = native()
      .describe()
      .devices.map(({ name }) => name);
    throw new SiglipError(error.code, `${argument}: ${error.message}`, { details: { device, available } });
  }
}

/** What is to be done in an element type: running models, training them, making patches for them. */
type Purpose = 'compute' | 'train' | 'patchify';

/** Instruction sets that multiply bfloat16 numbers, or do as if; the others convert them, which is no faster than float32. */
const bfloat16InstructionSets = ['avx512bf16', 'amx', 'amxemulated'];

/** Element types that a device has for a purpose, the one that `auto` means first. */
function typesOf(device: string, purpose: Purpose): DType[] {
  if (device.startsWith('cuda')) return ['bfloat16', 'float32'];
  if (device === 'simt') return ['float32', 'bfloat16'];
  // CPUs have other types for the operands of a model's products alone.
  if (purpose === 'patchify') return ['float32'];
  if (purpose === 'train') return ['float32', 'bfloat16'];
  // Never int8, in which some models' embeddings have a smaller cosine than `auto` promises.
  return device === 'cpu' && bfloat16InstructionSets.includes(native().describe().instructionSet)
    ? ['bfloat16', 'float32', 'int8']
    : ['float32', 'bfloat16', 'int8'];
}

/**
 * The element type to compute in, with `auto`, and no type, resolved: bfloat16 on CUDA devices and, for running models,
 * on CPUs that multiply it; float32 elsewhere.
 * @throws TypeError for something that is no element type
 * @throws SiglipError ERR_SIGLIP_UNSUPPORTED when the device does not have it for that purpose
 */
export function resolveDType(argument: string, dtype: unknown, device: string, purpose: Purpose): DType {
  const supported = typesOf(device, purpose);
  if (dtype === undefined || dtype === 'auto') return supported[0] as DType;
  if (dtype !== 'float32' && dtype !== 'bfloat16' && dtype !== 'float16' && dtype !== 'int8')
    throw wrongType(argument, '"auto", "float32", "bfloat16", "float16" or "int8"', dtype);
  if (supported.includes(dtype)) return dtype;
  throw new SiglipError(
    'ERR_SIGLIP_UNSUPPORTED',
    `${argument}: device "${device}" cannot ${purpose} in ${describe(dtype)}; it can in ` +
      supported.map((name) => `"${name}"`).join(' and '),
    { details: { device, dtype, supported } },
  );
}

/** The number of threads to use: all cores available to the process unless given. */
export function resolveThreads(argument: string, threads: number | undefined): number {
  return threads === undefined ? native().describe().cores : requireInteger(argument, threads, 1, 1024);
}
