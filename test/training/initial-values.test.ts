/** What a model that is made from a configuration starts from, where options choose it. */
import { describe, expect, it } from 'vitest';
import { Siglip2 } from '../../lib/index.js';
import type { Siglip2Config } from '../../lib/model/config.js';
import { type InitializationOptions, Trainer } from '../../lib/training/index.js';
import { sincosPositions2d } from '../../lib/training/initial-values.js';
import { temporaryFolder } from '../support/folders.js';
import { type CheckpointName, checkpointFolder } from '../support/golden.js';
import { madeUpBatch, parameterDistance, storedParameters } from '../support/training.js';

async function configOf(name: CheckpointName): Promise<Siglip2Config> {
  using model = await Siglip2.load(checkpointFolder(name));
  return model.config;
}

async function startOf(config: Siglip2Config, initialization?: InitializationOptions) {
  using trainer = await Trainer.create(config, {
    seed: 3,
    ...(initialization === undefined ? {} : { initialization }),
  });
  const folder = temporaryFolder();
  await trainer.saveModel(folder);
  return storedParameters(folder);
}

const table = 'vision_model.embeddings.position_embedding.weight';

describe('sincosPositions2d', () => {
  it.each([
    [1, 8, 10_000],
    [3, 12, 10],
    [7, 20, 1],
    [16, 64, 10_000],
  ])('has the waves of MoCo v3: side %i, width %i, temperature %f', (side, width, temperature) => {
    const positions = sincosPositions2d(side, width, temperature);
    expect(positions.length).toBe(side * side * width);
    // Channel by channel, the angle from the logarithm of the frequency.
    const quarter = width / 4;
    for (let row = 0; row < side; row++)
      for (let column = 0; column < side; column++)
        for (let channel = 0; channel < width; channel++) {
          const along = channel < 2 * quarter ? column : row;
          const angle = along * Math.exp((-Math.log(temperature) * (channel % quarter)) / (quarter - 1));
          const odd = Math.floor(channel / quarter) % 2 === 1;
          const wanted = odd ? Math.cos(angle) : Math.sin(angle);
          expect(positions[(row * side + column) * width + channel]).toBeCloseTo(wanted, 6);
        }
  });

  it('gives every position a vector of its own, of the same length', () => {
    const [side, width] = [8, 192];
    const positions = sincosPositions2d(side, width, 10);
    const dot = (a: number, b: number) => {
      let sum = 0;
      for (let i = 0; i < width; i++)
        sum += (positions[a * width + i] as number) * (positions[b * width + i] as number);
      return sum / (width / 2);
    };
    for (let a = 0; a < side * side; a++) {
      expect(dot(a, a)).toBeCloseTo(1, 6);
      for (let b = 0; b < a; b++) expect(dot(a, b)).toBeLessThan(0.95);
    }
  });
});

describe('the option initialization', () => {
  it.each(['naflex_hd96', 'fixed_p16_hd32'] as const)('chooses where a %s model starts', async (name) => {
    const config = await configOf(name);
    const { hiddenSize, numPatches } = config.vision;
    const usual = await startOf(config);
    const chosen = await startOf(config, {
      logitScale: 3,
      logitBias: -4.5,
      visionPositions: 'sincos2d',
      positionTemperature: 10,
    });
    expect([...(chosen.get('logit_scale') ?? [])]).toEqual([3]);
    expect([...(chosen.get('logit_bias') ?? [])]).toEqual([-4.5]);
    const wanted = sincosPositions2d(Math.sqrt(numPatches), hiddenSize, 10);
    expect(Float32Array.from(chosen.get(table) ?? [])).toEqual(wanted);
    for (const nothing of [{}, { visionPositions: 'normal' } as const])
      expect(parameterDistance(await startOf(config, nothing), usual)).toBe(0);
    // The others are those of the seed.
    for (const parameter of [table, 'logit_scale', 'logit_bias']) {
      chosen.delete(parameter);
      usual.delete(parameter);
    }
    expect(parameterDistance(chosen, usual)).toBe(0);
  });

  it('takes part in the first step', async () => {
    using trainer = await Trainer.create(await configOf('naflex_hd96'), {
      initialization: { logitScale: -20, logitBias: -5 },
    });
    expect(trainer.model.logitScale).toBe(-20);
    // Every logit is −5, whatever the embeddings: of 6 pairs a row has 1 positive and 5 negatives.
    const { loss } = await trainer.step(madeUpBatch(trainer, 6));
    expect(loss).toBeCloseTo(Math.log1p(Math.exp(5)) + 5 * Math.log1p(Math.exp(-5)), 5);
  });

  it.each<[InitializationOptions, RegExp]>([
    [{ logitscale: 3 } as InitializationOptions, /options\.initialization\.logitscale: expected an option among/],
    [{ logitScale: Number.NaN }, /options\.initialization\.logitScale: expected a finite number, got NaN/],
    [
      { logitBias: '-5' as unknown as number },
      /options\.initialization\.logitBias: expected a finite number, got "-5"/,
    ],
    [
      { visionPositions: 'sincos' as 'sincos2d' },
      /visionPositions: expected one of "normal", "sincos2d", got "sincos"/,
    ],
    [{ positionTemperature: 0.5 }, /positionTemperature: expected a number of at least 1, got 0\.5/],
  ])('refuses %o', async (initialization, message) => {
    const config = await configOf('naflex_hd96');
    await expect(Trainer.create(config, { initialization })).rejects.toThrow(message);
  });

  it('refuses waves for positions that are no square, and anything for a model with weights', async () => {
    const config = await configOf('naflex_hd96');
    const odd = { ...config, vision: { ...config.vision, numPatches: 15 } };
    const initialization = { visionPositions: 'sincos2d' } as const;
    await expect(Trainer.create(odd, { initialization })).rejects.toThrow(
      /visionPositions: expected normal for a model of 15 positions/,
    );
    using model = await Siglip2.load(checkpointFolder('naflex_hd96'));
    await expect(Trainer.create(model, { initialization })).rejects.toThrow(
      /options\.initialization: expected no value for a model that has weights, got an object/,
    );
  });
});
