import { requireBoolean, requireInteger, requireOptions, requireString, wrongRange, wrongType } from '../arguments.js';
import { SiglipError } from '../errors.js';
import { parseConfig, type Siglip2Config } from '../model/config.js';
import type { TensorData } from '../model/forward.js';
import { nativeTextConfig, nativeVisionConfig } from '../model/load.js';
import { configToJson } from '../model/reconcile-config.js';
import { type SaveOptions, saveModel } from '../model/save.js';
import { Siglip2 } from '../model/siglip2.js';
import {
  type CheckpointHandle,
  type NativeParameterPart,
  type NativeParameterSetting,
  type NativeTrainingMemory,
  native,
  type TrainerHandle,
  withCancellation,
} from '../native.js';
import { resolveMaxPatches } from '../processing/prepare.js';
import { Tokenizer } from '../processing/tokenizer.js';
import { type PreparedBatch, prepareBatch, type TrainingBatch } from './batch.js';
import {
  checkTrainerOptions,
  gradientPlan,
  parameterSettings,
  type TrainerOptions,
  type TrainerSettings,
} from './options.js';
import { scheduleFactor } from './schedule.js';
import { type JsonValue, type ResumeOptions, readState, type TrainerProgress, writeState } from './state.js';

/** What a step did. */
export interface StepMetrics {
  /** Steps taken, this one included. */
  step: number;
  /** The loss before the update. */
  loss: number;
  /** The parts of the loss by name. */
  losses: { sigmoid: number };
  /** Global norm of the gradients before clipping. */
  gradNorm: number;
  /** The learning rate of this step, before any group's factor. */
  learningRate: number;
  /** Raw parameters after the update. */
  logitScale: number;
  logitBias: number;
  /** Images a second. */
  examplesPerSecond: number;
  /** False when loss or gradients were not finite: then no parameter has changed. */
  updated: boolean;
  /** How many steps so far have changed nothing. */
  skippedSteps: number;
}

/** Bytes that training takes, by purpose. */
export interface TrainingMemory extends NativeTrainingMemory {
  totalBytes: number;
}

/** A trainer's parts before it exists in the native core. */
interface Blueprint {
  config: Siglip2Config;
  settings: TrainerSettings;
  parameters: NativeParameterSetting[];
  folder: string | undefined;
  checkpoint: CheckpointHandle | undefined;
  progress: TrainerProgress | undefined;
}

/** Trains a model with SigLIP's sigmoid loss. Calls are done one after the other, in the order in which they were made. */
export class Trainer {
  /**
   * The model, whose weights are at any time those after the last step. It is disposed of with the trainer. To write it
   * while steps are under way, use {@link saveModel}, which waits for its turn.
   */
  readonly model: Siglip2;
  /** What was saved beside the trainer's own state, when it was resumed. */
  readonly savedState: JsonValue | undefined;
  readonly #settings: TrainerSettings;
  readonly #parameters: readonly NativeParameterSetting[];
  readonly #scalars: { logitScale: number; logitBias: number };
  readonly #handle: TrainerHandle;
  #disposed = false;
  #step: number;
  #updates: number;
  #queue: Promise<unknown> = Promise.resolve();

  private constructor(blueprint: Blueprint, handle: TrainerHandle, scalars: { logitScale: number; logitBias: number }) {
    const { config, folder, settings, progress } = blueprint;
    this.#settings = settings;
    this.#parameters = blueprint.parameters;
    this.#handle = handle;
    this.#scalars = scalars;
    this.#step = progress?.step ?? 0;
    this.#updates = progress?.updates ?? 0;
    this.savedState = progress?.state;
    this.model = Siglip2.fromLoaded({
      folder,
      config,
      towers: ['vision', 'text'],
      notices: [],
      weights: {
        storedType: () => 'F32',
        read: (name, dtype) => native().readParameter(handle, name, 'value', dtype),
      },
      model: native().trainerModel(handle),
      device: settings.device,
      dtype: settings.dtype,
      threads: settings.threads,
      scalars,
    });
  }

