import { describe, expect, it } from 'vitest';
import { ByteStore } from '../../../lib/training/data/byte-store.js';
import { RandomStream } from '../../../lib/training/data/random.js';
import { runSeed } from '../../support/random.js';

const mebibyte = 1 << 20;

describe('ByteStore', () => {
  it('gives copies that stay as they are, in a few buffers that together take no more than there is room for', () => {
    const random = new RandomStream(runSeed, 1);
    for (const room of [0, 1, 1000, 5 * mebibyte, 9 * mebibyte + 7]) {
      const store = new ByteStore(room);
      const kept: { copy: Uint8Array; value: number }[] = [];
      for (let i = 0; i < 120; i++) {
        const bytes = new Uint8Array(random.below(room === 1000 ? 30 : 200_000)).fill(i);
        const copy = store.keep(bytes);
        bytes.fill(255);
        if (copy === undefined) continue;
        expect(copy.length).toBe(bytes.length);
        kept.push({ copy, value: i });
      }
      for (const { copy, value } of kept) expect(copy.every((byte) => byte === value)).toBe(true);
      const buffers = new Set(kept.map(({ copy }) => copy.buffer));
      expect([...buffers].reduce((sum, { byteLength }) => sum + byteLength, 0)).toBeLessThanOrEqual(room);
      expect(buffers.size).toBeLessThanOrEqual(1 + room / (4 * mebibyte));
      // All that there is room for, but for less than one array at the end of each piece.
      if (room > 1000) expect(kept.reduce((sum, { copy }) => sum + copy.length, 0)).toBeGreaterThan(0.9 * room);
    }
  });

  it('keeps what is larger than a piece by itself, and what is small after something was too large', () => {
    const store = new ByteStore(7 * mebibyte);
    expect(store.keep(new Uint8Array(6 * mebibyte))?.length).toBe(6 * mebibyte);
    expect(store.keep(new Uint8Array(2 * mebibyte))).toBeUndefined();
    expect(store.keep(new Uint8Array(mebibyte))?.length).toBe(mebibyte);
    expect(store.keep(new Uint8Array(1))).toBeUndefined();
  });
});
