/** From a folder or hub id to a model in the native core. */
import path from 'node:path';
import { requireOptions, wrongType } from '../arguments.js';
import { type Device, type DType, resolveDevice, resolveDType, resolveThreads } from '../device.js';
import { type DownloadProgress, type ResolvedCheckpoint, type RetryOptions, resolveCheckpoint } from '../hub/index.js';
import { derivedCache } from '../hub/settings.js';
import {
  type CheckpointHandle,
  type ModelHandle,
  type NativeTextConfig,
  type NativeVisionConfig,
  native,
  withCancellation,
} from '../native.js';
import { type CheckpointFiles, checkParameters, openCheckpointFiles, tensorShapes } from './checkpoint-files.js';
import { readConfig, type Siglip2Config, type Tower } from './config.js';
import { parameterShapes } from './parameter-shapes.js';
import { reconcileConfig } from './reconcile-config.js';
import type { SafetensorsDType } from './safetensors.js';

/** Options of `Siglip2.load` and `Tokenizer.load`. */
export interface LoadOptions {
  /** Default `auto`: CUDA when a usable device exists, else the CPU. */
  device?: Device;
  /**
   * `bfloat16` on CPUs: weights of layers, and what they are multiplied by, in bfloat16; sums and all else in float32.
   * `int8` on CPUs: those of the encoder's blocks in 8-bit integers, with a scale for each output and each token.
   * `auto`, the default: the fastest in which embeddings have a cosine of at least 0.9995 to those in `float32`, which
   * is `bfloat16` on CUDA devices and on CPUs that multiply it (instruction sets `avx512bf16` and `amx`), else `float32`.
   */
  dtype?: DType | 'auto';
  /** Load only what is needed; default both. */
  towers?: ('vision' | 'text')[];
  /** CPU: default all cores available to the process. */
  threads?: number;
  /**
   * CPU: keeps the packed weights in a file, which later loads map instead of packing them again, and processes share.
   * `true`: in `weights/` of the package's cache (`SIGLIP2_CACHE`); or a folder, such as one beside the checkpoint. Default
   * false. A file that does not fit the checkpoint any more is replaced.
   */
  packedCache?: boolean | string;
  /** Hub ids: branch, tag or commit; default `main`. */
  revision?: string;
  /** Hub ids: default as Python's huggingface_hub (HF_HUB_CACHE, HF_HOME). */
  cacheDir?: string;
  /** Hub ids: access token; default HF_TOKEN. */
  token?: string;
  /** Hub ids: use only what is in the cache; default HF_HUB_OFFLINE. */
  offline?: boolean;
  /** Called while files are downloaded. */
  onProgress?: (progress: DownloadProgress) => void;
  /** Hub ids: how patiently the network is tried. */
  retry?: RetryOptions;
  signal?: AbortSignal;
}

const optionNames = [
  'device',
  'dtype',
  'towers',
  'threads',
  'packedCache',
  'revision',
  'cacheDir',
  'token',
  'offline',
  'onProgress',
  'retry',
  'signal',
] as const;

/** Checks that the options are options of loading. */
export function checkLoadOptions(options: LoadOptions | undefined): LoadOptions {
  return requireOptions('options', options, optionNames);
}

/** Finds a checkpoint; downloads what the options ask for and the cache lacks. */
export async function locate(
  source: string | URL,
  options: LoadOptions,
  files: { weights: boolean; tokenizer: boolean },
): Promise<ResolvedCheckpoint> {
  const { revision, cacheDir, token, offline, onProgress, retry, signal } = options;
  const given = Object.entries({ revision, cacheDir, token, offline, onProgress, retry, signal });
  const hubOptions = Object.fromEntries(given.filter(([, value]) => value !== undefined));
  return resolveCheckpoint(source, { ...hubOptions, ...files });
}

/** Where a model's weights are when they are to be read again: a checkpoint's files, or a trainer. */
export interface WeightSource {
  /** How a parameter is stored. */
  storedType(name: string): SafetensorsDType;
  /** A parameter's values, rounded to the type that is asked for. */
  read(name: string, dtype: SafetensorsDType): Promise<Uint8Array>;
  /** The checkpoint, when that is what it is. */
  readonly checkpoint?: CheckpointHandle;
}

/** A model in the native core and everything that describes it. */
export interface LoadedModel {
  /** The folder with the tokenizer's files; `undefined` for a model that was made without one. */
  folder: string | undefined;
  config: Siglip2Config;
  towers: readonly Tower[];
  /** What a person should know about how the checkpoint was read. */
  notices: readonly string[];
  weights: WeightSource;
  model: ModelHandle;
  device: string;
  dtype: DType;
  threads: number;
  /** Raw parameters; in training they change with every step. */
  scalars: { logitScale: number; logitBias: number };
}

