import { describe, expect, it } from 'vitest';
import { parseConfig, type Tower } from '../../lib/model/config.js';
import { parameterShapes } from '../../lib/model/parameter-shapes.js';
import { checkpointNames, parseSafetensors, readFixture, readFixtureJson } from '../support/golden.js';
import { releasedModels } from '../support/released-models.js';

const tensorCounts = { base: 408, large: 792, so400m: 888, giant: 1096 };
const count = (shapes: Map<string, number[]>): number =>
  [...shapes.values()].reduce((sum, shape) => sum + shape.reduce((product, size) => product * size, 1), 0);

describe('parameterShapes', () => {
  it.each(releasedModels)(
    'counts the parameters of $name',
    ({ name, config: json, visionParameters, textParameters }) => {
      const config = parseConfig(json, name);
      const scalars = 2;
      const total = (...towers: Tower[]): number => count(parameterShapes(config, towers));
      expect(total()).toBe(scalars);
      expect(total('vision')).toBe(visionParameters + scalars);
      expect(total('text')).toBe(textParameters + scalars);
      expect(count(parameterShapes(config))).toBe(visionParameters + textParameters + scalars);
      expect(parameterShapes(config).size).toBe(tensorCounts[name.split('-')[0] as keyof typeof tensorCounts]);
    },
  );

  it('knows all 17 released models', () => {
    expect(new Set(releasedModels.map(({ name }) => name)).size).toBe(17);
  });

  it.each(checkpointNames.filter((name) => !/_(bf16|sharded)$/.test(name)))(
    'names exactly the tensors of %s',
    (name) => {
      const config = parseConfig(readFixtureJson(`checkpoints/${name}/config.json`), name);
      const stored = parseSafetensors(readFixture(`checkpoints/${name}/model.safetensors`)).tensors;
      const expected = Object.fromEntries([...stored].map(([tensor, { shape }]) => [tensor, shape]));
      expect(Object.fromEntries(parameterShapes(config))).toEqual(expected);
    },
  );

  it('leaves out the pooling head of a vision tower without one', () => {
    const config = parseConfig({ model_type: 'siglip', vision_config: { vision_use_head: false } }, 'c');
    expect([...parameterShapes(config, ['vision']).keys()].filter((name) => name.includes('.head.'))).toEqual([]);
  });
});
