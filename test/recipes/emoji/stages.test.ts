/** The configurations of the training's stages, as `siglip2 train` reads them. */
import { expect, it } from 'vitest';
import { TrainConfig } from '../../../lib/cli/train/config.js';
import { ConfigDocument } from '../../../lib/cli/train/document.js';
import { stageConfiguration, stages } from '../../../recipes/emoji/stages.mjs';

it('are four, in order', () => {
  expect(stages).toEqual(['1-english', '2-pictures', '3-languages', '4-together']);
});

it.each(stages)('%s is a valid configuration with its own seed and shards', (stage) => {
  const text = stageConfiguration(stage, { cache: '/c', set: 'final', seed: 7, model: { checkpoint: '/before' } });
  const { written } = TrainConfig.of(ConfigDocument.parse(text, 'stage.yaml'));
  const number = stages.indexOf(stage) + 1;
  expect(written.model).toEqual({ checkpoint: '/before' });
  expect(written.training.seed).toBe(700 + number);
  expect(written.data.shards).toEqual([number <= 2 ? '/c/shards/final-english/*.tar' : '/c/shards/final/*.tar']);
  expect(written.training.dtype).toBe('bfloat16');
});
