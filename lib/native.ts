/**
 * Finds, loads and types the native addon. This is the only file that knows it exists; everything else calls the
 * functions of {@link native}.
 */
import { existsSync } from 'node:fs';
import path from 'node:path';
import { types } from 'node:util';
import { onAbort } from './abort.js';
import { wrongType } from './arguments.js';
import { SiglipError, type SiglipErrorCode } from './errors.js';
import loader from './native-loader.cjs';

/** An object of the native core; opaque here, freed by garbage collection or by {@link NativeAddon.release}. */
export interface NativeHandle<Kind extends string> {
  readonly __kind?: Kind;
}
export type CheckpointHandle = NativeHandle<'checkpoint'>;
export type ModelHandle = NativeHandle<'model'>;
export type TensorHandle = NativeHandle<'tensor'>;
export type TrainerHandle = NativeHandle<'trainer'>;
export type CancelHandle = NativeHandle<'cancel'>;

/** What a device library says of one of its devices. */
export interface NativeDeviceFacts {
  name: string;
  architecture: string;
  memoryBytes: number;
  freeBytes: number;
  multiprocessors: number;
  /** 13000 is 13.0. */
  driverVersion: number;
  /** Something the user should know, or empty. */
  notice: string;
}

/** What the binary and the machine offer. */
export interface NativeDescription {
  instructionSets: { name: string; compiled: boolean; supported: boolean }[];
  instructionSet: string;
  cores: number;
  availableMemory: number;
  devices: { name: string; description: string; facts?: NativeDeviceFacts }[];
  /** Why there is no CUDA device; absent when there is one. */
  noCuda?: string;
}

export interface NativeCheckpointFile {
  path: string;
  tensors: { name: string; dtype: string; shape: number[]; begin: number; end: number }[];
}

interface NativeEncoder {
  width: number;
  layers: number;
  heads: number;
  intermediate: number;
  epsilon: number;
}
export interface NativeVisionConfig extends NativeEncoder {
  patchSize: number;
  /** Rows (and columns) of the position table. */
  grid: number;
  fixedResolution: boolean;
  hasHead: boolean;
}
export interface NativeTextConfig extends NativeEncoder {
  vocabulary: number;
  positions: number;
  projection: number;
}

/** Decoded pictures and how they become model input. */
export interface NativeImages {
  images: { data: Uint8Array; width: number; height: number; channels: number }[];
  /** Height and width in pixels for every image. */
  targetSizes: Int32Array;
  mean: readonly number[];
  deviation: readonly number[];
  rescale: number;
  mode: 'pil' | 'float';
  filter: 'bilinear' | 'bicubic';
}
export type NativeVisionInput =
  | ({ kind: 'images' } & NativeImages)
  | { kind: 'pixels'; pixelValues: Float32Array; shape: readonly number[] }
  | { kind: 'patches'; patches: Float32Array; spatialShapes: Int32Array };

export interface NativeForwardOptions {
  pooled: boolean;
  normalize: boolean;
  lastHiddenState: boolean;
  hiddenStates: boolean;
}
/** Packed rows; arrays that were not asked for are empty. */
export interface NativeForwardResult {
  pooled: Float32Array;
  lastHiddenState: Float32Array;
  hiddenStates: Float32Array[];
  activationBytes: number;
}

