/**
 * What products in bfloat16 round may lie rounded in memory on CPUs: results have the bits of the same numbers in float32,
 * and are rounded once where they are written so.
 */
import { describe, expect, it } from 'vitest';
import { attention, attentionBackward, layerNorm, linear, linearBackward, Tensor } from '../../../lib/kernels/index.js';
import { type AttentionShape, attentionShapes, prefix, same } from '../../support/attention-shapes.js';
import { sameBits } from '../../support/compare.js';
import { bfloat16Bits, draw, emulated, Place, rounded, shapesFor, testDevice } from '../../support/devices.js';

type Values = Record<string, { values: Float32Array; shape: number[] }>;

/** Tensors of rounded numbers: in bfloat16 those whose names are in `narrow`, the others in float32. */
function tensors(values: Values, narrow: readonly string[], device: 'cpu' | 'reference' = 'cpu') {
  return Object.fromEntries(
    Object.entries(values).map(([name, { values: all, shape }]) => [
      name,
      narrow.includes(name)
        ? Tensor.from(Uint16Array.from(all, bfloat16Bits), shape, { dtype: 'bfloat16', device })
        : Tensor.from(rounded(all, 'bfloat16'), shape, { device }),
    ]),
  );
}

async function readAll<Name extends string>(results: Record<Name, Tensor>): Promise<Record<Name, Float32Array>> {
  const entries = Object.entries(results) as [Name, Tensor][];
  return Object.fromEntries(await Promise.all(entries.map(async ([name, tensor]) => [name, await tensor.read()])));
}

/** Requires the bits of `wide`, rounded where `narrow` has been written in bfloat16. */
function expectSame(narrow: Record<string, Tensor>, actual: Record<string, Float32Array>, wide: typeof actual): void {
  for (const [name, { dtype }] of Object.entries(narrow)) {
    const expected = rounded(wide[name] as Float32Array, dtype as 'float32' | 'bfloat16');
    expect(sameBits(actual[name] as Float32Array, expected), name).toBe(true);
  }
}

interface LinearShape {
  rows: number;
  inputs: number;
  outputs: number;
}
const linearShapes: LinearShape[] = [
  { rows: 1, inputs: 1, outputs: 1 },
  { rows: 0, inputs: 5, outputs: 3 },
  { rows: 2, inputs: 33, outputs: 31 },
  { rows: 37, inputs: 101, outputs: 67 },
  ...shapesFor(
    [
      { rows: 300, inputs: 192, outputs: 768 },
      { rows: 65, inputs: 1152, outputs: 4304 },
      { rows: 1031, inputs: 129, outputs: 96 },
    ],
    [{ rows: 70, inputs: 64, outputs: 129 }],
  ),
];

/** Where the reference, which is slow, takes its turn. */
const devicesFor = (work: number) => (work < 1e7 ? (['cpu', 'reference'] as const) : (['cpu'] as const));
const linearWork = ({ rows, inputs, outputs }: LinearShape) => rows * inputs * outputs;

function linearValues(seed: number, { rows, inputs, outputs }: LinearShape): Values {
  const random = draw(seed);
  return {
    input: { values: random.floats(rows * inputs, 2), shape: [rows, inputs] },
    weight: { values: random.floats(outputs * inputs, inputs ** -0.5), shape: [outputs, inputs] },
    bias: { values: random.floats(outputs), shape: [outputs] },
    residual: { values: random.floats(rows * outputs), shape: [rows, outputs] },
    gradOutput: { values: random.floats(rows * outputs), shape: [rows, outputs] },
  };
}

