/** What tests of fused operations share: on CPUs they must have the bits of their parts, one after the other. */
import { expect, it } from 'vitest';
import type { WeightDType } from '../../lib/kernels/index.js';
import { sameBits } from './compare.js';
import { activationTypes, Place, testDevice, threadCounts } from './devices.js';

const weightTypes: WeightDType[] = testDevice === 'cpu' ? ['float32', 'bfloat16', 'int8'] : ['float32'];

/**
 * A test for each shape, type of activations and type of weights. `argumentsOf` makes the operation's arguments, without
 * `everything` only what it requires; `run` is the operation, `inParts` the same by its parts, on the same place.
 */
export function testBitsOfParts<Shape, Arguments>(
  shapes: readonly [string, Shape][],
  argumentsOf: (place: Place, seed: number, shape: Shape, everything: boolean) => Arguments,
  run: (args: Arguments, weightDtype?: WeightDType, threads?: number) => Promise<Float32Array>,
  inParts: (args: Arguments, weightDtype: WeightDType | undefined, place: Place) => Promise<Float32Array>,
): void {
  const cases = shapes.flatMap(([name, shape]) =>
    activationTypes.flatMap((dtype) => weightTypes.map((type) => [name, dtype, type, shape] as const)),
  );
  it.each(cases)('%s in %s with weights in %s has the bits of its parts', async (_, dtype, type, shape) => {
    const weightDtype = type === 'float32' ? undefined : type;
    const place = Place.tested(dtype);
    for (const everything of [true, false]) {
      const args = argumentsOf(place, 1, shape, everything);
      const expected = await inParts(args, weightDtype, place);
      expect(sameBits(await run(args, weightDtype), expected)).toBe(true);
      for (const threads of threadCounts) expect(sameBits(await run(args, weightDtype, threads), expected)).toBe(true);
    }
  });
}