/** Opens, checks and loads a checkpoint; see `Siglip2.load`. */
export async function loadModel(source: string | URL, options: LoadOptions): Promise<LoadedModel> {
  const towers = checkTowers(options.towers);
  const device = resolveDevice('options.device', options.device);
  const dtype = resolveDType('options.dtype', options.dtype, device, 'compute');
  const threads = resolveThreads('options.threads', options.threads);
  const packedFolder = packedFolderOf(options.packedCache);
  const { folder, hubError } = await locate(source, options, { weights: true, tokenizer: towers.includes('text') });

  const stated = await readConfig(folder);
  const files = await openCheckpointFiles(folder);
  const { config, differences } = reconcileConfig(stated, tensorShapes(files));
  checkParameters(config, files, towers);
  const checkpoint = mapParameters(files, [...parameterShapes(config, towers).keys()]);
  const model = await withCancellation(options.signal, (token) =>
    native().loadModel(
      checkpoint,
      {
        device,
        dtype,
        threads,
        packedFolder,
        ...(towers.includes('vision') ? { vision: nativeVisionConfig(config) } : {}),
        ...(towers.includes('text') ? { text: nativeTextConfig(config) } : {}),
      },
      token,
    ),
  );
  const logitScale = await readScalar(checkpoint, 'logit_scale');
  const logitBias = await readScalar(checkpoint, 'logit_bias');
  const notices = [...differences];
  if (hubError !== undefined) notices.unshift(`the copy in the cache was used, because ${hubError.message}`);
  const weights: WeightSource = {
    storedType: (name) => files.tensors.get(name)?.dtype as SafetensorsDType,
    read: (name, type) => native().readTensor(checkpoint, name, type),
    checkpoint,
  };
  const scalars = { logitScale, logitBias };
  return { folder, config, towers, notices, weights, model, device, dtype, threads, scalars };
}

/** The folder of packed weights, absolute; empty for none. */
function packedFolderOf(packedCache: unknown = false): string {
  if (typeof packedCache === 'string' && packedCache !== '') return path.resolve(packedCache);
  if (typeof packedCache !== 'boolean')
    throw wrongType('options.packedCache', 'a boolean or the name of a folder', packedCache);
  const cache = packedCache ? derivedCache() : undefined;
  return cache === undefined ? '' : path.join(cache, 'weights');
}

function checkTowers(towers: unknown): readonly Tower[] {
  if (towers === undefined) return ['vision', 'text'];
  const valid = Array.isArray(towers) && towers.length > 0 && towers.every((t) => t === 'vision' || t === 'text');
  if (!valid) throw wrongType('options.towers', 'a list of "vision" and "text", not empty', towers);
  return [...new Set(towers as Tower[])];
}

/** Maps the named tensors, and nothing else, of a checkpoint's files. */
export function mapParameters(files: CheckpointFiles, names: readonly string[]): CheckpointHandle {
  const wanted = new Set(names);
  return native().openCheckpoint(
    files.files
      .map((file) => ({
        path: file.path,
        tensors: [...file.tensors]
          .filter(([name]) => wanted.has(name) && files.tensors.get(name)?.file === file)
          .map(([name, { dtype, shape, begin, end }]) => ({ name, dtype, shape: [...shape], begin, end })),
      }))
      .filter((file) => file.tensors.length > 0),
  );
}

async function readScalar(checkpoint: CheckpointHandle, name: string): Promise<number> {
  const bytes = await native().readTensor(checkpoint, name, 'F32');
  return new DataView(bytes.buffer, bytes.byteOffset).getFloat32(0, true);
}

/** The vision tower as the native core describes it. */
export function nativeVisionConfig({ architecture, vision }: Siglip2Config): NativeVisionConfig {
  return {
    width: vision.hiddenSize,
    layers: vision.numHiddenLayers,
    heads: vision.numAttentionHeads,
    intermediate: vision.intermediateSize,
    epsilon: vision.layerNormEps,
    patchSize: vision.patchSize,
    grid: Math.round(Math.sqrt(vision.numPatches)),
    fixedResolution: architecture === 'fixed',
    hasHead: vision.useHead,
  };
}

/** The text tower as the native core describes it. */
export function nativeTextConfig({ text }: Siglip2Config): NativeTextConfig {
  return {
    width: text.hiddenSize,
    layers: text.numHiddenLayers,
    heads: text.numAttentionHeads,
    intermediate: text.intermediateSize,
    epsilon: text.layerNormEps,
    vocabulary: text.vocabSize,
    positions: text.maxPositionEmbeddings,
    projection: text.projectionSize,
  };
}
