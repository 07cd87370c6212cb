/** Results do not depend on what else runs, on the number of threads, or on the company in a batch. */
import { availableParallelism } from 'node:os';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type ForwardOutput, Siglip2 } from '../../lib/index.js';
import { attention, linear, Tensor } from '../../lib/kernels/index.js';
import { type CheckpointName, checkpointFolder } from '../support/golden.js';
import { randomPixels, textInput, visionInput } from '../support/inputs.js';

const names = ['naflex_hd72', 'fixed_p16_hd32'] as const satisfies CheckpointName[];
const grids: [number, number][] = [
  [3, 5],
  [7, 7],
  [1, 1],
  [16, 16],
];

describe.each(names)('%s', (name) => {
  const folder = checkpointFolder(name);

  it('gives the same bits on any number of threads', async () => {
    const outputs: ForwardOutput[] = [];
    for (const threads of [1, 2, 3, 8]) {
      using model = await Siglip2.load(folder, { threads });
      outputs.push(await model.vision.forward(visionInput(model.config, [1, 2, 3, 4], grids), { hiddenStates: true }));
      outputs.push(await model.text.forward(...textInput(model.config, [1, 2, 3]), { hiddenStates: true }));
    }
    for (let i = 2; i < outputs.length; i++) expect(outputs[i]).toEqual(outputs[i % 2]);
  });

  it('gives an image, and a text, the same bits alone and in a batch', async () => {
    using model = await Siglip2.load(folder);
    const seeds = [1, 2, 3, 4];
    const images = await model.vision.forward(visionInput(model.config, seeds, grids));
    const texts = await model.text.forward(...textInput(model.config, seeds));
    for (const [i, seed] of seeds.entries()) {
      const grid = grids[i] as [number, number];
      const image = await model.vision.forward(visionInput(model.config, [seed], [grid]));
      expect(image.pooled.data, `image ${i}`).toEqual(rowOf(images, i));
      const text = await model.text.forward(...textInput(model.config, [seed]));
      expect(text.pooled.data, `text ${i}`).toEqual(rowOf(texts, i));
    }
  });

  it.each(['float32', 'bfloat16', 'int8'] as const)(
    'gives an image the same bits alone and among so many that layer norms and MLPs are fused, in %s',
    async (dtype) => {
      using model = await Siglip2.load(folder, { device: 'cpu', dtype, towers: ['vision'] });
      const [rows, columns] = grids[0] as [number, number];
      const enough = 64 * availableParallelism();
      expect(rows * columns).toBeLessThan(enough);
      const count = Math.ceil(enough / (rows * columns)) + 1;
      const seeds = Array.from({ length: count }, (_, i) => i + 1);
      const many = await model.vision.forward(visionInput(model.config, seeds, new Array(count).fill([rows, columns])));
      for (const i of [0, count - 1]) {
        const alone = await model.vision.forward(visionInput(model.config, [seeds[i] as number], [[rows, columns]]));
        expect(alone.pooled.data).toEqual(rowOf(many, i));
      }
    },
  );
});

function rowOf({ pooled }: ForwardOutput, row: number): Float32Array {
  const width = pooled.shape[1] as number;
  return pooled.data.slice(row * width, (row + 1) * width);
}

describe('many calls at once', () => {
  const models: Siglip2[] = [];
  beforeAll(async () => {
    // Two of them on the same files, so that they share their weights.
    const loading = [...names, names[0]].map((name, i) => Siglip2.load(checkpointFolder(name), { threads: 1 + i }));
    models.push(...(await Promise.all(loading)));
  });
  afterAll(() => {
    for (const model of models) model.dispose();
  });

  it('give the same bits as one after the other', async () => {
    const kernel = async (device: 'cpu' | 'reference', seed: number) => {
      const [query, input] = [
        Tensor.from(randomPixels(40 * 2 * 24, seed), [40, 2, 24], { device } as object),
        Tensor.from(randomPixels(30 * 50, seed), [30, 50], { device } as object),
      ];
      const [attended, product] = await Promise.all([
        attention({ query, key: query, value: query }),
        linear({ input, weight: input, activation: 'gelu' }),
      ]);
      return [await attended.output.read(), await attended.logSumExp.read(), await product.output.read()];
    };
    const calls = Array.from({ length: 12 }, (_, seed) => [
      ...models.flatMap((model) => [
        () => model.vision.forward(visionInput(model.config, [seed, seed + 1], grids.slice(0, 2))),
        () => model.text.forward(...textInput(model.config, [seed])),
      ]),
      () => kernel('cpu', seed),
      () => kernel('reference', seed),
    ]).flat();
    const expected: unknown[] = [];
    for (const call of calls) expected.push(await call());
    const actual = await Promise.all(calls.map((call) => call()));
    expect(actual).toEqual(expected);
  });
});
