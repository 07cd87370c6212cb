/** Saving and resuming a training. */
import { spawn } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import path from 'node:path';
import { expect, it, vi } from 'vitest';
import { Siglip2 } from '../../lib/index.js';
import { type ResumeOptions, Trainer, type TrainerOptions } from '../../lib/training/index.js';
import { requireBuilt } from '../support/child.js';
import { expectSiglipError } from '../support/errors.js';
import { temporaryFolder } from '../support/folders.js';
import { buildSafetensors, checkpointFolder, fixtures, parseSafetensors } from '../support/golden.js';
import { madeUpBatch, tinyTrainer } from '../support/training.js';

const stateFile = 'training_state.safetensors';
const checkpoint = checkpointFolder('fixed_p14_hd64');
const create = (options?: TrainerOptions): Promise<Trainer> => tinyTrainer(options, 'fixed_p14_hd64');

async function stepTo(trainer: Trainer, end: number): Promise<void> {
  while (trainer.stepsTaken < end) await trainer.step(madeUpBatch(trainer, 3, trainer.stepsTaken));
}

async function stateOf(trainer: Trainer): Promise<Buffer> {
  const folder = temporaryFolder();
  await trainer.save(folder);
  return readFileSync(path.join(folder, stateFile));
}

it.each<[string, TrainerOptions]>([
  ['the defaults', {}],
  ['products in bfloat16', { dtype: 'bfloat16' }],
  [
    'everything else',
    {
      optimizer: { name: 'adamw', learningRate: 2e-3, weightDecay: 0.1, clipNorm: 0.5 },
      schedule: { name: 'cosine', warmupSteps: 10, totalSteps: 120 },
      ema: { decay: 0.9 },
      frozen: ['text_model.encoder', /position_embedding/],
      groups: [{ match: 'vision_model.head', learningRateScale: 3, weightDecayScale: 0 }],
      microBatchSize: 2,
      checkpointing: true,
      seed: 3,
    },
  ],
])(
  'resuming after 50 steps gives what 100 steps give, bit for bit, with %s',
  async (_, options) => {
    using straight = await create(options);
    await stepTo(straight, 100);

    const folder = temporaryFolder();
    using first = await create(options);
    await stepTo(first, 50);
    await first.save(folder, { state: { shard: 7, note: 'half way' } });
    first.dispose();
    using second = await Trainer.resume(folder, options.dtype === undefined ? {} : { dtype: options.dtype });
    expect(second.stepsTaken).toBe(50);
    expect(second.savedState).toEqual({ shard: 7, note: 'half way' });
    await stepTo(second, 100);
    expect((await stateOf(second)).equals(await stateOf(straight))).toBe(true);
  },
  120_000,
);

it('a training goes on in another type from the same float32 weights and moments', async () => {
  using first = await create();
  await stepTo(first, 3);
  const folder = temporaryFolder();
  await first.save(folder);
  using second = await Trainer.resume(folder, { dtype: 'bfloat16' });
  expect(second.model.dtype).toBe('bfloat16');
  const [before, after] = [await stateOf(first), await stateOf(second)].map((file) => parseSafetensors(file).tensors);
  for (const [name, { bytes }] of before as typeof after & object)
    expect(after?.get(name)?.bytes.equals(bytes), name).toBe(true);
  const batch = madeUpBatch(first, 3, 3);
  const [inFloat32, inBfloat16] = [await first.gradients(batch), await second.gradients(batch)];
  const difference = Math.abs(inBfloat16.loss - inFloat32.loss) / inFloat32.loss;
  expect(difference).toBeGreaterThan(1e-5);
  expect(difference).toBeLessThan(0.05);
});

it('a step that was skipped is remembered', async () => {
  using trainer = await create();
  const bad = madeUpBatch(trainer, 1);
  (bad.images as { pixelValues: Float32Array }).pixelValues[0] = Infinity;
  await trainer.step(bad);
  const folder = temporaryFolder();
  await trainer.save(folder);
  using resumed = await Trainer.resume(folder);
  expect([resumed.stepsTaken, resumed.skippedSteps, resumed.savedState]).toEqual([1, 1, undefined]);
});

