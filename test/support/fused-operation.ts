/** What tests of fused operations share: on CPUs they must have the bits of their parts, one after the other. */
import { expect, it } from 'vitest';
import type { WeightDType } from '../../lib/kernels/index.js';
import { sameBits } from './compare.js';
import { Place, testDevice, threadCounts } from './devices.js';

const weightTypes: WeightDType[] = testDevice === 'cpu' ? ['float32', 'bfloat16', 'int8'] : ['float32'];

/**
 * A test for each shape and type of weights. `argumentsOf` makes the operation's arguments, without `everything` only what it
 * requires; `run` is the operation, `inParts` the same by its parts.
 */
export function testBitsOfParts<Shape, Arguments>(
  shapes: readonly [string, Shape][],
  argumentsOf: (place: Place, seed: number, shape: Shape, everything: boolean) => Arguments,
  run: (args: Arguments, weightDtype?: WeightDType, threads?: number) => Promise<Float32Array>,
  inParts: (args: Arguments, weightDtype?: WeightDType) => Promise<Float32Array>,
): void {
  const cases = shapes.flatMap(([name, shape]) => weightTypes.map((type) => [name, type, shape] as const));
  it.each(cases)('%s with weights in %s has the bits of its parts', async (_, type, shape) => {
    const weightDtype = type === 'float32' ? undefined : type;
    for (const everything of [true, false]) {
      const args = argumentsOf(Place.tested('float32'), 1, shape, everything);
      const expected = await inParts(args, weightDtype);
      expect(sameBits(await run(args, weightDtype), expected)).toBe(true);
      for (const threads of threadCounts) expect(sameBits(await run(args, weightDtype, threads), expected)).toBe(true);
    }
  });
}
