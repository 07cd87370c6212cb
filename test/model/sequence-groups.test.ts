/** Batches of more tokens than go through attention at once on the host: results are those of each image alone. */
import { describe, expect, it } from 'vitest';
import { Siglip2 } from '../../lib/index.js';
import { native } from '../../lib/native.js';
import { sameBits } from '../support/compare.js';
import { modelTypes, testDevice } from '../support/devices.js';
import { checkpointFolder } from '../support/golden.js';
import { visionInput } from '../support/inputs.js';

const shapes: [number, number][] = [
  [16, 17],
  [1, 1],
  [13, 11],
  [5, 7],
  [16, 16],
  [2, 1],
];
const tokens = shapes.map(([rows, columns]) => rows * columns);

describe.skipIf(testDevice !== 'cpu').each(modelTypes)('a batch of several groups of sequences in %s', (dtype) => {
  it('gives what each image alone gives', async () => {
    const { cores } = native().describe();
    // 448 tokens of a core go together.
    const images: [number, number][] = [];
    for (let total = 0; total < 2.5 * 448 * cores; total += tokens[images.length % shapes.length] as number)
      images.push(shapes[images.length % shapes.length] as [number, number]);
    using model = await Siglip2.load(checkpointFolder('naflex_hd96'), { dtype, towers: ['vision'] });
    const seeds = images.map((_, i) => i + 1);
    const together = await model.vision.forward(visionInput(model.config, seeds, images));
    const [padded, width] = together.lastHiddenState.shape.slice(1) as [number, number];
    for (const [i, grid] of images.entries()) {
      const alone = await model.vision.forward(visionInput(model.config, [i + 1], [grid]));
      const pooled = together.pooled.data.slice(i * width, (i + 1) * width);
      expect(sameBits(pooled, alone.pooled.data), `image ${i}`).toBe(true);
      const first = i * padded * width;
      const states = together.lastHiddenState.data.slice(first, first + grid[0] * grid[1] * width);
      expect(sameBits(states, alone.lastHiddenState.data), `image ${i}`).toBe(true);
    }
  });
});