/** How one parameter is trained and what it starts from; see native/train/parameter_store.h. */
export interface NativeParameterSetting {
  name: string;
  shape: readonly number[];
  trainable: boolean;
  learningRateScale: number;
  decayScale: number;
  /** A distribution, or the values themselves. */
  initialization: { kind: NativeInitializationKind; scale: number } | { values: Float32Array };
}
export interface NativeTrainerOptions {
  device: string;
  dtype: string;
  threads: number;
  vision: NativeVisionConfig;
  text: NativeTextConfig;
  parameters: NativeParameterSetting[];
  seed: number;
  /** Keep a moving average of the weights. */
  average: boolean;
  checkpoint?: CheckpointHandle;
  /** The checkpoint is a saved training state. */
  trainingState: boolean;
}
/** See native/ops/sigmoid_loss/sigmoid_loss.h. */
export interface NativePositivePairs {
  offsets: Int32Array;
  texts: Int32Array;
}
export interface NativeTrainingBatch {
  images: NativeVisionInput;
  inputIds: Int32Array;
  length: number;
  /** When absent there are as many texts as images, and text i belongs to image i. */
  positives?: NativePositivePairs | undefined;
}
export interface NativeGradientPlan {
  /** Images that go through the towers together, and as many texts in proportion; 0: all. */
  microBatch: number;
  checkpointing: boolean;
}
export interface NativeUpdate {
  /** Counting this one, from 1. */
  updates: number;
  beta1: number;
  beta2: number;
  epsilon: number;
  learningRate: number;
  decay: number;
  averageDecay: number;
  /** 0: no clipping. */
  clipNorm: number;
}
export interface NativeGradientResult {
  loss: number;
  gradientNorm: number;
  activationBytes: number;
}
export interface NativeTrainingMemory {
  parameterBytes: number;
  gradientBytes: number;
  optimizerBytes: number;
  packedBytes: number;
  activationBytes: number;
}
export type NativeParameterPart = 'value' | 'gradient' | 'firstMoment' | 'secondMoment' | 'average';

export interface NativeTensor {
  handle: TensorHandle;
  shape: number[];
  dtype: string;
}
export interface NonFiniteCounts {
  elements: number;
  nan: number;
  infinite: number;
}

export type NativeSigmoidLoss =
  | { loss: number }
  | {
      loss: number;
      gradImages: NativeTensor;
      gradTexts: NativeTensor;
      gradLogitScale: number;
      gradLogitBias: number;
    };
/** Distributions of initial values; native/train/initialize.h says what `scale` means to each. */
export type NativeInitializationKind = 'constant' | 'uniform' | 'normal' | 'truncated_normal';

type KernelFunction = (args: Record<string, unknown> & { threads: number }) => Promise<Record<string, NativeTensor>>;

/** The addon's exports. Arguments are documented beside the functions in native/addon/. */
export interface NativeAddon {
  describe(): NativeDescription;
  /** The device's own name; ERR_SIGLIP_NO_DEVICE with the reason when it cannot be used. */
  openDevice(name: string): string;
  /** A command to the emulated device; for tests only. */
  simtControl(command: string): string;
  createCancelToken(): CancelHandle;
  cancel(token: CancelHandle): void;
  release(handle: NativeHandle<string>): void;

  openCheckpoint(files: NativeCheckpointFile[]): CheckpointHandle;
  readTensor(checkpoint: CheckpointHandle, name: string, dtype: string): Promise<Uint8Array>;
  checkpointStatistics(
    checkpoint: CheckpointHandle,
    token: CancelHandle,
  ): Promise<NonFiniteCounts & { tensors: (NonFiniteCounts & { name: string })[] }>;

  loadModel(
    checkpoint: CheckpointHandle,
    options: {
      device: string;
      dtype: string;
      threads: number;
      vision?: NativeVisionConfig;
      text?: NativeTextConfig;
      /** Where packed weights are kept; empty: nowhere. */
      packedFolder: string;
    },
    token: CancelHandle,
  ): Promise<ModelHandle>;
  describeModel(model: ModelHandle): { visionWeightBytes: number; textWeightBytes: number; threads: number };
  visionForward(
    model: ModelHandle,
    input: NativeVisionInput,
    options: NativeForwardOptions & { layer: number },
    token: CancelHandle,
  ): Promise<NativeForwardResult & { spatialShapes: Int32Array }>;
  textForward(
    model: ModelHandle,
    inputIds: Int32Array,
    length: number,
    options: NativeForwardOptions,
    token: CancelHandle,
  ): Promise<NativeForwardResult>;
  similarity(
    images: Float32Array,
    texts: Float32Array,
    width: number,
    logitScale: number,
    logitBias: number,
  ): { logits: Float32Array; probabilities: Float32Array };
  prepareImages(
    images: NativeImages,
    options: { device: string; threads: number; patchSize: number; layout: 'patches' | 'planar' },
    token: CancelHandle,
  ): Promise<Float32Array>;
  naflexTargetSize(height: number, width: number, patchSize: number, maxPatches: number): [number, number];