it('what is saved is a model that anybody can load', async () => {
  using trainer = await create();
  await stepTo(trainer, 2);
  const folder = temporaryFolder();
  await trainer.save(folder);
  expect(readdirSync(folder).sort()).toEqual([
    'config.json',
    'model.safetensors',
    'preprocessor_config.json',
    'tokenizer.json',
    'tokenizer_config.json',
    stateFile,
  ]);
  using model = await Siglip2.load(folder, { dtype: 'float32' });
  expect(await model.embedTexts('a text')).toEqual(await trainer.model.embedTexts('a text'));
  using resumed = await Trainer.resume(folder);
  expect(await resumed.model.embedTexts('a text')).toEqual(await trainer.model.embedTexts('a text'));
});

it('a schedule that was a function must be given again', async () => {
  using trainer = await create({ schedule: () => 0.5 });
  const folder = temporaryFolder();
  await trainer.save(folder);
  await expectSiglipError(() => Trainer.resume(folder), 'ERR_SIGLIP_CONFIG', 'options.schedule');
  using resumed = await Trainer.resume(folder, { schedule: () => 0.5, threads: 1, microBatches: 1 });
  expect((await resumed.step(madeUpBatch(resumed, 2))).learningRate).toBe(5e-4);
});

it('an option that is undefined is as it was saved; a batch as a whole is one micro-batch', async () => {
  using trainer = await create({ schedule: { name: 'cosine', totalSteps: 4 }, microBatchSize: 1 });
  const folder = temporaryFolder();
  await trainer.save(folder);
  const none = { schedule: undefined, microBatchSize: undefined, checkpointing: undefined, device: undefined };
  using same = await Trainer.resume(folder, none as unknown as ResumeOptions);
  await stepTo(same, 2);
  expect((await same.step(madeUpBatch(same, 2))).learningRate).toBe(5e-4);
  expect(await same.memory({ examples: 8 })).toEqual(await trainer.memory({ examples: 8 }));
  using whole = await Trainer.resume(folder, { microBatches: 1 });
  using undivided = await create();
  expect(await whole.memory({ examples: 8 })).toEqual(await undivided.memory({ examples: 8 }));
});

it('a disk that fills up in the middle of a save loses nothing', async () => {
  using trainer = await create();
  await stepTo(trainer, 3);
  const folder = temporaryFolder();
  await trainer.save(folder);
  const files = () => readdirSync(folder).sort();
  const [names, state] = [files(), readFileSync(path.join(folder, stateFile))];
  await stepTo(trainer, 4);

  const handle: FileHandle = await open(path.join(folder, 'config.json'));
  const prototype = Object.getPrototypeOf(handle) as FileHandle;
  await handle.close();
  const size = state.length;
  // In the state, at its end, and in the model that follows it.
  for (const room of [0, 1000, size - 1, size + 10, size + 20_000]) {
    let left = room;
    const original = prototype.write;
    const write = vi.spyOn(prototype, 'write').mockImplementation(function (this: FileHandle, ...args: unknown[]) {
      left -= args[2] as number;
      if (left < 0) throw Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC' });
      return original.apply(this, args as never);
    } as never);
    await expectSiglipError(() => trainer.save(folder), 'ERR_SIGLIP_CHECKPOINT', folder, 'no space left');
    write.mockRestore();
    expect(files()).toEqual(names);
    expect(readFileSync(path.join(folder, stateFile)).equals(state)).toBe(true);
    using resumed = await Trainer.resume(folder);
    expect(resumed.stepsTaken).toBe(3);
  }
  await trainer.save(folder);
  using resumed = await Trainer.resume(folder);
  expect(resumed.stepsTaken).toBe(4);
});

