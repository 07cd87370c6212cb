/** The fused MLP against its parts on the same device, to the bit, and against the double-precision reference. */
import { describe, expect, it } from 'vitest';
import { layerNorm, linear, mlp, Tensor, type WeightDType } from '../../../lib/kernels/index.js';
import { relativeError } from '../../support/compare.js';
import { activationTypes, draw, emulated, Place, roundedOnce, shapesFor } from '../../support/devices.js';
import { testBitsOfParts } from '../../support/fused-operation.js';

interface Shape {
  rows: number;
  width: number;
  intermediate: number;
}

/** Arguments of `mlp`; without `everything` only what it requires. */
function argumentsOf(place: Place, seed: number, { rows, width, intermediate }: Shape, everything: boolean) {
  const random = draw(seed);
  const values = (count: number, scale = 1) => random.floats(count, scale);
  const input = place.activation(values(rows * width, 3), [rows, width]);
  const fc1Weight = place.activation(values(intermediate * width, width ** -0.5), [intermediate, width]);
  const fc2Weight = place.activation(values(width * intermediate, intermediate ** -0.5), [width, intermediate]);
  if (!everything) return { input, fc1Weight, fc2Weight };
  return {
    input,
    fc1Weight,
    fc2Weight,
    norm: { weight: place.parameter(values(width), [width]), bias: place.parameter(values(width), [width]) },
    fc1Bias: place.parameter(values(intermediate), [intermediate]),
    fc2Bias: place.parameter(values(width), [width]),
    residual: place.activation(values(rows * width), [rows, width]),
  };
}
type Arguments = ReturnType<typeof argumentsOf>;

/** The same from three operations. */
async function inParts({ input, norm, ...args }: Arguments, weightDtype?: WeightDType): Promise<Float32Array> {
  const type = weightDtype === undefined ? {} : { weightDtype };
  const normed = norm ? (await layerNorm({ input, ...norm })).output : input;
  const first = { input: normed, weight: args.fc1Weight, ...(args.fc1Bias && { bias: args.fc1Bias }) };
  const hidden = (await linear({ ...first, activation: 'gelu', ...type })).output;
  const second = {
    input: hidden,
    weight: args.fc2Weight,
    ...(args.fc2Bias && { bias: args.fc2Bias }),
    ...(args.residual && { residual: args.residual }),
  };
  return (await linear({ ...second, ...type })).output.read();
}

const run = async (args: Arguments, weightDtype?: WeightDType, threads?: number): Promise<Float32Array> =>
  (await mlp({ ...args, ...(weightDtype && { weightDtype }), ...(threads && { threads }) })).output.read();

const shapes: [string, Shape][] = [
  ['1 × 1, 1 hidden', { rows: 1, width: 1, intermediate: 1 }],
  ['no rows', { rows: 0, width: 3, intermediate: 5 }],
  ['primes', { rows: 131, width: 67, intermediate: 257 }],
  ['one row', { rows: 1, width: 64, intermediate: 96 }],
  ['last panel of one column', { rows: 45, width: 33, intermediate: 65 }],
  ...shapesFor<[string, Shape]>(
    [
      ['B/16', { rows: 196, width: 768, intermediate: 3072 }],
      ['So400m', { rows: 70, width: 1152, intermediate: 4304 }],
      ['many blocks of rows', { rows: 1031, width: 72, intermediate: 200 }],
    ],
    [],
  ),
];

describe('mlp', () => {
  testBitsOfParts(shapes, argumentsOf, run, inParts);

  it.each(activationTypes)('agrees with the reference on random shapes in %s', async (dtype) => {
    const random = draw(17);
    const most = emulated ? 40 : 150;
    for (let round = 0; round < (emulated ? 4 : 30); round++) {
      const size = () => random.integer(1, most);
      const shape = { rows: size(), width: size(), intermediate: size() };
      const everything = random.next() < 0.7;
      const actual = await run(argumentsOf(Place.tested(dtype), round, shape, everything));
      const expected = await run(argumentsOf(Place.reference(dtype), round, shape, everything));
      // In bfloat16 three roundings on the way, of which the first two are averaged over a row.
      const bound = dtype === 'float32' ? 4e-6 : 3 * roundedOnce(dtype, 0);
      expect(relativeError(actual, expected, 1), JSON.stringify(shape)).toBeLessThan(bound);
    }
  });

  it('names what does not fit', async () => {
    const args = argumentsOf(Place.tested('float32'), 2, { rows: 4, width: 6, intermediate: 8 }, true);
    const other = Place.tested('float32').parameter(new Float32Array(35), [5, 7]);
    await expect(mlp({ ...args, fc1Weight: other })).rejects.toThrow(/fc1/);
    await expect(mlp({ ...args, fc2Weight: other })).rejects.toThrow(/fc2/);
    await expect(mlp({ ...args, residual: other })).rejects.toThrow(/residual/);
    await expect(mlp({ ...args, fc1Bias: other })).rejects.toThrow(/fc1Bias/);
    await expect(mlp({ ...args, norm: { weight: other, bias: other } })).rejects.toThrow(/normWeight/);
    await expect(mlp({ ...args, norm: { weight: 1 } } as never)).rejects.toThrow(/norm/);
    await expect(mlp({ ...args, weightDtype: 'int4' as never })).rejects.toThrow(/weightDtype/);
    expect(args.input).toBeInstanceOf(Tensor);
  });
});