  createTrainer(options: NativeTrainerOptions, token: CancelHandle): Promise<TrainerHandle>;
  trainerModel(trainer: TrainerHandle): ModelHandle;
  trainerGradients(
    trainer: TrainerHandle,
    batch: NativeTrainingBatch,
    plan: NativeGradientPlan,
    token: CancelHandle,
  ): Promise<NativeGradientResult>;
  trainerStep(
    trainer: TrainerHandle,
    batch: NativeTrainingBatch,
    plan: NativeGradientPlan,
    update: NativeUpdate,
    token: CancelHandle,
  ): Promise<NativeGradientResult & { updated: boolean; logitScale: number; logitBias: number }>;
  trainerPlan(
    trainer: TrainerHandle,
    batch: { spatialShapes: Int32Array; texts: number; length: number },
    plan: NativeGradientPlan,
  ): Promise<NativeTrainingMemory>;
  readParameter(trainer: TrainerHandle, name: string, part: NativeParameterPart, dtype: string): Promise<Uint8Array>;
  touchedRows(trainer: TrainerHandle): Promise<Float32Array>;

  createTensor(device: string, dtype: string, shape: readonly number[], data: ArrayBufferView): TensorHandle;
  readTensorValues(tensor: TensorHandle): Promise<Float32Array>;
  linear: KernelFunction;
  mlp: KernelFunction;
  selfAttention: KernelFunction;
  layerNorm: KernelFunction;
  gelu: KernelFunction;
  l2Normalize: KernelFunction;
  convert: KernelFunction;
  attention: KernelFunction;
  attentionBackward: KernelFunction;
  mapPool: KernelFunction;
  mapPoolBackward: KernelFunction;
  probeKeys: KernelFunction;
  probeKeysBackward: KernelFunction;
  positionEmbedding: KernelFunction;
  tokenEmbedding: KernelFunction;
  naflexPatchify: KernelFunction;
  /** The rate of the CPU's arithmetic: native/cpu/arithmetic_roof.h. */
  arithmeticRoof(args: { dtype: string; turns: number; threads: number }): Promise<{
    instruction: string;
    operations: number;
    milliseconds: number;
  }>;
  sigmoidLoss(args: {
    images: TensorHandle;
    texts: TensorHandle;
    positives?: NativePositivePairs | undefined;
    logitScale: number;
    logitBias: number;
    gradients: boolean;
    threads: number;
  }): Promise<NativeSigmoidLoss>;
  linearBackward: KernelFunction;
  layerNormBackward: KernelFunction;
  geluBackward: KernelFunction;
  l2NormalizeBackward: KernelFunction;
  tokenEmbeddingBackward: KernelFunction;
  positionEmbeddingBackward: KernelFunction;
  adam: KernelFunction;
  sumOfSquares(args: { values: TensorHandle; threads: number }): Promise<number>;
  /** Initial values of a parameter, the same for a seed, a stream and an element whatever the rest. */
  initialize(args: {
    kind: NativeInitializationKind;
    scale: number;
    seed: number;
    stream: number;
    count: number;
    device: string;
    threads: number;
  }): Promise<{ values: NativeTensor }>;
}

/** One place where a binary was looked for, and why it was not used (`error` absent: it was). */
export interface NativeAttempt {
  path: string;
  error?: string;
}

/**
 * Turns the native core's errors (`code`, `details`) into {@link SiglipError}; leaves others as they are. The core makes
 * errors and promises in the main realm, which is not this code's own in a vm context, as tests of Jest are.
 */
function toSiglipError(error: unknown): unknown {
  if (!types.isNativeError(error) || error instanceof SiglipError) return error;
  const { code, details } = error as { code?: unknown; details?: Record<string, unknown> };
  if (typeof code !== 'string' || !code.startsWith('ERR_SIGLIP_')) return error;
  return new SiglipError(code as SiglipErrorCode, error.message, details === undefined ? {} : { details });
}

