/** From a configuration to what trains: data set, model, trainer. */
import { stat } from 'node:fs/promises';
import path from 'node:path';
import { SiglipError } from '../../errors.js';
import { downloadCheckpoint } from '../../hub/index.js';
import { parseConfig, readConfig, type Siglip2Config } from '../../model/config.js';
import { readJsonFile } from '../../model/json.js';
import { Siglip2 } from '../../model/siglip2.js';
import { sizeConfig } from '../../model/sizes.js';
import { targetSizes } from '../../processing/prepare.js';
import {
  type AugmentOptions,
  type Batch,
  type BatchOptions,
  batches,
  type Dataset,
  type DatasetPosition,
  defaultSequenceLengths,
  openDataset,
} from '../../training/data/index.js';
import { Trainer, type TrainerOptions, type TrainingMemory } from '../../training/index.js';
import { hubErrorSummary, hubOptions, withDownloads } from '../model.js';
import { Progress } from '../progress.js';
import type { Context } from '../run.js';
import { type TrainConfig, trainerArguments } from './config.js';
import type { Way } from './document.js';

const dataArguments = {
  source: ['data'],
  options: ['data'],
  'options.epochs': ['training', 'epochs'],
  'options.position': ['data'],
  'options.naflex': ['data'],
} satisfies Record<string, Way>;

/** Opens the training data, at the beginning or where a saved training has stopped. */
export function openTrainingData(config: TrainConfig, position?: DatasetPosition): Promise<Dataset> {
  const { data, training } = config.written;
  const { shuffle, shuffleBuffer } = data;
  const { epochs } = training;
  return config.naming(dataArguments, () =>
    openDataset(config.source(data), {
      seed: data.seed ?? training.seed ?? 0,
      ...(shuffle === undefined ? {} : { shuffle }),
      ...(shuffleBuffer === undefined ? {} : { shuffleBuffer }),
      ...(epochs === undefined ? {} : { epochs }),
      ...(position === undefined ? {} : { position }),
    }),
  );
}

/** Steps of the whole training, if that can be known. Broken examples may make it end earlier. */
export function totalSteps(config: TrainConfig, dataset: Dataset): number | undefined {
  const { steps, epochs } = config.written.training;
  const { batchSize } = config.written.data;
  if (steps !== undefined) return steps;
  if (epochs === undefined || dataset.length === undefined || batchSize === undefined) return undefined;
  return Math.ceil((dataset.length * epochs) / batchSize);
}

/**
 * The batches of the training.
 * @throws SiglipError ERR_SIGLIP_CONFIG for a mistake in `data`, before anything is read
 */
export function trainingBatches(
  config: TrainConfig,
  model: Siglip2Config,
  dataset: Dataset,
  signal: AbortSignal,
): Promise<AsyncGenerator<Batch, void>> {
  return config.naming({ options: ['data'], 'options.naflex': ['data'] }, () =>
    batches(dataset, batchOptions(config, model, signal)),
  );
}

/** Options of `batches`. */
function batchOptions(config: TrainConfig, model: Siglip2Config, signal: AbortSignal): BatchOptions {
  const { data } = config.written;
  const { batchSize, sequenceLengths, tokenBudget, decodeConcurrency, prefetch, maxPixels } = data;
  const { textsPerImage, augment, cacheBytes } = data;
  if (model.architecture === 'fixed')
    for (const [key, value] of Object.entries({ sequenceLengths, tokenBudget }))
      if (value !== undefined)
        throw config.mistake(['data', key], 'is for NaFlex models; this one takes pictures of one size');
  const naflex = {
    ...(sequenceLengths === undefined ? {} : { sequenceLengths }),
    ...(tokenBudget === undefined ? {} : { tokenBudget }),
  };
  return {
    ...(batchSize === undefined ? {} : { batchSize }),
    ...(Object.keys(naflex).length === 0 ? {} : { naflex }),
    ...(textsPerImage === undefined ? {} : { textsPerImage }),
    ...(augment === undefined ? {} : { augment: augment as AugmentOptions }),
    ...(cacheBytes === undefined ? {} : { cacheBytes }),
    ...(decodeConcurrency === undefined ? {} : { decodeConcurrency }),
    ...(prefetch === undefined ? {} : { prefetch }),
    ...(maxPixels === undefined ? {} : { maxPixels }),
    signal,
  };
}

/** The memory of the largest batch. */
export async function largestMemory(config: TrainConfig, trainer: Trainer): Promise<TrainingMemory> {
  const { batchSize, tokenBudget, sequenceLengths, textsPerImage = 1 } = config.written.data;
  if (batchSize !== undefined) {
    const longest = sequenceLengths?.reduce((a, b) => Math.max(a, b));
    const texts = batchSize * textsPerImage;
    return trainer.memory({ examples: batchSize, texts, ...(longest === undefined ? {} : { maxPatches: longest }) });
  }
  let largest: TrainingMemory | undefined;
  for (const maxPatches of sequenceLengths ?? defaultSequenceLengths) {
    const examples = Math.floor((tokenBudget as number) / maxPatches);
    const memory = await trainer.memory({ examples, texts: examples * textsPerImage, maxPatches });
    if (largest === undefined || memory.totalBytes > largest.totalBytes) largest = memory;
  }
  return largest as TrainingMemory;
}

