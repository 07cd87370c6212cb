/** Numbers over steps in bounded memory, so that a curve of a million steps is drawn without losing a peak. */

/** Consecutive steps that are drawn together. */
export interface Bucket {
  first: number;
  last: number;
  /** Smallest and largest finite value; NaN when there is none. */
  least: number;
  most: number;
  sum: number;
  /** Finite values. */
  count: number;
  /** Values that are NaN or infinite. */
  broken: number;
}

/** Buckets of a series at most. */
export const maximumBuckets = 1024;

/**
 * Values by step. Every bucket holds as many steps, one at first; when there are too many buckets, neighbours are
 * merged. Extremes and the number of broken values are kept exactly.
 */
export class Series {
  readonly buckets: Bucket[] = [];
  /** Values in a complete bucket. */
  private size = 1;

  add(step: number, value: number): void {
    const finite = Number.isFinite(value);
    const bucket: Bucket = {
      first: step,
      last: step,
      least: finite ? value : Number.NaN,
      most: finite ? value : Number.NaN,
      sum: finite ? value : 0,
      count: finite ? 1 : 0,
      broken: finite ? 0 : 1,
    };
    const last = this.buckets.at(-1);
    if (last !== undefined && last.count + last.broken < this.size) {
      this.buckets[this.buckets.length - 1] = merge(last, bucket);
      return;
    }
    if (this.buckets.length === maximumBuckets) {
      for (let i = 0; i < maximumBuckets; i += 2)
        this.buckets[i / 2] = merge(this.buckets[i] as Bucket, this.buckets[i + 1] as Bucket);
      this.buckets.length = maximumBuckets / 2;
      this.size *= 2;
    }
    this.buckets.push(bucket);
  }

  /** Values that are NaN or infinite. */
  get broken(): number {
    return this.buckets.reduce((total, { broken }) => total + broken, 0);
  }

  /**
   * The curve smoothed: weighted means around each bucket, heavier where it is nearer, over a hundredth of the series.
   */
  smoothed(): { step: number; value: number }[] {
    const width = Math.max(1, this.buckets.length / 100);
    const reach = Math.ceil(3 * width);
    return this.buckets.flatMap((bucket, i) => {
      if (bucket.count === 0) return [];
      let sum = 0;
      let weights = 0;
      for (let j = Math.max(0, i - reach); j <= Math.min(this.buckets.length - 1, i + reach); j++) {
        const near = this.buckets[j] as Bucket;
        const weight = Math.exp(-0.5 * ((j - i) / width) ** 2);
        sum += weight * near.sum;
        weights += weight * near.count;
      }
      return [{ step: (bucket.first + bucket.last) / 2, value: sum / weights }];
    });
  }
}

function merge(a: Bucket, b: Bucket): Bucket {
  const choose = (pick: (x: number, y: number) => number, x: number, y: number): number =>
    Number.isNaN(x) ? y : Number.isNaN(y) ? x : pick(x, y);
  return {
    first: a.first,
    last: b.last,
    least: choose(Math.min, a.least, b.least),
    most: choose(Math.max, a.most, b.most),
    sum: a.sum + b.sum,
    count: a.count + b.count,
    broken: a.broken + b.broken,
  };
}
