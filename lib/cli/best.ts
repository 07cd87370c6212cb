/** The best of many, kept while they come. */

/** Keeps the highest-scored entries. Of equal scores the one that came first counts as better. */
export class Best<T extends { score: number }> {
  readonly #kept: T[] = [];

  /** @param limit how many are kept; at least 1 */
  constructor(private readonly limit: number) {}

  /** Offers an entry. Its score must be a number, not NaN. */
  add(entry: T): void {
    const kept = this.#kept;
    const last = kept[kept.length - 1];
    if (kept.length === this.limit && last !== undefined && entry.score <= last.score) return;
    let low = 0;
    let high = kept.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((kept[middle] as T).score >= entry.score) low = middle + 1;
      else high = middle;
    }
    kept.splice(low, 0, entry);
    if (kept.length > this.limit) kept.pop();
  }

  /** What was kept, best first. */
  get entries(): readonly T[] {
    return this.#kept;
  }
}
