import type { Device } from '../device.js';
import { convert, linear } from '../kernels/index.js';
import { timeKernel } from '../kernels/timing.js';
import { type BenchDType, RandomInputs } from './random.js';
import { summarize } from './statistics.js';

/** What the device reaches in this run: what floors are computed with. */
export interface Roof {
  /** Of a copy, bytes read and bytes written counted both. */
  gigabytesPerSecond: number;
  /** Of a large square matrix product in the benchmark's type, on random data. */
  teraflops: number;
}

const repeats = 7;

/** Measures both roofs; on a CPU with smaller data. */
export async function measureRoof(device: Device, dtype: BenchDType, onCpu: boolean): Promise<Roof> {
  const random = new RandomInputs(device, dtype, 1);
  const copied = onCpu ? 1 << 25 : 1 << 28;
  const source = random.parameter([copied / 1024, 1024]);
  const copy = await timeKernel({ repeats, cold: true }, () => convert({ input: source, dtype: 'float32' }));
  source.dispose();
  copy.result.output.dispose();

  const side = onCpu ? 2048 : 8192;
  const input = await random.activation([side, side]);
  const weight = await random.activation([side, side], side ** -0.5);
  const product = await timeKernel({ repeats, cold: false }, () => linear({ input, weight }));
  for (const tensor of [input, weight, product.result.output]) tensor.dispose();

  return {
    gigabytesPerSecond: (2 * 4 * copied) / summarize(copy.milliseconds).median / 1e6,
    teraflops: (2 * side ** 3) / summarize(product.milliseconds).median / 1e9,
  };
}

/** The least milliseconds that a kernel can take: operations or bytes, whichever takes longer. */
export function floorOf(operations: number, bytes: number, roof: Roof): number {
  return Math.max(operations / (roof.teraflops * 1e9), bytes / (roof.gigabytesPerSecond * 1e6));
}
