import { availableParallelism } from 'node:os';
import type { Device } from '../device.js';
import { convert, linear, type WeightDType } from '../kernels/index.js';
import { timeKernel } from '../kernels/timing.js';
import { native } from '../native.js';
import { activationType, type BenchDType } from './case.js';
import { RandomInputs } from './random.js';
import { summarize } from './statistics.js';

/** What the device reaches in this run: what floors are computed with. */
export interface Roof {
  /** Of a copy, bytes read and bytes written counted both. */
  gigabytesPerSecond: number;
  /** Of what `arithmetic` says. */
  teraflops: number;
  /**
   * On a GPU a large square matrix product in the benchmark's type; on a CPU a loop of the instruction that products with
   * such weights are made of, on registers alone. Random data both times.
   */
  arithmetic: string;
}

const repeats = 7;

/**
 * Runs the CPU's instruction for products with weights of a type, on registers alone, on every thread.
 * @param turns of its loop on each thread, some nanoseconds each
 * @returns its name, the floating-point operations done, a multiplication and an addition being two, and milliseconds
 * @throws SiglipError ERR_SIGLIP_UNSUPPORTED when the instruction set has none for the type
 */
export async function runArithmeticRoof(args: { dtype: WeightDType; turns: number; threads?: number }) {
  return native().arithmeticRoof({ threads: availableParallelism(), ...args });
}

async function ofRegisters(dtype: WeightDType): Promise<Pick<Roof, 'teraflops' | 'arithmetic'>> {
  const runs = [];
  for (let i = 0; i < repeats; i++) runs.push(await runArithmeticRoof({ dtype, turns: 4e6 }));
  const rates = runs.map(({ operations, milliseconds }) => operations / milliseconds / 1e9);
  return { teraflops: summarize(rates).median, arithmetic: `${runs[0]?.instruction} on registers` };
}

async function ofProduct(random: RandomInputs, side: number): Promise<Pick<Roof, 'teraflops' | 'arithmetic'>> {
  const input = await random.activation([side, side]);
  const weight = await random.activation([side, side], side ** -0.5);
  const product = await timeKernel({ repeats, cold: false }, () => linear({ input, weight }));
  for (const tensor of [input, weight, product.result.output]) tensor.dispose();
  return { teraflops: (2 * side ** 3) / summarize(product.milliseconds).median / 1e9, arithmetic: 'a large product' };
}

/** Measures both roofs; where there is no GPU, with smaller data. */
export async function measureRoof(device: Device, dtype: BenchDType, onCpu: boolean): Promise<Roof> {
  const random = new RandomInputs(device, activationType(device, dtype), 1);
  const copied = onCpu ? 1 << 25 : 1 << 28;
  const source = random.parameter([copied / 1024, 1024]);
  const copy = await timeKernel({ repeats, cold: true }, () => convert({ input: source, dtype: 'float32' }));
  source.dispose();
  copy.result.output.dispose();
  return {
    gigabytesPerSecond: (2 * 4 * copied) / summarize(copy.milliseconds).median / 1e6,
    ...(await (device === 'cpu' ? ofRegisters(dtype) : ofProduct(random, onCpu ? 2048 : 8192))),
  };
}

/** The least milliseconds that a kernel can take: operations or bytes, whichever takes longer. */
export function floorOf(operations: number, bytes: number, roof: Roof): number {
  return Math.max(operations / (roof.teraflops * 1e9), bytes / (roof.gigabytesPerSecond * 1e6));
}
