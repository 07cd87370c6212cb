/** Order statistics, those of `siglip2 bench` and more. */
import { quantile, summarize as summary } from '../../dist/esm/bench/statistics.js';

export { quantile };

export const median = (samples) => quantile(samples, 0.5);

/** Median, 20 % and 80 % quantiles and the number of samples. */
export const summarize = (samples) => ({ ...summary(samples), samples: samples.length });

/** How wide the middle of the samples is, relative to their median. */
export function spread(samples) {
  return (quantile(samples, 0.8) - quantile(samples, 0.2)) / median(samples);
}
