/** Order statistics: a benchmark's noise is one-sided, so means and standard deviations mislead. */

/** The value below which a share of the samples lies, interpolated between neighbours. */
export function quantile(samples, share) {
  if (samples.length === 0) throw new RangeError('a quantile of no samples');
  const sorted = Float64Array.from(samples).sort();
  const position = (sorted.length - 1) * share;
  const below = Math.floor(position);
  const above = Math.min(below + 1, sorted.length - 1);
  return sorted[below] + (sorted[above] - sorted[below]) * (position - below);
}

export const median = (samples) => quantile(samples, 0.5);

/** Median, 20 % and 80 % quantiles and the number of samples. */
export function summarize(samples) {
  return {
    median: median(samples),
    low: quantile(samples, 0.2),
    high: quantile(samples, 0.8),
    samples: samples.length,
  };
}

/** How wide the middle of the samples is, relative to their median. */
export function spread(samples) {
  return (quantile(samples, 0.8) - quantile(samples, 0.2)) / median(samples);
}