  /**
   * A trainer of a copy of a model's weights, or of fresh weights for a configuration, initialised as in big_vision.
   * @throws SiglipError ERR_SIGLIP_OUT_OF_MEMORY before anything is allocated, when weights, gradients and moments
   *   cannot fit; ERR_SIGLIP_UNSUPPORTED for a model with one tower; ERR_SIGLIP_CONFIG for one that cannot be trained
   */
  static async create(model: Siglip2 | Siglip2Config, options?: TrainerOptions): Promise<Trainer> {
    const settings = checkTrainerOptions(options);
    const source = trainingSource(model);
    if (source.checkpoint !== undefined && options?.initialization !== undefined)
      throw wrongRange('options.initialization', 'no value for a model that has weights', options.initialization);
    const parameters = parameterSettings(source.config, settings.optimizer, options ?? {});
    const folder = typeof settings.tokenizer === 'string' ? settings.tokenizer : source.folder;
    return Trainer.#build({ ...source, folder, settings, parameters, progress: undefined });
  }

  /**
   * Continues a saved training: on the same device and with the same batches bit for bit.
   * @param options where and how to run; what is computed was saved. A schedule that was a function must be given again
   * @throws SiglipError ERR_SIGLIP_CHECKPOINT when there is no saved training, it is damaged, or a parameter does not
   *   fit the model, naming it and both shapes
   */
  static async resume(folder: string, options?: ResumeOptions): Promise<Trainer> {
    requireString('folder', folder);
    const saved = await readState(folder, options);
    try {
      const { tokenizer } = saved.settings;
      return await Trainer.#build({ ...saved, folder: typeof tokenizer === 'string' ? tokenizer : folder });
    } finally {
      native().release(saved.checkpoint);
    }
  }