function withSiglipErrors(addon: NativeAddon): NativeAddon {
  const wrapped: Record<string, unknown> = {};
  for (const [name, original] of Object.entries(addon) as [string, (...args: unknown[]) => unknown][]) {
    wrapped[name] = (...args: unknown[]): unknown => {
      try {
        const result = original(...args);
        if (!types.isPromise(result)) return result;
        return result.catch((error: unknown) => {
          throw toSiglipError(error);
        });
      } catch (error) {
        throw toSiglipError(error);
      }
    };
  }
  return wrapped as unknown as NativeAddon;
}

/** The C library of this process, as prebuilt binaries are named: they do not mix. */
function libcName(): string {
  if (process.platform !== 'linux') return '';
  const report = process.report as unknown as { excludeNetwork: boolean; getReport(): unknown };
  const before = report.excludeNetwork;
  report.excludeNetwork = true; // otherwise the report looks up host names, which can take seconds
  const { header } = report.getReport() as { header: { glibcVersionRuntime?: string } };
  report.excludeNetwork = before;
  return header.glibcVersionRuntime === undefined ? '.musl' : '.glibc';
}

/**
 * Where the binary may be, best first: the path in the environment variable SIGLIP2_NATIVE (then nowhere else), a
 * build in this checkout, the prebuilt binary of this platform.
 */
function candidates(): string[] {
  const explicit = process.env.SIGLIP2_NATIVE;
  if (explicit !== undefined && explicit !== '') return [path.resolve(explicit)];
  return [
    path.join(loader.packageRoot, 'build', 'Release', 'siglip2.node'),
    path.join(loader.packageRoot, 'prebuilds', `${process.platform}-${process.arch}`, `siglip2${libcName()}.node`),
  ];
}

let loaded: { addon: NativeAddon; attempts: NativeAttempt[] } | undefined;

/**
 * Loads the addon once, and returns it with everything that was tried.
 * @throws SiglipError ERR_SIGLIP_NATIVE_NOT_FOUND with `details.attempts`
 */
export function loadNative(): { addon: NativeAddon; attempts: NativeAttempt[] } {
  if (loaded !== undefined) return loaded;
  const attempts: NativeAttempt[] = [];
  for (const candidate of candidates()) {
    if (!existsSync(candidate)) {
      attempts.push({ path: candidate, error: 'no such file' });
      continue;
    }
    try {
      const addon = withSiglipErrors(loader.requireNative(candidate) as NativeAddon);
      attempts.push({ path: candidate });
      loaded = { addon, attempts };
      return loaded;
    } catch (error) {
      attempts.push({ path: candidate, error: error instanceof Error ? error.message : String(error) });
    }
  }
  const tried = attempts.map((attempt) => `  ${attempt.path}: ${attempt.error}`).join('\n');
  throw new SiglipError(
    'ERR_SIGLIP_NATIVE_NOT_FOUND',
    `no native addon for ${process.platform}-${process.arch} could be loaded. Tried:\n${tried}\n` +
      'In a checkout, build it with: npm run build:native',
    { details: { attempts } },
  );
}

/** The addon, loaded on first use. */
export function native(): NativeAddon {
  return loadNative().addon;
}

/**
 * Runs native work that an AbortSignal may stop: queued work is dropped, running work stops between two operations.
 * @throws SiglipError ERR_SIGLIP_ABORTED with the signal's reason as `cause`
 */
export async function withCancellation<T>(
  signal: AbortSignal | undefined,
  work: (token: CancelHandle) => Promise<T>,
): Promise<T> {
  const addon = native();
  const token = addon.createCancelToken();
  if (signal === undefined) return work(token);
  if (!(signal instanceof AbortSignal)) throw wrongType('options.signal', 'an AbortSignal', signal);
  const aborted = (): SiglipError =>
    new SiglipError('ERR_SIGLIP_ABORTED', 'the operation was aborted', { cause: signal.reason });
  if (signal.aborted) throw aborted();
  const forget = onAbort(signal, () => addon.cancel(token));
  try {
    return await work(token);
  } catch (error) {
    throw signal.aborted && error instanceof SiglipError && error.code === 'ERR_SIGLIP_ABORTED' ? aborted() : error;
  } finally {
    forget();
  }
}
