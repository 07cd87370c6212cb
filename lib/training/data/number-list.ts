/** A growing list of numbers at eight bytes each, for what a file of millions of rows needs one of per row. */
export class NumberList {
  private values = new Float64Array(1024);
  length = 0;

  push(value: number): void {
    if (this.length === this.values.length) {
      const grown = new Float64Array(this.length * 2);
      grown.set(this.values);
      this.values = grown;
    }
    this.values[this.length++] = value;
  }

  at(index: number): number {
    return this.values[index]!;
  }

  /** Gives back what was allocated for further numbers. */
  trim(): void {
    this.values = this.values.slice(0, this.length);
  }
}
