/** Steps, options and errors of a trainer. */
import { describe, expect, it } from 'vitest';
import { Siglip2, sizeConfig } from '../../lib/index.js';
import { Trainer, type TrainerOptions, type TrainingBatch } from '../../lib/training/index.js';
import { expectSiglipError } from '../support/errors.js';
import { temporaryFolder } from '../support/folders.js';
import { checkpointFolder } from '../support/golden.js';
import { madeUpBatch, parameterDistance, storedParameters, tinyTrainer } from '../support/training.js';

async function parametersOf(trainer: Trainer): Promise<Map<string, Float64Array>> {
  const folder = temporaryFolder();
  await trainer.saveModel(folder);
  return storedParameters(folder);
}

/** Parameters after some steps on batches of their own. */
async function train(options: TrainerOptions, steps: number, examples = 7): Promise<Map<string, Float64Array>> {
  using trainer = await tinyTrainer(options);
  for (let step = 0; step < steps; step++) await trainer.step(madeUpBatch(trainer, examples, step));
  return parametersOf(trainer);
}

describe('a step', () => {
  it('follows the formulas of Adam, clipping and decoupled decay', async () => {
    const optimizer = {
      learningRate: 1e-3,
      betas: [0.8, 0.9] as [number, number],
      epsilon: 1e-6,
      weightDecay: 0.01,
      clipNorm: 5,
    };
    for (const name of ['adam', 'adamw'] as const) {
      using trainer = await tinyTrainer({
        optimizer: { ...optimizer, name },
        schedule: (step) => 1 / (step + 1),
        groups: [{ match: ['text_model.head', /\.layers\.0\.mlp/], learningRateScale: 0.5 }],
      });
      const expected = await parametersOf(trainer);
      const moments = new Map(
        [...expected].map(([key, { length }]) => [key, [0, 0].map(() => new Float64Array(length))]),
      );
      for (let step = 0; step < 3; step++) {
        const batch = madeUpBatch(trainer, 5, step);
        const { gradients } = await trainer.gradients(batch);
        const metrics = await trainer.step(batch);
        let squares = 0;
        for (const { data } of gradients.values()) for (const value of data) squares += value * value;
        expect(metrics.gradNorm / Math.sqrt(squares)).toBeCloseTo(1, 6);
        const clip = Math.min(1, 5 / Math.sqrt(squares));
        const factor = 1 / (step + 1);
        expect(metrics.learningRate).toBeCloseTo(1e-3 * factor, 12);
        for (const [key, values] of expected) {
          const { data, shape } = gradients.get(key)!;
          const [first, second] = moments.get(key) as [Float64Array, Float64Array];
          const rate = 1e-3 * factor * (/^text_model\.head|\.layers\.0\.mlp/.test(key) ? 0.5 : 1);
          const kernel = shape.length > 1 && !/embedding\.weight|probe/.test(key.replace('patch_embedding', 'patch'));
          const decay = name === 'adamw' ? 0.01 * rate : kernel ? 0.01 * factor : 0;
          for (let i = 0; i < values.length; i++) {
            const g = (data[i] as number) * clip;
            first[i] = 0.8 * first[i]! + 0.2 * g;
            second[i] = 0.9 * second[i]! + 0.1 * g * g;
            const update =
              first[i]! / (1 - 0.8 ** (step + 1)) / (Math.sqrt(second[i]! / (1 - 0.9 ** (step + 1))) + 1e-6);
            values[i] = values[i]! - decay * values[i]! - rate * update;
          }
        }
      }
      // Adam turns tiny gradients into updates of full size, so their rounding errors show as parts of an update.
      expect(parameterDistance(await parametersOf(trainer), expected), name).toBeLessThan(1e-4);
    }
  });

  it.each([1, 3])('gives the same parameters in micro-batches of %i', async (microBatchSize) => {
    // Biases of keys do nothing: their gradients are rounding errors, which Adam makes as large as any other.
    const trained = async (options: TrainerOptions, steps: number) =>
      new Map([...(await train(options, steps))].filter(([name]) => !name.endsWith('k_proj.bias')));
    const whole = await trained({}, 10);
    expect(parameterDistance(await trained({ microBatchSize }, 10), whole)).toBeLessThan(1e-4);
    expect(parameterDistance(await trained({}, 9), whole)).toBeGreaterThan(3e-3);
  });

  it('cuts a batch of fewer images than micro-batches into single ones', async () => {
    const gradientsOf = async (options: TrainerOptions) => {
      using trainer = await tinyTrainer(options);
      return trainer.gradients(madeUpBatch(trainer, 2));
    };
    expect(await gradientsOf({ microBatches: 4 })).toEqual(await gradientsOf({ microBatchSize: 1 }));
  });

  it.each([1, 3])('has the same gradients in bfloat16 in micro-batches of %i', async (microBatchSize) => {
    // Of one step: after an update that differs in the last bit, other numbers are rounded to other numbers.
    const gradientsOf = async (options: TrainerOptions) => {
      using trainer = await tinyTrainer({ dtype: 'bfloat16', ...options });
      return trainer.gradients(madeUpBatch(trainer, 7));
    };
    const whole = await gradientsOf({});
    const parts = await gradientsOf({ microBatchSize });
    const float32 = await gradientsOf({ dtype: 'float32' });
    expect(parts.loss).toBe(whole.loss);
    expect(Math.abs(float32.loss - whole.loss) / whole.loss).toBeGreaterThan(1e-4);
    for (const [name, { data }] of whole.gradients) {
      if (name.endsWith('k_proj.bias')) continue;
      const norm = (values: Float32Array) => Math.sqrt(values.reduce((sum, value) => sum + value * value, 0));
      const distance = norm(data.map((value, i) => value - (parts.gradients.get(name)?.data[i] as number)));
      expect(distance / norm(data), name).toBeLessThan(1e-5);
    }
  });

  it('multiplies in bfloat16 for gradients of weights, too', async () => {
    // Of a layer that one row goes through they are single products: of two bfloat16 numbers in 16 bits.
    const share = async (dtype: 'float32' | 'bfloat16') => {
      using trainer = await tinyTrainer({ dtype });
      const { gradients } = await trainer.gradients(madeUpBatch(trainer, 1));
      return ['text_model.head.weight', 'vision_model.head.attention.out_proj.weight'].map((name) => {
        const { data } = gradients.get(name)!;
        expect(data.some((value) => value !== 0)).toBe(true);
        const words = new Uint32Array(data.buffer, data.byteOffset, data.length);
        return words.filter((bits) => (bits & 0xff) === 0).length / words.length;
      });
    };
    expect(await share('bfloat16')).toEqual([1, 1]);
    expect(Math.max(...(await share('float32')))).toBeLessThan(0.2);
  });

  it.each(['float32', 'bfloat16'] as const)('gives the same bits with checkpointing in %s', async (dtype) => {
    // Many values, so that one whose last bits differ is rounded to another number of bfloat16 somewhere.
    const again = await train({ dtype, checkpointing: true }, 10, 16);
    expect(parameterDistance(again, await train({ dtype }, 10, 16))).toBe(0);
  });

  it.each(['float32', 'bfloat16'] as const)(
    'gives the same bits for any number of threads, and again, in %s',
    async (dtype) => {
      const once = await train({ dtype, threads: 1 }, 3);
      expect(parameterDistance(await train({ dtype, threads: 2 }, 3), once)).toBe(0);
      expect(parameterDistance(await train({ dtype, threads: 2 }, 3), once)).toBe(0);
    },
  );

  it('lowers the loss of a batch that is seen again and again', async () => {
    using trainer = await tinyTrainer({ optimizer: { learningRate: 3e-3 } });
    const batch = madeUpBatch(trainer, 8);
    const losses: number[] = [];
    for (let step = 0; step < 30; step++) losses.push((await trainer.step(batch)).loss);
    expect(losses[29] as number).toBeLessThan((losses[0] as number) / 4);
  });

  it('leaves frozen parameters alone, to the last bit, and moves all others', async () => {
    using trainer = await tinyTrainer({ frozen: ['vision_model', /text_model.*k_proj/, 'logit_bias'] });
    const before = await parametersOf(trainer);
    await trainer.step(madeUpBatch(trainer, 4));
    await trainer.step(madeUpBatch(trainer, 4, 1));
    for (const [name, values] of await parametersOf(trainer)) {
      const same = values.every((value, i) => value === before.get(name)?.[i]);
      expect(same, name).toBe(/^vision_model|k_proj|logit_bias/.test(name));
    }
  });

  it('moves only rows of the token table that have occurred', async () => {
    using trainer = await tinyTrainer({ optimizer: { weightDecay: 0.1 } });
    const name = 'text_model.embeddings.token_embedding.weight';
    const before = (await parametersOf(trainer)).get(name)!;
    const batch = madeUpBatch(trainer, 2);
    await trainer.step(batch);
    await trainer.step(batch);
    const after = (await parametersOf(trainer)).get(name)!;
    const width = trainer.model.config.text.hiddenSize;
    const { inputIds } = batch.texts as { inputIds: Int32Array };
    const occurred = new Set(inputIds);
    expect(occurred.size).toBeLessThan(before.length / width);
    for (let row = 0; row < before.length / width; row++) {
      const moved = before
        .subarray(row * width, (row + 1) * width)
        .some((value, i) => value !== after[row * width + i]);
      expect(moved, `row ${row}`).toBe(occurred.has(row));
    }
  });

  it('is skipped and counted when gradients are not finite', async () => {
    using trainer = await tinyTrainer();
    const good = madeUpBatch(trainer, 3);
    const bad = madeUpBatch(trainer, 3, 1);
    (bad.images as { patches: Float32Array }).patches[5] = NaN;
    await trainer.step(good);
    const before = await parametersOf(trainer);
    const skipped = await trainer.step(bad);
    expect(skipped).toMatchObject({ step: 2, updated: false, skippedSteps: 1, loss: NaN });
    expect(parameterDistance(await parametersOf(trainer), before)).toBe(0);
    expect(await trainer.step(good)).toMatchObject({ step: 3, updated: true, skippedSteps: 1 });
    expect(trainer.skippedSteps).toBe(1);
  });

  it.each(['float32', 'bfloat16'] as const)('updates what the model computes with in %s', async (dtype) => {
    using trainer = await tinyTrainer({ dtype });
    expect(trainer.model.dtype).toBe(dtype);
    const batch = madeUpBatch(trainer, 4);
    const images = batch.images as Parameters<Siglip2['vision']['forward']>[0];
    const before = await trainer.model.vision.forward(images);
    const { logitScale } = trainer.model;
    const metrics = await trainer.step(batch);
    const after = await trainer.model.vision.forward(images);
    expect(after.pooled.data).not.toEqual(before.pooled.data);
    expect(trainer.model.logitScale).toBe(metrics.logitScale);
    expect(metrics.logitScale).not.toBe(logitScale);
    const folder = temporaryFolder();
    await trainer.saveModel(folder);
    using loaded = await Siglip2.load(folder, { dtype });
    expect((await loaded.vision.forward(images)).pooled.data).toEqual(after.pooled.data);
    expect(loaded.logitScale).toBe(metrics.logitScale);
  });

  it('takes pictures and texts', async () => {
    using trainer = await tinyTrainer();
    const picture = (value: number, width: number) =>
      ({ data: new Uint8Array(width * 60 * 3).fill(value), width, height: 60, channels: 3 }) as const;
    const metrics = await trainer.step({
      images: [picture(30, 80), picture(200, 40)],
      texts: ['a dark field', 'a bright tower'],
      maxPatches: 64,
    });
    expect(metrics.updated).toBe(true);
    expect(metrics.losses.sigmoid).toBe(metrics.loss);
    expect(metrics.examplesPerSecond).toBeGreaterThan(0);
  });

  it('runs calls in the order in which they were made', async () => {
    using trainer = await tinyTrainer();
    const calls = [0, 1, 2, 3].map((seed) => trainer.step(madeUpBatch(trainer, 2, seed)));
    expect((await Promise.all(calls)).map(({ step }) => step)).toEqual([1, 2, 3, 4]);
  });
});

