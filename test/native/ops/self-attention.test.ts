/** The fused first half of a block against its parts on the same device, to the bit, and against the reference. */
import { describe, expect, it } from 'vitest';
import { attention, layerNorm, linear, selfAttention, Tensor, type WeightDType } from '../../../lib/kernels/index.js';
import { relativeError, sameBits } from '../../support/compare.js';
import {
  activationTypes,
  draw,
  emulated,
  Place,
  roundedOnce,
  shapesFor,
  vendorProducts,
} from '../../support/devices.js';
import { testBitsOfParts } from '../../support/fused-operation.js';

interface Shape {
  heads: number;
  headDim: number;
  lengths: number[];
}

const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);

type Arguments = Parameters<typeof selfAttention>[0] & { offsets: Int32Array };

/** Arguments of `selfAttention`; without `everything` only what it requires. */
function argumentsOf(place: Place, seed: number, { heads, headDim, lengths }: Shape, everything: boolean): Arguments {
  const random = draw(seed);
  const values = (count: number, scale = 1) => random.floats(count, scale);
  const width = heads * headDim,
    rows = sum(lengths);
  const offsets = Int32Array.from([0, ...lengths.map((_, i) => sum(lengths.slice(0, i + 1)))]);
  const required = {
    input: place.activation(values(rows * width, 2), [rows, width]),
    heads,
    offsets,
    queryKeyValueWeight: place.activation(values(3 * width * width, 2 * width ** -0.5), [3 * width, width]),
    outWeight: place.activation(values(width * width, width ** -0.5), [width, width]),
  };
  if (!everything) return required;
  return {
    ...required,
    norm: { weight: place.parameter(values(width), [width]), bias: place.parameter(values(width), [width]) },
    queryKeyValueBias: place.parameter(values(3 * width), [3 * width]),
    outBias: place.parameter(values(width), [width]),
    residual: place.activation(values(rows * width), [rows, width]),
  };
}

/**
 * The same from four operations, of which each rounds its result to the place's type. Queries, keys and values come from a
 * product each; from cuBLASLt, whose bits depend on a product's size, from one.
 */
async function inParts(
  { input, norm, ...args }: Arguments,
  weightDtype: WeightDType | undefined,
  place: Place,
): Promise<Float32Array> {
  const type = weightDtype === undefined ? {} : { weightDtype };
  const [rows, width] = input.shape as [number, number];
  const normed = place.activation(await (norm ? (await layerNorm({ input, ...norm })).output : input).read(), [
    rows,
    width,
  ]);
  const [weights, biases] = [await args.queryKeyValueWeight.read(), await args.queryKeyValueBias?.read()];
  /** Columns [first, first + count) of the joint product. */
  const columns = async (first: number, count: number): Promise<Float32Array> => {
    const weight = place.activation(weights.slice(first * width, (first + count) * width), [count, width]);
    const bias = biases && place.parameter(biases.slice(first, first + count), [count]);
    return (await linear({ input: normed, weight, ...(bias && { bias }), ...type })).output.read();
  };
  const joint = vendorProducts ? await columns(0, 3 * width) : undefined;
  const third = async (index: number): Promise<Tensor> => {
    const values = joint
      ? Float32Array.from({ length: rows * width }, (_, i) => {
          const row = Math.floor(i / width);
          return joint[(3 * row + index) * width + (i - row * width)] as number;
        })
      : await columns(index * width, width);
    return place.activation(values, [rows, args.heads, width / args.heads]);
  };
  const product = weightDtype === undefined ? {} : { productDtype: 'bfloat16' as const };
  const [query, key, value] = [await third(0), await third(1), await third(2)];
  const attended = await attention({ query, key, value, queryOffsets: args.offsets, ...product });
  const { output } = await linear({
    input: place.activation(await attended.output.read(), [rows, width]),
    weight: args.outWeight,
    ...(args.outBias && { bias: args.outBias }),
    ...(args.residual && { residual: args.residual }),
    ...type,
  });
  return output.read();
}

const run = async (args: Arguments, weightDtype?: WeightDType, threads?: number): Promise<Float32Array> =>
  (await selfAttention({ ...args, ...(weightDtype && { weightDtype }), ...(threads && { threads }) })).output.read();

