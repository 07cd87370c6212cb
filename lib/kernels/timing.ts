/** Measuring kernels: a call runs several times on its device, which times each run with its own clock. */

/** How a kernel is measured. */
export interface TimingOptions {
  /** Runs that are measured, after one that is not. */
  repeats: number;
  /** Whether caches are flushed before every run; otherwise runs follow each other. */
  cold: boolean;
}

/** A call that is to be measured, and then the answer. */
interface TimingRequest extends TimingOptions {
  milliseconds?: Float64Array;
}

let active: TimingRequest | undefined;

/** Makes a native call, measured when the call being made is; its result is then without `milliseconds`. */
export async function measured<Arguments extends object, Result extends object>(
  args: Arguments,
  call: (args: Arguments) => Promise<Result>,
): Promise<Result> {
  const request = active;
  if (request === undefined) return call(args);
  active = undefined;
  const { repeats, cold } = request;
  const { milliseconds, ...result } = (await call({ ...args, timing: { repeats, cold } })) as Result & {
    milliseconds: Float64Array;
  };
  request.milliseconds = milliseconds;
  return result as unknown as Result;
}

/**
 * Measures one kernel call, such as `() => attention({ … })`. Its last run's outputs are what the call returns.
 * @returns milliseconds of every run: between events on a GPU, of the clock on a CPU
 */
export async function timeKernel<Result>(
  options: TimingOptions,
  call: () => Promise<Result>,
): Promise<{ milliseconds: number[]; result: Result }> {
  const request: TimingRequest = { ...options };
  active = request;
  let pending: Promise<Result>;
  try {
    // Kernel functions reach the native core before they first wait, so no other call can take the request.
    pending = call();
  } finally {
    active = undefined;
  }
  const result = await pending;
  if (request.milliseconds === undefined) throw new Error('the call was not one of a kernel');
  return { milliseconds: [...request.milliseconds], result };
}