describe('averages', () => {
  it('follow the weights', async () => {
    using trainer = await tinyTrainer({ ema: { decay: 0.75 } });
    const expected = await parametersOf(trainer);
    for (let step = 0; step < 3; step++) {
      await trainer.step(madeUpBatch(trainer, 3, step));
      for (const [name, values] of await parametersOf(trainer))
        expected.get(name)!.forEach((value, i, all) => {
          all[i] = 0.75 * value + 0.25 * (values[i] as number);
        });
    }
    const folder = temporaryFolder();
    await trainer.saveModel(folder, { average: true });
    expect(parameterDistance(storedParameters(folder), expected)).toBeLessThan(1e-6);
    using plain = await tinyTrainer();
    await expectSiglipError(() => plain.saveModel(folder, { average: true }), 'ERR_SIGLIP_UNSUPPORTED', 'ema');
  });
});

describe('a trainer from a configuration', () => {
  const tiny = async () => {
    using model = await Siglip2.load(checkpointFolder('naflex_hd96'));
    return model.config;
  };

  it('starts where big_vision starts, by its seed alone', async () => {
    const config = await tiny();
    using trainer = await Trainer.create(config, { seed: 5 });
    expect(trainer.model.logitScale).toBeCloseTo(Math.log(10), 6);
    expect(trainer.model.logitBias).toBe(-10);
    const parameters = await parametersOf(trainer);
    const bound = Math.sqrt(3 / config.vision.hiddenSize);
    const query = parameters.get('vision_model.encoder.layers.0.self_attn.q_proj.weight')!;
    expect(Math.max(...query)).toBeLessThanOrEqual(bound);
    expect(Math.max(...query)).toBeGreaterThan(0.99 * bound);
    using again = await Trainer.create(config, { seed: 5, threads: 1 });
    expect(parameterDistance(await parametersOf(again), parameters)).toBe(0);
    using other = await Trainer.create(config, { seed: 6 });
    expect(parameterDistance(await parametersOf(other), parameters)).toBeGreaterThan(0.1);
    const { loss, updated } = await trainer.step(madeUpBatch(trainer, 6));
    expect(updated).toBe(true);
    // 10 for the positive, and almost nothing for negatives, when all embeddings were orthogonal.
    expect(loss).toBeGreaterThan(0);
    expect(loss).toBeLessThan(15);
  });

  it('needs a tokenizer for texts, and says so', async () => {
    using trainer = await Trainer.create(await tiny());
    const { images } = madeUpBatch(trainer, 1);
    await expectSiglipError(() => trainer.step({ images, texts: ['a'] }), 'ERR_SIGLIP_TOKENIZER', 'tokenizer');
    using able = await Trainer.create(await tiny(), { tokenizer: checkpointFolder('naflex_hd96') });
    expect((await able.step({ images, texts: ['a'] })).updated).toBe(true);
  });
});

