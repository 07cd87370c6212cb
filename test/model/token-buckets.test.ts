/** NaFlex batches of one bucket of tokens: a GPU is asked for the same work, and results are those of each image alone. */
import { describe, expect, it } from 'vitest';
import { Siglip2 } from '../../lib/index.js';
import { native } from '../../lib/native.js';
import { relativeError, sameBits } from '../support/compare.js';
import { type ActivationType, activationTypes, emulated, testDevice } from '../support/devices.js';
import { checkpointFolder } from '../support/golden.js';
import { visionInput } from '../support/inputs.js';

type Grids = [number, number][];

/** Grids of patches from text: '3×4 1×2'. */
const grids = (text: string): Grids => text.split(' ').map((grid) => grid.split('×').map(Number) as [number, number]);

const load = (dtype: ActivationType) =>
  Siglip2.load(checkpointFolder('naflex_hd96'), { device: testDevice, dtype, towers: ['vision'] });

const forward = (model: Siglip2, shapes: Grids, first = 1) =>
  model.vision.forward(
    visionInput(
      model.config,
      shapes.map((_, i) => first + i),
      shapes,
    ),
  );

/** The sequences of a pass that a GPU would remember: those of eight pieces and more (native/cuda/graphs.cc). */
async function remembered(model: Siglip2, shapes: Grids): Promise<string[]> {
  native().simtControl('work on');
  await forward(model, shapes);
  native().simtControl('work off');
  const sequences = native()
    .simtControl('work list')
    .split(/^(?:begin|end|download .*)$/m);
  return sequences.map((sequence) => sequence.trim()).filter((sequence) => sequence.split('\n').length >= 8);
}

describe.skipIf(!emulated).each(activationTypes)('the work of a batch of ragged images in %s', (dtype) => {
  // 39 and 46 tokens of 48.
  const short = grids('3×4 5×2 1×1 4×4');
  const others = grids('5×5 2×2 3×3 2×4');

  it('is the same for other images, of other sizes, in one bucket', async () => {
    using model = await load(dtype);
    await forward(model, grids('16×18')); // Memory has its final size and place.
    const work = await remembered(model, short);
    expect(work.length).toBe(2); // encoder, head
    expect(work[0]).toMatch(/^attention/m);
    expect(work[1]).toMatch(/^map_pool_softmax/m);
    expect(await remembered(model, others)).toEqual(work);
    expect(await remembered(model, [...others].reverse())).toEqual(work);
    // More tiles of queries, or fewer.
    expect(await remembered(model, grids('10×13 10×13'))).toEqual(await remembered(model, grids('16×16 2×2')));
  });

  it('differs with the bucket, the number of images and the bound of lengths', async () => {
    using model = await load(dtype);
    await forward(model, grids('12×12'));
    const work = await remembered(model, short);
    expect(await remembered(model, grids('2×2 3×3 2×4 4×7'))).not.toEqual(work); // 49 tokens
    expect(await remembered(model, grids('2×2 3×3 2×4 3×7 1×4'))).not.toEqual(work); // five images, 46 tokens
    // Only the matrix instructions' kernel has shapes for short sequences and long ones.
    if (dtype === 'float32') return;
    expect(await remembered(model, grids('13×5 3×5'))).not.toEqual(await remembered(model, grids('8×8 4×4')));
  });
});

/** The same bits, except where cuBLASLt may divide sums otherwise when there are more rows. */
function expectSame(actual: Float32Array, expected: Float32Array, dtype: ActivationType): void {
  if (testDevice !== 'cuda') expect(sameBits(actual, expected)).toBe(true);
  else expect(relativeError(actual, expected)).toBeLessThan(dtype === 'float32' ? 1e-5 : 0.02);
}

describe.each(activationTypes)('a batch of ragged images in %s', (dtype) => {
  it.each([
    ['a full bucket', '6×8'],
    ['one token more', '7×7'],
    ['one token', '1×1'],
    ['a tile of queries less one, and one more', '9×7 5×13'],
    ['many tiles', '16×9 1×3 11×12'],
  ])('gives what each image alone gives: %s', async (_, text) => {
    const shapes = grids(text);
    using model = await load(dtype);
    // What lies in memory behind the tokens of a batch is nothing to it.
    const poison = visionInput(model.config, [1, 2], grids('12×13'));
    if ('patches' in poison) poison.patches.fill(Number.NaN);
    await model.vision.forward(poison);
    const together = await forward(model, shapes);
    const [padded, width] = together.lastHiddenState.shape.slice(1) as [number, number];
    for (const [i, grid] of shapes.entries()) {
      const alone = await forward(model, [grid], 1 + i);
      expectSame(together.pooled.data.slice(i * width, (i + 1) * width), alone.pooled.data, dtype);
      const rows = together.lastHiddenState.data.slice(i * padded * width, (i * padded + grid[0] * grid[1]) * width);
      expectSame(rows, alone.lastHiddenState.data, dtype);
    }
  });
});
