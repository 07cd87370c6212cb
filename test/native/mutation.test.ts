/**
 * Mutation tests of the CUDA kernels on the emulated GPU: every barrier, wait, commit and bounds check that a kernel
 * meets is left out in turn, and some seed must then give an error or a wrong result. What survives is not needed, or no case
 * needs it. See docs/kernels/emulator.md.
 */
import { afterAll, describe, expect, it } from 'vitest';
import {
  attention,
  attentionBackward,
  convert,
  gelu,
  geluBackward,
  l2Normalize,
  l2NormalizeBackward,
  layerNorm,
  layerNormBackward,
  linear,
  linearBackward,
  type Tensor,
} from '../../lib/kernels/index.js';
import { native } from '../../lib/native.js';
import { type ActivationType, emulated, Place } from '../support/devices.js';
import { Random } from '../support/random.js';

/** Element types that each operation is run in. */
const types: readonly ActivationType[] = ['float32'];

const control = (command: string) => native().simtControl(command);
const seeds = [1, 2, 3, 4, 5, 6];

interface Case {
  name: string;
  dtype: ActivationType;
  /** The operation on one device, from the same numbers each time. */
  run(place: Place): Promise<Tensor[]>;
}

/** Values by name, the same on every device. */
function inputs(place: Place, dtype: ActivationType) {
  let seed = 0;
  const values = (shape: number[]) => new Random(++seed).floats(shape.reduce((product, size) => product * size, 1));
  return {
    dtype,
    activation: (...shape: number[]) => place.activation(values(shape), shape),
    parameter: (...shape: number[]) => place.parameter(values(shape), shape),
  };
}
type Inputs = ReturnType<typeof inputs>;

/** A case for each element type. Shapes are small, and no multiple of anything, so that every bounds check matters. */
function inEachType(name: string, run: (inputs: Inputs) => Promise<Record<string, Tensor>>): Case[] {
  return types.map((dtype) => ({
    name,
    dtype,
    run: async (place) => Object.values(await run(inputs(place, dtype))),
  }));
}

/** Sequences shorter and longer than a tile, and an empty one. */
const offsets = Int32Array.of(0, 37, 37, 167);
const rows = 167;
const cases: Case[] = [
  ...inEachType('convert', ({ activation, dtype }) =>
    convert({ input: activation(5, 19), dtype: dtype === 'float32' ? 'bfloat16' : 'float32' }),
  ),
  ...inEachType('gelu', ({ activation }) => gelu({ input: activation(5, 77) })),
  ...inEachType('geluBackward', ({ activation }) =>
    geluBackward({ input: activation(5, 77), gradOutput: activation(5, 77) }),
  ),
  ...inEachType('l2Normalize', ({ activation }) => l2Normalize({ input: activation(5, 77) })),
  ...inEachType('l2NormalizeBackward', ({ activation }) =>
    l2NormalizeBackward({ input: activation(5, 77), gradOutput: activation(5, 77) }),
  ),
  ...[77, 80, 1100].flatMap((width) =>
    inEachType(`layerNorm of ${width}`, ({ activation, parameter }) =>
      layerNorm({ input: activation(5, width), weight: parameter(width), bias: parameter(width) }),
    ),
  ),
  ...[77, 80].flatMap((width) =>
    inEachType(`layerNormBackward of ${width}`, ({ activation, parameter }) =>
      layerNormBackward({ input: activation(70, width), weight: parameter(width), gradOutput: activation(70, width) }),
    ),
  ),
  ...[
    [45, 72, 40],
    [45, 75, 37],
  ].flatMap(([count, width, out]) =>
    inEachType(`linear of ${width}`, ({ activation, parameter }) =>
      linear({
        input: activation(count as number, width as number),
        weight: activation(out as number, width as number),
        bias: parameter(out as number),
        residual: activation(count as number, out as number),
        activation: 'gelu',
      }),
    ),
  ),
  ...inEachType('linearBackward', ({ activation }) =>
    linearBackward({ input: activation(45, 72), weight: activation(40, 72), gradOutput: activation(45, 40) }),
  ),
  ...[32, 72].flatMap((headDim) =>
    [false, true].flatMap((causal) =>
      inEachType(`attention of ${headDim}${causal ? ', causal' : ''}`, ({ activation }) => {
        const [query, key, value] = [
          activation(rows, 2, headDim),
          activation(rows, 2, headDim),
          activation(rows, 2, headDim),
        ];
        return attention({ query, key, value, queryOffsets: offsets, causal });
      }),
    ),
  ),
  ...[32, 72].flatMap((headDim) =>
    inEachType(`attentionBackward of ${headDim}`, async ({ activation }) => {
      const [query, key, value] = [
        activation(rows, 2, headDim),
        activation(rows, 2, headDim),
        activation(rows, 2, headDim),
      ];
      const args = { query, key, value, queryOffsets: offsets };
      return attentionBackward({ ...args, ...(await attention(args)), gradOutput: activation(rows, 2, headDim) });
    }),
  ),
];

const read = async (tensors: Tensor[]) => Promise.all(tensors.map((tensor) => tensor.read() as Promise<Float32Array>));

/** Whether results agree to about what the element type holds; a NaN never does. */
function agree(actual: Float32Array[], expected: Float32Array[], dtype: ActivationType): boolean {
  const tolerance = dtype === 'bfloat16' ? 2 ** -5 : 1e-4;
  return expected.every((values, index) => {
    const scale = values.reduce(
      (largest, value) => (Number.isFinite(value) ? Math.max(largest, Math.abs(value)) : largest),
      1e-20,
    );
    return values.every((value, i) => {
      const found = (actual[index] as Float32Array)[i] as number;
      return found === value || Math.abs(found - value) <= tolerance * scale;
    });
  });
}

/** What is wrong with a case on the emulated device under some seed, or undefined. */
async function complaint(one: Case, expected: Float32Array[]): Promise<string | undefined> {
  for (const seed of seeds) {
    control(`seed ${seed}`);
    try {
      if (!agree(await read(await one.run(Place.tested(one.dtype))), expected, one.dtype)) return 'a wrong result';
    } catch (error) {
      return (error as Error).message;
    }
  }
  return undefined;
}

/** Cases by the sites they meet. */
const casesOf = new Map<string, { one: Case; expected: Float32Array[] }[]>();

afterAll(() => {
  control('drop none');
  control('sites off');
});

describe.runIf(emulated)('every synchronisation and bounds check of a kernel is needed', () => {
  it.each(cases.map((one) => [`${one.name}, ${one.dtype}`, one] as const))('%s is right as it is', async (_, one) => {
    const expected = await read(await one.run(Place.reference(one.dtype)));
    control('sites on');
    expect(await complaint(one, expected)).toBeUndefined();
    for (const site of control('sites list').trim().split('\n'))
      if (site !== '') casesOf.set(site, [...(casesOf.get(site) ?? []), { one, expected }]);
    control('sites off');
  });

  it('none survives being left out', { timeout: 400_000 }, async () => {
    expect(casesOf.size).toBeGreaterThan(0);
    const survivors: string[] = [];
    for (const [site, meeting] of [...casesOf].sort()) {
      control(`drop ${site}`);
      let found = false;
      for (const { one, expected } of meeting) {
        found = (await complaint(one, expected)) !== undefined;
        if (found) break;
      }
      if (!found) survivors.push(site);
    }
    control('drop none');
    expect(survivors).toEqual([]);
  });
});