describe('memory', () => {
  it('is known before the first step', async () => {
    using trainer = await tinyTrainer();
    const one = await trainer.memory({ examples: 1, maxPatches: 16 });
    const many = await trainer.memory({ examples: 64, maxPatches: 16 });
    expect(many.activationBytes).toBeGreaterThan(30 * one.activationBytes);
    const sum = Object.entries(many).reduce((total, [name, bytes]) => total + (name === 'totalBytes' ? 0 : bytes), 0);
    expect(many.totalBytes).toBe(sum);
    await trainer.step(madeUpBatch(trainer, 64));
    expect((await trainer.memory({ examples: 64, maxPatches: 16 })).gradientBytes).toBeLessThanOrEqual(
      many.gradientBytes,
    );
    using cut = await tinyTrainer({ microBatchSize: 4, checkpointing: true });
    expect((await cut.memory({ examples: 64, maxPatches: 16 })).activationBytes).toBeLessThan(many.activationBytes / 6);
  });

  it('that is not there is refused before anything is allocated', async () => {
    // 24 bytes a parameter: 0.6 PB.
    const config = sizeConfig({ size: 'g' });
    const huge = { ...config, text: { ...config.text, vocabSize: 16_000_000 } };
    await expectSiglipError(
      () => Trainer.create({ ...huge, vision: { ...huge.vision, numHiddenLayers: 1000 } }),
      'ERR_SIGLIP_OUT_OF_MEMORY',
    );
    using trainer = await tinyTrainer();
    const plan = await trainer.memory({ examples: 100_000, maxPatches: 256 });
    expect(plan.totalBytes).toBeGreaterThan(1e11);
    await expectSiglipError(() => trainer.memory({ examples: 10_000_000 }), 'ERR_SIGLIP_SHAPE', '2147483647 tokens');
  }, 300_000);
});

