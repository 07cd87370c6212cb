/** The configurations of the training's stages, as `siglip2 train` reads them. */
import { expect, it } from 'vitest';
import { TrainConfig } from '../../../lib/cli/train/config.js';
import { ConfigDocument } from '../../../lib/cli/train/document.js';
import { shardSets } from '../../../recipes/emoji/data/shards.mjs';
import { averagedStages, stageConfiguration, stages } from '../../../recipes/emoji/stages.mjs';

it('are seven, in order', () => {
  expect(stages).toEqual([
    '1-english',
    '2-pictures',
    '3-redrawn',
    '4-languages',
    '5-together',
    '6-together',
    '7-languages',
  ]);
});

it('end with those whose ends are averaged', () => {
  expect(stages.slice(-averagedStages.length)).toEqual(averagedStages);
});

it.each(stages)('%s is a valid configuration with its own seed and shards', (stage) => {
  const text = stageConfiguration(stage, { cache: '/c', seed: 7, model: { checkpoint: '/before' } });
  const { written } = TrainConfig.of(ConfigDocument.parse(text, 'stage.yaml'));
  const number = stages.indexOf(stage) + 1;
  expect(written.model).toEqual({ checkpoint: '/before' });
  expect(written.training.seed).toBe(700 + number);
  const set = ['plain-english', 'plain-english', 'redrawn-english', 'redrawn', 'redrawn', 'redrawn', 'redrawn'][
    number - 1
  ] as string;
  expect(Object.keys(shardSets)).toContain(set);
  expect(written.data.shards).toEqual([`/c/shards/${set}/*.tar`]);
  expect(written.training.dtype).toBe('bfloat16');
});
