/** The configurations of the training's stages, as `siglip2 train` reads them. */
import { expect, it } from 'vitest';
import { TrainConfig } from '../../../lib/cli/train/config.js';
import { ConfigDocument } from '../../../lib/cli/train/document.js';
import { shardSets } from '../../../recipes/emoji/data/shards.mjs';
import { stageConfiguration, stages } from '../../../recipes/emoji/stages.mjs';

it('are five, in order', () => {
  expect(stages).toEqual(['1-english', '2-pictures', '3-languages', '4-together', '5-redrawn']);
});

it.each(stages)('%s is a valid configuration with its own seed and shards', (stage) => {
  const text = stageConfiguration(stage, { cache: '/c', seed: 7, model: { checkpoint: '/before' } });
  const { written } = TrainConfig.of(ConfigDocument.parse(text, 'stage.yaml'));
  const number = stages.indexOf(stage) + 1;
  expect(written.model).toEqual({ checkpoint: '/before' });
  expect(written.training.seed).toBe(700 + number);
  const set = ['plain-english', 'plain-english', 'plain', 'plain', 'redrawn'][number - 1] as string;
  expect(Object.keys(shardSets)).toContain(set);
  expect(written.data.shards).toEqual([`/c/shards/${set}/*.tar`]);
  expect(written.training.dtype).toBe('bfloat16');
});
