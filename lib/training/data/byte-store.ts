/** Memory for what is kept in large numbers. */

/** Bytes of a piece of {@link ByteStore}. */
const pieceBytes = 4 << 20;

/**
 * Copies of many small arrays in a few large ones: the garbage collector visits every buffer whenever it looks for what
 * is unused.
 */
export class ByteStore {
  private piece = new Uint8Array(0);
  private used = 0;

  /** @param room bytes that all copies may take together, with what is left over at the ends of pieces */
  constructor(private room: number) {}

  /** A copy of the bytes, or `undefined` where there is no room for it. */
  keep(bytes: Uint8Array): Uint8Array | undefined {
    if (bytes.length > this.piece.length - this.used) {
      const length = Math.max(bytes.length, Math.min(pieceBytes, this.room));
      if (length > this.room) return undefined;
      this.room -= length;
      this.piece = new Uint8Array(length);
      this.used = 0;
    }
    const copy = this.piece.subarray(this.used, this.used + bytes.length);
    copy.set(bytes);
    this.used += bytes.length;
    return copy;
  }
}
