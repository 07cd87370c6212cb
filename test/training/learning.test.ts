/** A model that starts from nothing and learns. */
import { expect, it } from 'vitest';
import { Tokenizer } from '../../lib/index.js';
import { parseConfig } from '../../lib/model/config.js';
import { Trainer } from '../../lib/training/index.js';
import { checkpointFolder } from '../support/golden.js';
import { Random } from '../support/random.js';
import { allScenes, captionOf, pictureOf, type Scene } from '../support/shapes.js';

const tower = { hidden_size: 64, num_hidden_layers: 1, num_attention_heads: 4, intermediate_size: 160 };
const textLength = 20;
const config = parseConfig(
  {
    model_type: 'siglip2',
    text_config: { ...tower, vocab_size: 512, max_position_embeddings: textLength, projection_size: 64 },
    vision_config: { ...tower, patch_size: 16, num_patches: 9 },
  },
  'test',
);
const batchSize = 64;
const steps = 700;

it.each(['float32', 'bfloat16'] as const)(
  'learns to tell apart pictures of unseen combinations in %s',
  async (dtype) => {
    const scenes = allScenes();
    const seen = scenes.filter(({ held }) => !held).map(({ scene }) => scene);
    const held = scenes.filter((each) => each.held).map(({ scene }) => scene);
    const random = new Random(7);
    const batchOf = (chosen: Scene[]) => ({
      images: chosen.map((scene) => pictureOf(scene, random)),
      texts: chosen.map(captionOf),
      maxPatches: 9,
    });
    // Without repetition, so that every text has one picture.
    const draw = (count: number): Scene[] => {
      const rest = [...seen];
      return Array.from({ length: count }, () => rest.splice(random.integer(0, rest.length - 1), 1)[0] as Scene);
    };
    const tokenizer = await Tokenizer.fromFolder(checkpointFolder('naflex_hd64'), { length: textLength });
    using trainer = await Trainer.create(config, {
      tokenizer,
      seed: 1,
      dtype,
      optimizer: { learningRate: 2e-3, betas: [0.9, 0.99], weightDecay: 0, clipNorm: 10 },
      schedule: { name: 'cosine', warmupSteps: 50, totalSteps: steps },
    });

    /** Share of pictures whose caption is the nearest of all, and of captions whose picture is. */
    const recall = async (): Promise<[number, number]> => {
      const { images, texts, maxPatches } = batchOf(held);
      const { logits } = trainer.model.similarity(
        await trainer.model.embedImages(images, { maxPatches, batchSize: 64 }),
        await embedTexts(trainer, tokenizer, texts),
      );
      const n = held.length;
      const best = (of: number, at: (i: number) => number): number => {
        let winner = 0;
        for (let i = 1; i < n; i++) if ((logits[at(i)] as number) > (logits[at(winner)] as number)) winner = i;
        return winner === of ? 1 : 0;
      };
      let [imageToText, textToImage] = [0, 0];
      for (let i = 0; i < n; i++) {
        imageToText += best(i, (j) => i * n + j);
        textToImage += best(i, (j) => j * n + i);
      }
      return [imageToText / n, textToImage / n];
    };

    const untrained = await recall();
    let pending: Promise<unknown> | undefined;
    for (let step = 0; step < steps; step++) {
      // The next pictures are made while this step is computed.
      const running = trainer.step(batchOf(draw(batchSize)));
      await pending;
      pending = running;
    }
    await pending;
    const trained = await recall();
    // 60 scenes: chance is 0.017, one attribute alone gives at most 0.17. This seed reaches 0.7 in both types.
    expect(held.length).toBe(60);
    expect(Math.max(...untrained)).toBeLessThan(0.1);
    expect(Math.min(...trained)).toBeGreaterThan(0.5);
  },
  900_000,
);

async function embedTexts(trainer: Trainer, tokenizer: Tokenizer, texts: string[]) {
  const { inputIds, shape } = tokenizer.encode(texts);
  const { pooled } = await trainer.model.text.forward(inputIds, shape);
  const { data } = pooled;
  const width = pooled.shape[1] as number;
  return {
    data,
    shape: [texts.length, width] as [number, number],
    row: (i: number) => data.subarray(i * width, (i + 1) * width),
  };
}
