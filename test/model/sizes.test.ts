import { expect, it } from 'vitest';
import { sizeConfig } from '../../lib/index.js';
import { parameterShapes } from '../../lib/model/parameter-shapes.js';

const parameters = (options: Parameters<typeof sizeConfig>[0]): number =>
  [...parameterShapes(sizeConfig(options)).values()].reduce(
    (sum, shape) => sum + shape.reduce((product, size) => product * size, 1),
    0,
  );

// Exact numbers of parameters of the released checkpoints.
it.each([
  [{ size: 'B', patchSize: 32, imageSize: 256 }, 376_856_066],
  [{ size: 'B', imageSize: 512 }, 375_823_874],
  [{ size: 'L', imageSize: 256 }, 881_526_786],
  [{ size: 'So400m', patchSize: 14, imageSize: 384 }, 1_136_008_498],
  [{ size: 'g', imageSize: 384 }, 1_871_885_426],
  [{ size: 'B' }, 375_234_050],
  [{ size: 'So400m', imageSize: 'naflex' }, 1_135_670_962],
] as const)('%o has %i parameters', (options, expected) => {
  expect(parameters(options)).toBe(expected);
});

it('names what is wrong', () => {
  expect(() => sizeConfig({ size: 'XL' as 'L' })).toThrow(/options\.size: expected one of "B", "L", "So400m", "g"/);
  expect(() => sizeConfig({ size: 'B', imageSize: 8 })).toThrow(/options\.imageSize: expected at least one patch/);
  expect(() => sizeConfig({ size: 'B', patchSize: 0 })).toThrow(/options\.patchSize/);
});
