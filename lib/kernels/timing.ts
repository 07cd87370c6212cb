/** Measuring kernels: a call runs several times on its device, which times each run with its own clock. */

/** How a kernel is measured. */
export interface TimingOptions {
  /** Runs that are measured, after one that is not. */
  repeats: number;
  /** Whether caches are flushed before every run; otherwise runs follow each other. */
  cold: boolean;
}

/** What the native core is asked to do, and what it answers. */
export interface TimingRequest extends TimingOptions {
  milliseconds?: Float64Array;
}

let active: TimingRequest | undefined;

/** The request of the call that is being made, once: for the functions that call the native core. */
export function takeTimingRequest(): TimingRequest | undefined {
  const request = active;
  active = undefined;
  return request;
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