const shapes: [string, Shape][] = [
  ['one token of one feature', { heads: 1, headDim: 1, lengths: [1] }],
  ['no sequence', { heads: 2, headDim: 4, lengths: [] }],
  ['sequences of no token only', { heads: 2, headDim: 4, lengths: [0, 0] }],
  ['primes, and sequences of no token', { heads: 3, headDim: 7, lengths: [0, 5, 0, 131, 2, 0] }],
  ['heads that end within a panel', { heads: 5, headDim: 24, lengths: [37, 1] }],
  ['a third that ends within a panel', { heads: 2, headDim: 89, lengths: [19] }],
  ...shapesFor<[string, Shape]>(
    [
      ['B/16, pictures of several sizes', { heads: 12, headDim: 64, lengths: [196, 256, 7] }],
      ['B/16, texts', { heads: 12, headDim: 64, lengths: [64, 64, 64, 64, 64, 64, 64, 64, 64] }],
      ['So400m, rows in two chunks', { heads: 16, headDim: 72, lengths: [300, 70] }],
      ['g', { heads: 16, headDim: 96, lengths: [49, 50] }],
      ['more queries than a task of attention has', { heads: 3, headDim: 64, lengths: [1031] }],
      ['the widest head', { heads: 2, headDim: 256, lengths: [140, 33] }],
    ],
    [],
  ),
];

describe('selfAttention', () => {
  testBitsOfParts(shapes, argumentsOf, run, inParts);

  // What cuBLASLt rounds on the way in bfloat16 is its own; with it the parts are the oracle, above.
  const ownTypes = activationTypes.filter((dtype) => dtype === 'float32' || !vendorProducts);
  it.each(ownTypes)('agrees with the reference on random shapes in %s', async (dtype) => {
    const random = draw(23);
    const most = emulated ? 24 : 120;
    for (let round = 0; round < (emulated ? 4 : 30); round++) {
      const shape = {
        heads: random.integer(1, 5),
        headDim: random.integer(1, emulated ? 12 : 40),
        lengths: Array.from({ length: random.integer(1, 4) }, () => random.integer(0, most)),
      };
      const everything = random.next() < 0.7;
      const actual = await run(argumentsOf(Place.tested(dtype), round, shape, everything));
      const reference = Place.reference(dtype);
      const args = argumentsOf(reference, round, shape, everything);
      // Errors of queries and keys grow in softmax: in bfloat16 what is between the parts is rounded in the reference, too. A
      // rounding more is for the weights of attention, and for what is rounded to the other side.
      const expected = dtype === 'float32' ? await run(args) : await inParts(args, undefined, reference);
      const bound = dtype === 'float32' ? 1e-5 : 2 * roundedOnce(dtype, 0);
      expect(relativeError(actual, expected, 1), JSON.stringify(shape)).toBeLessThan(bound);
    }
  });

  it('takes all rows as one sequence without offsets', async () => {
    const { offsets, ...args } = argumentsOf(Place.tested('float32'), 3, { heads: 2, headDim: 8, lengths: [33] }, true);
    const { output } = await selfAttention(args);
    expect(sameBits(await output.read(), await run({ ...args, offsets }))).toBe(true);
  });

  it('names what does not fit', async () => {
    const args = argumentsOf(Place.tested('float32'), 2, { heads: 2, headDim: 4, lengths: [3, 2] }, true);
    const other = Place.tested('float32').parameter(new Float32Array(35), [5, 7]);
    const rejection = (change: object) => expect(selfAttention({ ...args, ...change } as never)).rejects;
    await rejection({ input: 1 }).toThrow(/args\.input: expected a Tensor/);
    await rejection({ heads: 3 }).toThrow(/args\.heads: expected a divisor of the width 8, got 3/);
    await rejection({ heads: 0 }).toThrow(/args\.heads/);
    await rejection({ offsets: Int32Array.of(0, 3, 6) }).toThrow(
      /args\.offsets: expected the last entry to be 5 rows, got 6/,
    );
    await rejection({ queryKeyValueWeight: other }).toThrow(/query_key_value/);
    await rejection({ queryKeyValueBias: other }).toThrow(/queryKeyValueBias/);
    await rejection({ outWeight: other }).toThrow(/out_proj/);
    await rejection({ outBias: other }).toThrow(/outBias/);
    await rejection({ residual: other }).toThrow(/residual/);
    await rejection({ norm: { weight: other, bias: other } }).toThrow(/normWeight/);
    await rejection({ norm: { weight: 1 } }).toThrow(/norm/);
    await rejection({ weightDtype: 'int4' }).toThrow(/weightDtype/);
    await rejection({ scale: 1 }).toThrow(/scale/);
    await expect(selfAttention(undefined as never)).rejects.toThrow(/args/);
  });
});