/** Patches and text tokens of a batch. */
export function tokensOf(model: Siglip2Config, { images, texts, maxPatches = 256 }: Batch): number {
  const textTokens = texts.length * model.text.maxPositionEmbeddings;
  if (model.architecture === 'fixed') return textTokens + images.length * model.vision.numPatches;
  const sizes = targetSizes(model, images, maxPatches);
  let patches = 0;
  for (let i = 0; i < sizes.length; i += 2)
    patches += ((sizes[i] as number) * (sizes[i + 1] as number)) / model.vision.patchSize ** 2;
  return textTokens + patches;
}

/** Makes the trainer of a new training. */
export async function createTrainer(
  config: TrainConfig,
  context: Context,
  steps: number | undefined,
): Promise<Trainer> {
  const { checkpoint, tokenizer } = config.written.model;
  const options: TrainerOptions = { ...config.trainerOptions(steps), ...runOptions(context) };
  if (tokenizer !== undefined)
    options.tokenizer = await findFolder(config, ['model', 'tokenizer'], tokenizer, context, { weights: false });
  const create = (model: Siglip2 | Siglip2Config): Promise<Trainer> =>
    config.naming(trainerArguments, () => Trainer.create(model, options));
  if (checkpoint === undefined) {
    const fresh = await freshConfig(config);
    options.tokenizer ??= fresh.folder as string;
    return withLabel(context, 'initialising the model …', () => create(fresh.model));
  }
  const folder = await findFolder(config, ['model', 'checkpoint'], checkpoint, context, {});
  return withLabel(context, `loading ${checkpoint} …`, async () => {
    using model = await Siglip2.load(folder, { signal: context.signal });
    return create(model);
  });
}

/** Continues a saved training, here and with the options that say how. */
export function resumeTrainer(
  config: TrainConfig,
  context: Context,
  folder: string,
  steps: number | undefined,
): Promise<Trainer> {
  const { device, dtype, threads, schedule, microBatchSize, microBatches, checkpointing } = {
    ...config.trainerOptions(steps),
    ...runOptions(context),
  };
  // The file says how it runs: what is no longer in it is none, not what was saved.
  const parts = microBatchSize === undefined ? { microBatches: microBatches ?? 1 } : { microBatchSize, microBatches };
  const given = { device, dtype, threads, schedule, checkpointing: checkpointing ?? false, ...parts };
  const options = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
  return withLabel(context, 'reading the saved training …', () =>
    config.naming(trainerArguments, () => Trainer.resume(folder, options)),
  );
}

/** What the command line says about where to compute. */
export function runOptions({ options }: Context): Pick<TrainerOptions, 'device' | 'threads'> {
  const { device, threads } = options;
  return { ...(device === undefined ? {} : { device }), ...(threads === undefined ? {} : { threads }) };
}

async function withLabel<T>({ terminal }: Context, label: string, work: () => Promise<T>): Promise<T> {
  const progress = new Progress(terminal, label);
  try {
    return await work();
  } finally {
    progress.stop();
  }
}

/** A model without weights, and the folder of its configuration if that has a tokenizer too. */
async function freshConfig(config: TrainConfig): Promise<{ model: Siglip2Config; folder?: string }> {
  const { size, patchSize, imageSize, vocabSize, config: location, tokenizer } = config.written.model;
  if (size !== undefined)
    return {
      model: await config.naming({ options: ['model'] }, () =>
        sizeConfig({
          size,
          ...(patchSize === undefined ? {} : { patchSize }),
          ...(imageSize === undefined ? {} : { imageSize }),
          ...(vocabSize === undefined ? {} : { vocabSize }),
        }),
      ),
    };
  const file = config.resolve(location as string);
  const kind = await kindOf(file);
  if (kind === 'nothing') throw config.mistake(['model', 'config'], `there is no ${file}`);
  const folder = kind === 'folder' ? file : path.dirname(file);
  if (tokenizer === undefined && (await kindOf(path.join(folder, 'tokenizer.json'))) !== 'file')
    throw config.mistake(['model'], `tokenizer is required, because there is no tokenizer.json in ${folder}`);
  if (kind === 'folder') return { model: await readConfig(file), folder };
  return { model: parseConfig(await readJsonFile(file, 'ERR_SIGLIP_CONFIG'), file), folder };
}

/** A folder that the file names, or that of a hub id's files, which are downloaded if need be. */
async function findFolder(
  config: TrainConfig,
  way: Way,
  source: string,
  { terminal, options, signal }: Context,
  files: { weights?: boolean },
): Promise<string> {
  const folder = config.resolve(source);
  if ((await kindOf(folder)) === 'folder') return folder;
  const { revision } = config.written.model;
  try {
    const found = await withDownloads(terminal, (onProgress) =>
      downloadCheckpoint(source, {
        ...hubOptions(options),
        ...(revision === undefined || files.weights === false ? {} : { revision }),
        ...files,
        onProgress,
        signal,
      }),
    );
    hubErrorSummary(terminal, found);
    return found.folder;
  } catch (error) {
    if (error instanceof RangeError)
      throw config.mistake(way, `expected a folder or a hub id organisation/name; there is no folder ${folder}`, error);
    if (error instanceof SiglipError && error.details?.status === 404)
      throw config.mistake(way, `there is neither a folder ${folder} nor a model ${source} on the hub`, error);
    throw error;
  }
}

async function kindOf(file: string): Promise<'folder' | 'file' | 'nothing'> {
  return stat(file).then(
    (entry) => (entry.isDirectory() ? 'folder' : 'file'),
    () => 'nothing',
  );
}
