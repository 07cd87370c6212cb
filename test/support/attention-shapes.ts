/** Shapes that both passes of attention are tested on. */

export interface AttentionShape {
  heads: number;
  headDim: number;
  /** Lengths of the sequences. */
  queries: number[];
  keys: number[];
  causal?: boolean;
}

/** As many keys as queries. */
export const same = (lengths: number[]) => ({ queries: lengths, keys: lengths });

/** Offsets of sequences of these lengths. */
export const prefix = (lengths: number[]): Int32Array =>
  Int32Array.from([0, ...lengths.map((_, i) => lengths.slice(0, i + 1).reduce((a, b) => a + b, 0))]);

/** Those of the models, and what is at the edges of tiles; too long for an emulator. */
export const attentionShapes: [string, AttentionShape][] = [
  ['B/16, ragged', { heads: 12, headDim: 64, ...same([196, 1, 64, 255]) }],
  ['So400m, prime lengths', { heads: 3, headDim: 72, ...same([127, 251, 17]) }],
  ['giant', { heads: 2, headDim: 96, ...same([130]) }],
  ['the largest head dimension', { heads: 2, headDim: 256, ...same([40, 70]) }],
  ['cross attention', { heads: 4, headDim: 64, queries: [3, 1, 64], keys: [100, 257, 1] }],
  ['causal', { heads: 3, headDim: 64, ...same([64, 65, 1, 130]), causal: true }],
  ['causal over several tiles of keys', { heads: 2, headDim: 64, ...same([600, 257]), causal: true }],
  ['wide heads over several tiles of keys', { heads: 1, headDim: 200, ...same([300, 129]) }],
  ['long', { heads: 1, headDim: 64, ...same([1025]) }],
];