describe.skipIf(testDevice !== 'cpu')('operands that lie rounded', () => {
  const both = ['float32', 'bfloat16'] as const;

  it.each(linearShapes)('linear of %o', async (shape) => {
    const { gradOutput: _, ...values } = linearValues(1, shape);
    for (const inputActivation of ['none', 'gelu'] as const) {
      const run = async (narrow: string[], dtype: 'float32' | 'bfloat16', device: 'cpu' | 'reference' = 'cpu') => {
        const { input, weight, ...others } = tensors(values, narrow, device) as { input: Tensor; weight: Tensor };
        return linear({ input, weight, ...others, inputActivation, weightDtype: 'bfloat16', dtype });
      };
      const wide = await readAll(await run([], 'float32'));
      for (const dtype of both) {
        const narrow = await run(['input'], dtype);
        expect(narrow.output.dtype).toBe(dtype);
        expectSame(narrow, await readAll(narrow), wide);
      }
      const written = await run([], 'bfloat16');
      expectSame(written, await readAll(written), wide);
      if (!devicesFor(linearWork(shape)).some((device) => device === 'reference')) continue;
      const reference = await run(['input'], 'bfloat16', 'reference');
      expectSame(reference, await readAll(reference), await readAll(await run([], 'float32', 'reference')));
    }
  });

  it.each(linearShapes)('gradients of linear of %o', async (shape) => {
    const { bias: _, residual: __, ...values } = linearValues(2, shape);
    for (const inputActivation of ['none', 'gelu'] as const) {
      const run = async (narrow: string[], device: 'cpu' | 'reference' = 'cpu') => {
        const given = tensors(values, narrow, device) as { input: Tensor; weight: Tensor; gradOutput: Tensor };
        return linearBackward({ ...given, inputActivation, weightDtype: 'bfloat16' });
      };
      for (const device of devicesFor(linearWork(shape))) {
        const wide = await readAll(await run([], device));
        for (const narrow of [['input'], ['gradOutput'], ['input', 'gradOutput']]) {
          const gradients = await run(narrow, device);
          expect(gradients.gradInput.dtype).toBe(narrow.includes('input') ? 'bfloat16' : 'float32');
          expectSame(gradients, await readAll(gradients), wide);
        }
      }
    }
  });

  it.each([
    [1, 1],
    [0, 7],
    [3, 37],
    [70, 192],
    [5, 1152],
  ])('layer norm of [%i, %i]', async (rows, width) => {
    const random = draw(3);
    const values = {
      input: { values: random.floats(rows * width, 3), shape: [rows, width] },
      weight: { values: random.floats(width), shape: [width] },
      bias: { values: random.floats(width), shape: [width] },
    };
    for (const device of ['cpu', 'reference'] as const) {
      const given = tensors(values, [], device) as { input: Tensor; weight: Tensor; bias: Tensor };
      const written = await layerNorm({ ...given, dtype: 'bfloat16' });
      expect(written.output.dtype).toBe('bfloat16');
      expectSame(written, await readAll(written), await readAll(await layerNorm(given)));
    }
  });

  const heads: [string, AttentionShape][] = [
    ['single queries and keys', { heads: 1, headDim: 1, ...same([1]) }],
    ['without keys, without queries', { heads: 2, headDim: 5, queries: [3, 0, 2], keys: [0, 4, 7] }],
    ['odd', { heads: 3, headDim: 13, queries: [7, 19], keys: [5, 33] }],
    ...shapesFor(attentionShapes, []),
  ];

  it.each(heads)('attention, %s', async (_, { heads, headDim, queries, keys, causal = false }) => {
    const random = draw(4);
    const rows = (lengths: number[]) => {
      const count = lengths.reduce((a, b) => a + b, 0);
      return { values: random.floats(count * heads * headDim, 1.5), shape: [count, heads, headDim] };
    };
    const values = { query: rows(queries), key: rows(keys), value: rows(keys), gradOutput: rows(queries) };
    const options = { queryOffsets: prefix(queries), keyOffsets: prefix(keys), causal };
    type Given = Record<'query' | 'key' | 'value' | 'gradOutput', Tensor>;
    const scores = queries.reduce((sum, length, i) => sum + length * (keys[i] as number), 0);
    for (const device of devicesFor(20 * heads * headDim * scores)) {
      const { gradOutput, ...wide } = tensors(values, [], device) as Given;
      const { gradOutput: roundedGradient, ...narrow } = tensors(values, Object.keys(values), device) as Given;
      const expected = await attention({ ...wide, ...options, productDtype: 'bfloat16' });
      const found = await attention({ ...narrow, ...options });
      expect(found.output.dtype).toBe('float32');
      expectSame(found, await readAll(found), await readAll(expected));

      const output = rounded(await expected.output.read(), 'bfloat16');
      const { logSumExp } = expected;
      const shape = expected.output.shape;
      const gradients = await attentionBackward({
        ...wide,
        ...options,
        productDtype: 'bfloat16',
        output: Tensor.from(output, shape, { device }),
        logSumExp,
        gradOutput,
      });
      const narrowGradients = await attentionBackward({
        ...narrow,
        ...options,
        output: Tensor.from(Uint16Array.from(output, bfloat16Bits), shape, { dtype: 'bfloat16', device }),
        logSumExp,
        gradOutput: roundedGradient,
      });
      expect(narrowGradients.gradKey.dtype).toBe('bfloat16');
      expectSame(narrowGradients, await readAll(narrowGradients), await readAll(gradients));
    }
  });

  it('are refused beside other products', async () => {
    const { input, weight, gradOutput } = tensors(linearValues(5, { rows: 3, inputs: 8, outputs: 4 }), [
      'input',
      'gradOutput',
    ]) as Record<'input' | 'weight' | 'gradOutput', Tensor>;
    const unsupported = {
      code: 'ERR_SIGLIP_UNSUPPORTED',
      message: /input is bfloat16; device "cpu" computes in float32/,
    };
    for (const weightDtype of ['float32', 'int8'] as const)
      await expect(linear({ input, weight, weightDtype })).rejects.toMatchObject({
        code: unsupported.code,
        message: expect.stringMatching(unsupported.message),
      });
    await expect(linearBackward({ input, weight, gradOutput, weightDtype: 'float32' })).rejects.toThrow(
      /input is bfloat16/,
    );
    const wide = Place.tested('float32').activation(new Float32Array(24), [3, 8]);
    await expect(linear({ input: wide, weight, dtype: 'bfloat16' })).rejects.toMatchObject({
      code: 'ERR_SIGLIP_SHAPE',
      message: expect.stringMatching(/output must be float32 \[3, 4\], got bfloat16/),
    });
    await expect(linear({ input: wide, weight, residual: input, weightDtype: 'bfloat16' })).rejects.toThrow(/residual/);
    const query = Tensor.from(new Uint16Array(6), [3, 1, 2], { dtype: 'bfloat16' });
    await expect(attention({ query, key: query, value: query, productDtype: 'float32' })).rejects.toThrow(
      /query is bfloat16; device "cpu" computes in float32/,
    );
    const key = Tensor.from(new Float32Array(6), [3, 1, 2]);
    await expect(attention({ query, key, value: query })).rejects.toThrow(/key: expected bfloat16, got float32/);
  });

  it.skipIf(emulated)('on random shapes', async () => {
    const random = draw(6);
    for (let round = 0; round < 12; round++) {
      const [rows, inputs, outputs] = [random.integer(1, 200), random.integer(1, 300), random.integer(1, 300)];
      const { bias: _, residual: __, ...values } = linearValues(7 + round, { rows, inputs, outputs });
      const run = (narrow: string[]) =>
        linearBackward({
          ...(tensors(values, narrow) as { input: Tensor; weight: Tensor; gradOutput: Tensor }),
          inputActivation: 'gelu',
          weightDtype: 'bfloat16',
        });
      const gradients = await run(['input', 'gradOutput']);
      expectSame(gradients, await readAll(gradients), await readAll(await run([])));
    }
  });
});
