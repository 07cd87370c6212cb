/** Median and spread of samples. */
export interface Summary {
  median: number;
  /** 20 % and 80 % quantiles. */
  low: number;
  high: number;
}

/** Noise only adds, so no mean. */
export function summarize(samples: readonly number[]): Summary {
  const sorted = [...samples].sort((a, b) => a - b);
  const at = (quantile: number): number => {
    const position = quantile * (sorted.length - 1);
    const below = Math.floor(position);
    const [a, b] = [sorted[below] as number, sorted[Math.min(below + 1, sorted.length - 1)] as number];
    return a + (b - a) * (position - below);
  };
  return { median: at(0.5), low: at(0.2), high: at(0.8) };
}