describe('mistakes', () => {
  const [picture, text] = [{ data: new Uint8Array(3), width: 1, height: 1, channels: 3 as const }, 'a'];
  it.each<[string, (trainer: Trainer) => unknown, RegExp]>([
    ['counts', (t) => t.step({ images: [picture, picture], texts: [text] }), /2 images and 1 texts/],
    ['nothing', (t) => t.step({ images: [], texts: [] }), /at least one image/],
    ['prepared counts', (t) => t.step({ ...madeUpBatch(t, 3), texts: [text, text] }), /3 images and 2 texts/],
  ])('in %s are coded errors', async (_, action, message) => {
    using trainer = await tinyTrainer();
    await expectSiglipError(() => action(trainer), 'ERR_SIGLIP_SHAPE', message);
  });

  it.each<[TrainerOptions, RegExp]>([
    [{ optimiser: {} } as TrainerOptions, /options\.optimiser: expected an option among/],
    [{ optimizer: { name: 'sgd' as 'adam' } }, /options\.optimizer\.name: expected one of "adam", "adamw"/],
    [{ optimizer: { betas: [0.9, 1] } }, /options\.optimizer\.betas\[1\]: expected a number from 0 to below 1, got 1/],
    [{ optimizer: { learningRate: NaN } }, /options\.optimizer\.learningRate/],
    [{ schedule: { name: 'cosine', totalSteps: 5, warmupSteps: 5 } }, /options\.schedule\.totalSteps/],
    [{ microBatchSize: 0 }, /options\.microBatchSize: expected an integer of at least 1/],
    [{ microBatchSize: 2, microBatches: 2 }, /options\.microBatches: expected no value beside microBatchSize/],
    [{ frozen: ['vision_modell'] }, /options\.frozen\[0\]: expected the name of a parameter/],
    [{ frozen: [/./] }, /options\.frozen: expected patterns that leave some parameter/],
    [{ groups: [{ match: 'nothing' }] }, /options\.groups\[0\]\.match\[0\]/],
    [{ ema: { decay: 1 } }, /options\.ema\.decay/],
    [{ seed: -1 }, /options\.seed/],
  ])('in the options %o name the option', async (options, message) => {
    await expect(tinyTrainer(options)).rejects.toThrow(message);
  });

  it('in types and models are refused', async () => {
    for (const dtype of ['int8', 'float16'])
      await expectSiglipError(
        () => tinyTrainer({ dtype: dtype as 'bfloat16' }),
        'ERR_SIGLIP_UNSUPPORTED',
        `device "cpu" cannot train in "${dtype}"; it can in "float32" and "bfloat16"`,
      );
    await expect(Trainer.create('folder' as unknown as Siglip2)).rejects.toThrow(/model: expected a Siglip2/);
    using half = await Siglip2.load(checkpointFolder('naflex_hd96'), { towers: ['vision'] });
    await expectSiglipError(() => Trainer.create(half), 'ERR_SIGLIP_UNSUPPORTED', 'both towers');
    using trainer = await tinyTrainer();
    await expectSiglipError(() => Trainer.create(trainer.model), 'ERR_SIGLIP_UNSUPPORTED', 'another trainer');
  });

  it('of a function for a schedule are found at its step', async () => {
    using trainer = await tinyTrainer({ schedule: (step) => (step < 1 ? 1 : Number.NaN) });
    await trainer.step(madeUpBatch(trainer, 1));
    await expect(trainer.step(madeUpBatch(trainer, 1))).rejects.toThrow(/options\.schedule\(1\)/);
    expect(trainer.stepsTaken).toBe(1);
  });

  it('leave the trainer usable, and so does an abort', async () => {
    using trainer = await tinyTrainer();
    const before = await parametersOf(trainer);
    const batch = madeUpBatch(trainer, 2);
    await expect(trainer.step({ ...batch, images: [new Uint8Array(3), new Uint8Array(3)] })).rejects.toThrow();
    await expectSiglipError(() => trainer.step(batch, { signal: AbortSignal.abort() }), 'ERR_SIGLIP_ABORTED');
    const controller = new AbortController();
    const large: TrainingBatch = madeUpBatch(trainer, 128);
    const running = trainer.step(large, { signal: controller.signal });
    setTimeout(() => controller.abort(), 5);
    await expectSiglipError(() => running, 'ERR_SIGLIP_ABORTED');
    expect(parameterDistance(await parametersOf(trainer), before)).toBe(0);
    expect((await trainer.step(batch)).step).toBe(1);
    trainer.dispose();
    trainer.dispose();
    await expectSiglipError(() => trainer.step(batch), 'ERR_SIGLIP_DISPOSED');
    await expectSiglipError(() => trainer.model.text.forward(new Int32Array(64), [1, 64]), 'ERR_SIGLIP_DISPOSED');
  });
});
