/** Order statistics: a benchmark's noise is one-sided, so means and standard deviations mislead. */

/** The value below which a share of the samples lies, interpolated between neighbours. */
export function quantile(samples: readonly number[], share: number): number {
  if (samples.length === 0) throw new RangeError('a quantile of no samples');
  const sorted = Float64Array.from(samples).sort();
  const position = (sorted.length - 1) * share;
  const below = Math.floor(position);
  const above = Math.min(below + 1, sorted.length - 1);
  const [low, high] = [sorted[below] as number, sorted[above] as number];
  return low + (high - low) * (position - below);
}

/** Median and spread of samples. */
export interface Summary {
  median: number;
  /** 20 % and 80 % quantiles. */
  low: number;
  high: number;
}

export function summarize(samples: readonly number[]): Summary {
  return { median: quantile(samples, 0.5), low: quantile(samples, 0.2), high: quantile(samples, 0.8) };
}