it('killed twenty times while it saves, a training loses no save that was complete', async () => {
  requireBuilt();
  const folder = temporaryFolder();
  const program = path.join(path.dirname(fixtures), 'native', 'programs', 'save-training.mjs');
  let saved = 0;
  for (let round = 0; round < 20; round++) {
    const child = spawn(process.execPath, [program, folder, checkpoint], { stdio: ['ignore', 'pipe', 'pipe'] });
    let errors = '';
    child.stderr.on('data', (data: Buffer) => {
      errors += String(data);
    });
    let output = '';
    const started = new Promise<void>((resolve) => {
      child.stdout.on('data', (data: Buffer) => {
        output += String(data);
        resolve();
      });
      child.on('exit', () => resolve());
    });
    await started;
    // A save takes a few milliseconds, a step as long: somewhere in the next ones.
    await new Promise((resolve) => setTimeout(resolve, (round * 37) % 151));
    child.kill('SIGKILL');
    await new Promise((resolve) => child.on('close', resolve));
    expect(errors).toBe('');
    const lines = output.split('\n').filter(Boolean).map(Number);
    expect(lines.length).toBeGreaterThan(0);
    saved = lines.at(-1) as number;
    using resumed = await Trainer.resume(folder);
    // The last save may have been complete without having been reported.
    expect(resumed.stepsTaken === saved || resumed.stepsTaken === saved + 1, `${resumed.stepsTaken} ${saved}`).toBe(
      true,
    );
    expect(resumed.savedState).toEqual({ at: resumed.stepsTaken });
    using model = await Siglip2.load(folder);
    expect(model.config.architecture).toBe('fixed');
  }
  expect(saved).toBeGreaterThanOrEqual(20);
  using trainer = await Trainer.resume(folder);
  await trainer.save(folder);
  // What the killed ones left has been cleared away.
  expect(readdirSync(folder).filter((name) => name.startsWith('.') && /safetensors/.test(name))).toEqual([]);
}, 400_000);

it('folders without a whole training are refused, naming what is wrong', async () => {
  const code = 'ERR_SIGLIP_CHECKPOINT';
  await expectSiglipError(() => Trainer.resume('/nowhere'), code, path.join('/nowhere', stateFile));
  await expect(Trainer.resume(5 as unknown as string)).rejects.toThrow(/folder: expected a string/);

  using trainer = await create({ ema: { decay: 0.5 } });
  const folder = temporaryFolder();
  await trainer.save(folder);
  const file = path.join(folder, stateFile);
  const whole = readFileSync(file);
  const { tensors, metadata } = parseSafetensors(whole);
  const rebuild = (
    change: (tensor: { name: string; dtype: string; shape: number[]; bytes: Buffer }) => unknown,
    changed: Record<string, string> = metadata,
  ): void => {
    const kept = [...tensors].map(([name, { dtype, shape, bytes }]) => ({ name, dtype, shape, bytes })).filter(change);
    writeFileSync(file, buildSafetensors(kept, changed));
  };
  const edited = (edit: (json: Record<string, Record<string, unknown>>) => unknown): Record<string, string> => {
    const json = JSON.parse(metadata.siglip2_training as string) as Record<string, Record<string, unknown>>;
    edit(json);
    return { siglip2_training: JSON.stringify(json) };
  };
  const head = 'text_model.head.weight';
  const cases: [() => void, string, ...string[]][] = [
    [() => writeFileSync(file, whole.subarray(0, whole.length - 5)), code, 'truncated'],
    [() => rebuild(() => true, {}), code, 'siglip2_training'],
    [() => rebuild(() => true, { siglip2_training: '{' }), code, 'not valid JSON'],
    [
      () =>
        rebuild(
          () => true,
          edited((json) => Object.assign(json, { version: 9 })),
        ),
      code,
      'version 9',
    ],
    [
      () =>
        rebuild(
          () => true,
          edited((json) => delete json.parameters?.[head]),
        ),
      code,
      head,
    ],
    [
      () =>
        rebuild(
          () => true,
          edited((json) => Object.assign(json.progress ?? {}, { step: -1 })),
        ),
      code,
      'progress',
    ],
    [
      () => rebuild(({ name }) => name !== `average/${head}`),
      code,
      `average/${head} should be F32 [64, 64]`,
      'nothing',
    ],
    [
      () =>
        rebuild((tensor) => {
          if (tensor.name === `first_moment/${head}`) tensor.shape = [32, 128];
          return true;
        }),
      code,
      `first_moment/${head} should be F32 [64, 64], but there is [32, 128]`,
    ],
  ];
  for (const [damage, expected, ...parts] of cases) {
    damage();
    await expectSiglipError(() => Trainer.resume(folder), expected as typeof code, ...parts);
  }
  writeFileSync(file, whole);
  using resumed = await Trainer.resume(folder);
  expect(resumed.stepsTaken).toBe(0);
  // The model beside it is for others: a training does not need it.
  rmSync(path.join(folder, 'model.safetensors'));
  expect(existsSync(file)).toBe(true);
  using again = await Trainer.resume(folder);
  expect(again.stepsTaken).toBe(0);
});