  static async #build(blueprint: Blueprint): Promise<Trainer> {
    const { config, settings, parameters, checkpoint, progress } = blueprint;
    const handle = await withCancellation(undefined, (token) =>
      native().createTrainer(
        {
          device: settings.device,
          dtype: settings.dtype,
          threads: settings.threads,
          vision: nativeVisionConfig(config),
          text: nativeTextConfig(config),
          parameters,
          seed: settings.seed,
          average: settings.ema !== undefined,
          ...(checkpoint === undefined ? {} : { checkpoint }),
          trainingState: progress !== undefined,
        },
        token,
      ),
    );
    const scalar = async (name: string): Promise<number> => (await readFloats(handle, name, 'value'))[0] as number;
    const scalars = { logitScale: await scalar('logit_scale'), logitBias: await scalar('logit_bias') };
    return new Trainer(blueprint, handle, scalars);
  }

  /** Steps taken so far. */
  get stepsTaken(): number {
    return this.#step;
  }

  /** How many steps so far have changed nothing, because loss or gradients were not finite. */
  get skippedSteps(): number {
    return this.#step - this.#updates;
  }

  /**
   * One step: gradients of the batch, clipping, update. When it fails or is aborted, nothing has changed. Pictures of
   * the next batch are decoded while this one is computed, if its step is called before this one is awaited.
   * @throws SiglipError ERR_SIGLIP_SHAPE for a batch that is empty or does not fit the model, ERR_SIGLIP_IMAGE,
   *   ERR_SIGLIP_OUT_OF_MEMORY before work starts, ERR_SIGLIP_ABORTED
   */
  step(batch: TrainingBatch, options?: { signal?: AbortSignal }): Promise<StepMetrics> {
    return this.#onBatch(batch, options, (prepared, signal) => this.#takeStep(prepared, signal));
  }

  /**
   * One forward and backward pass without an update.
   * @returns gradients of the parameters that are not frozen, by Hugging Face name and in its layout
   */
  gradients(
    batch: TrainingBatch,
    options?: { signal?: AbortSignal },
  ): Promise<{ loss: number; gradients: Map<string, TensorData> }> {
    const handle = this.#handle;
    return this.#onBatch(batch, options, async (prepared, signal) => {
      const plan = gradientPlan(this.#settings, prepared.examples);
      const { loss } = await withCancellation(signal, (token) =>
        native().trainerGradients(handle, prepared, plan, token),
      );
      const gradients = new Map<string, TensorData>();
      for (const { name, shape, trainable } of this.#parameters)
        if (trainable) gradients.set(name, { data: await readFloats(handle, name, 'gradient'), shape: [...shape] });
      return { loss, gradients };
    });
  }

  /**
   * The bytes that a step on a batch of this size needs at once. Nothing is computed.
   * @param batch.examples images
   * @param batch.texts texts, of batches with lists of positives; default as many as images
   */
  async memory(batch: { examples: number; texts?: number; maxPatches?: number }): Promise<TrainingMemory> {
    this.#requireLiving();
    const checked = requireOptions('batch', batch, ['examples', 'texts', 'maxPatches']);
    const examples = requireInteger('batch.examples', checked.examples, 1, 1 << 24);
    const texts = requireInteger('batch.texts', checked.texts ?? examples, 1, 1 << 24);
    const { config } = this.model;
    const maxPatches = resolveMaxPatches('batch.maxPatches', config, checked.maxPatches);
    const side = Math.round(Math.sqrt(config.vision.numPatches));
    const grid = config.architecture === 'fixed' ? [side, side] : [1, maxPatches];
    const spatialShapes = Int32Array.from({ length: 2 * examples }, (_, index) => grid[index % 2] as number);
    const shape = { spatialShapes, texts, length: config.text.maxPositionEmbeddings };
    const bytes = await native().trainerPlan(this.#handle, shape, gradientPlan(this.#settings, examples));
    const totalBytes = Object.values(bytes).reduce((sum, part) => sum + part, 0);
    return { ...bytes, totalBytes };
  }

  /**
   * Writes everything that `resume` needs, and the model in Hugging Face layout, into a folder. A crash at any moment
   * leaves the training that was saved there before, or this one, completely.
   * @param options.state anything else to keep with it, such as the position in the training data
   */
  async save(folder: string, options?: { state?: JsonValue }): Promise<void> {
    this.#requireLiving();
    const { state } = requireOptions('options', options, ['state']);
    requireString('folder', folder);
    const model = this.model.loaded();
    return this.#enqueue(() =>
      writeState(folder, {
        handle: this.#handle,
        model,
        settings: this.#settings,
        parameters: this.#parameters,
        progress: { step: this.#step, updates: this.#updates, state },
      }),
    );
  }

  /**
   * Writes the model alone, in Hugging Face layout.
   * @param options.average take the moving average of the weights; needs the option `ema`
   */
  async saveModel(folder: string, options?: SaveOptions & { average?: boolean }): Promise<void> {
    this.#requireLiving();
    const { average = false, ...saveOptions } = requireOptions('options', options, [
      'average',
      'dtype',
      'maxShardBytes',
    ]);
    requireBoolean('options.average', average);
    if (average && this.#settings.ema === undefined)
      throw new SiglipError('ERR_SIGLIP_UNSUPPORTED', 'this trainer keeps no moving average: create it with `ema`');
    const loaded = this.model.loaded();
    const part: NativeParameterPart = average ? 'average' : 'value';
    const weights = {
      storedType: loaded.weights.storedType,
      read: (name: string, dtype: string) => native().readParameter(this.#handle, name, part, dtype),
    };
    return this.#enqueue(() => saveModel({ ...loaded, weights }, folder, saveOptions));
  }

  /** Frees trainer and model when everything that was asked for before is done. A second call does nothing. */
  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.model.dispose();
    this.#enqueue(async () => native().release(this.#handle));
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  #requireLiving(): void {
    if (this.#disposed)
      throw new SiglipError('ERR_SIGLIP_DISPOSED', 'the trainer has been disposed and cannot be used any more');
  }

  /** Does something after everything that was asked for before, whether that failed or not. */
  #enqueue<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#queue.then(work, work);
    this.#queue = result.catch(() => undefined);
    return result;
  }

  async #onBatch<T>(
    batch: TrainingBatch,
    options: { signal?: AbortSignal } | undefined,
    work: (prepared: PreparedBatch, signal: AbortSignal | undefined) => Promise<T>,
  ): Promise<T> {
    const { signal } = requireOptions('options', options, ['signal']);
    this.#requireLiving();
    const prepared = prepareBatch(this.model.config, batch, this.#tokenizer(), signal);
    // Its failure is reported when its turn comes; until then it must not count as unhandled.
    prepared.catch(() => undefined);
    return this.#enqueue(async () => work(await prepared, signal));
  }

  #tokenizer(): () => Promise<Tokenizer> {
    const { tokenizer } = this.#settings;
    if (tokenizer instanceof Tokenizer) return async () => tokenizer;
    const { model } = this;
    return () => model.tokenizer();
  }

  async #takeStep(batch: PreparedBatch, signal: AbortSignal | undefined): Promise<StepMetrics> {
    const { optimizer, schedule, ema } = this.#settings;
    const factor = scheduleFactor(schedule, this.#step);
    const learningRate = optimizer.learningRate * factor;
    const [beta1, beta2] = optimizer.betas;
    const update = {
      updates: this.#updates + 1,
      beta1,
      beta2,
      epsilon: optimizer.epsilon,
      learningRate,
      decay: optimizer.weightDecay * (optimizer.name === 'adam' ? factor : learningRate),
      averageDecay: ema?.decay ?? 0,
      clipNorm: optimizer.clipNorm,
    };
    const handle = this.#handle;
    const plan = gradientPlan(this.#settings, batch.examples);
    const started = performance.now();
    const result = await withCancellation(signal, (token) => native().trainerStep(handle, batch, plan, update, token));
    const seconds = (performance.now() - started) / 1000;
    this.#step += 1;
    if (result.updated) this.#updates += 1;
    this.#scalars.logitScale = result.logitScale;
    this.#scalars.logitBias = result.logitBias;
    return {
      step: this.#step,
      loss: result.loss,
      losses: { sigmoid: result.loss },
      gradNorm: result.gradientNorm,
      learningRate,
      logitScale: result.logitScale,
      logitBias: result.logitBias,
      examplesPerSecond: batch.examples / seconds,
      updated: result.updated,
      skippedSteps: this.skippedSteps,
    };
  }
}

/** The configuration, tokenizer and weights that a trainer starts from. */
function trainingSource(model: unknown): Pick<Blueprint, 'config' | 'folder' | 'checkpoint'> {
  if (model instanceof Siglip2) {
    const { config, folder, towers, weights } = model.loaded();
    if (towers.length < 2)
      throw new SiglipError('ERR_SIGLIP_UNSUPPORTED', `training needs both towers, but only ${towers[0]} was loaded`);
    if (weights.checkpoint === undefined)
      throw new SiglipError('ERR_SIGLIP_UNSUPPORTED', "a trainer's own model cannot be given to another trainer");
    return { config, folder, checkpoint: weights.checkpoint };
  }
  if (typeof model !== 'object' || model === null || !('vision' in model) || !('text' in model))
    throw wrongType('model', 'a Siglip2 or a Siglip2Config', model);
  // What the files of such a model would say: so a configuration made by hand is checked like any other.
  const { config, preprocessor } = configToJson(model as Siglip2Config);
  const parsed = parseConfig(config, 'model', { json: preprocessor, where: 'model.preprocessing' });
  return { config: parsed, folder: undefined, checkpoint: undefined };
}

async function readFloats(handle: TrainerHandle, name: string, part: NativeParameterPart): Promise<Float32Array> {
  const bytes = await native().readParameter(handle, name, part, 'F32');
  return new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
}
