/** Runs the cases of a benchmark: right before fast. */
import type { Device } from '../device.js';
import { Tensor } from '../kernels/index.js';
import { timeKernel } from '../kernels/timing.js';
import { activationType, type BenchDType, type CaseSettings, type KernelCase, narrowsWeights } from './case.js';
import { floorOf, type Roof } from './roof.js';
import { type Summary, summarize } from './statistics.js';

/** What was measured of a case. */
export interface Measurement {
  kernel: string;
  name: string;
  shape: KernelCase['shape'];
  batch: number;
  dtype: BenchDType;
  /** Largest error against the double-precision oracle, relative to its value or to the root mean square of the output. */
  error: number;
  /** Milliseconds, caches flushed before every run. */
  cold: Summary;
  /** Milliseconds, runs in a row. */
  warm: Summary;
  /** Of the cold median. */
  teraflops: number;
  gigabytesPerSecond: number;
  floorMilliseconds: number;
  /** Floor over cold median: 1 is the best that can be. */
  fractionOfFloor: number;
  samples: { cold: number[]; warm: number[] };
}

/** Largest errors as {@link relativeError} has them, for types whose error is the same in all kernels. */
const tolerances = { float32: 1e-3, int8: 0.15 };
const sizes = { float32: 4, bfloat16: 2, int8: 1 };

function settingsOf(device: Device, dtype: BenchDType): CaseSettings {
  const settings = { device, dtype: activationType(device, dtype) };
  return narrowsWeights(device, dtype) ? { ...settings, weightDtype: dtype } : settings;
}

/**
 * The largest difference between two outputs, each relative to the expected value or to the root mean square of all of
 * them, whichever is larger: what is rounded to a type is off by a share of itself.
 * @throws Error when a value is not finite, or all are 0, which compares with anything
 */
function relativeError(name: string, actual: Float32Array, expected: Float32Array): number {
  const squares = expected.reduce((sum, value) => sum + value * value, 0);
  if (squares === 0) throw new Error(`${name}: all expected values are 0`);
  const usual = Math.sqrt(squares / expected.length);
  let worst = 0;
  for (let i = 0; i < expected.length; i++) {
    const [a, b] = [actual[i] as number, expected[i] as number];
    if (!Number.isFinite(a)) throw new Error(`${name}: output ${i} is ${a}, expected ${b}`);
    worst = Math.max(worst, Math.abs(a - b) / Math.max(usual, Math.abs(b)));
  }
  return worst;
}

/** Compares a case with the oracle at its small batch; returns the largest relative error. */
async function check(each: KernelCase, device: Device, dtype: BenchDType): Promise<number> {
  const outputs = [];
  for (const settings of [settingsOf(device, dtype), settingsOf('reference', 'float32')]) {
    const prepared = await each.prepare({ ...settings, batch: each.checkBatch });
    const result = await prepared.run();
    const values: Record<string, Float32Array> = {};
    for (const [name, value] of Object.entries(result)) {
      if (value === undefined) continue;
      values[name] = value instanceof Tensor ? await value.read() : Float32Array.of(value);
      if (value instanceof Tensor) value.dispose();
    }
    prepared.dispose();
    outputs.push(values);
  }
  const [actual, expected] = outputs as [Record<string, Float32Array>, Record<string, Float32Array>];
  let worst = 0;
  for (const [name, values] of Object.entries(expected))
    worst = Math.max(
      worst,
      relativeError(`${each.kernel}, ${each.name}, ${name}`, actual[name] as Float32Array, values),
    );
  const tolerance = dtype === 'bfloat16' ? each.tolerance : tolerances[dtype];
  if (worst > tolerance)
    throw new Error(`${each.kernel}, ${each.name}: the error is ${worst.toExponential(1)}, allowed is ${tolerance}`);
  return worst;
}

/** Checks a case and measures it. */
export async function measure(
  each: KernelCase,
  settings: { device: Device; dtype: BenchDType; onCpu: boolean; repeats: number; roof: Roof; signal: AbortSignal },
): Promise<Measurement> {
  const { device, dtype, onCpu, repeats, roof } = settings;
  const error = await check(each, device, dtype);
  settings.signal.throwIfAborted();
  const batch = onCpu ? each.cpuBatch : each.batch;
  const prepared = await each.prepare({ ...settingsOf(device, dtype), batch });
  const samples = { cold: [] as number[], warm: [] as number[] };
  try {
    for (const temperature of ['warm', 'cold'] as const) {
      const timed = await timeKernel({ repeats, cold: temperature === 'cold' }, () => prepared.run());
      samples[temperature] = timed.milliseconds;
      for (const output of Object.values(timed.result)) if (output instanceof Tensor) output.dispose();
      settings.signal.throwIfAborted();
    }
  } finally {
    prepared.dispose();
  }
  const cold = summarize(samples.cold);
  const operations = each.operations(batch);
  const size = sizes[activationType(device, dtype)];
  const bytes = each.bytes(batch, size, sizes[dtype]);
  const floorMilliseconds = floorOf(operations, bytes, roof);
  return {
    kernel: each.kernel,
    name: each.name,
    shape: each.shape,
    batch,
    dtype,
    error,
    cold,
    warm: summarize(samples.warm),
    teraflops: operations / cold.median / 1e9,
    gigabytesPerSecond: bytes / cold.median / 1e6,
    floorMilliseconds,
    fractionOfFloor: floorMilliseconds / cold.median,
    samples,
  };
}
