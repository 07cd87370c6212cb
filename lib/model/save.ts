import { access, stat } from 'node:fs/promises';
import path from 'node:path';
import { requireInteger, requireOneOf, requireOptions, requireString } from '../arguments.js';
import type { DType } from '../device.js';
import { SiglipError } from '../errors.js';
import type { LoadedModel } from './load.js';
import { parameterShapes } from './parameter-shapes.js';
import { configToJson } from './reconcile-config.js';
import type { SafetensorsDType } from './safetensors.js';
import { writeCheckpoint } from './write-checkpoint.js';

/** Options of `Siglip2.save`. */
export interface SaveOptions {
  /** Store weights in this type, rounding to nearest; default: each as it was stored. `int8` cannot be stored. */
  dtype?: DType;
  /** Split the weights into files of at most this many bytes; default 5 GB, as Hugging Face. */
  maxShardBytes?: number;
}

const storedName = { float32: 'F32', float16: 'F16', bfloat16: 'BF16' } as const;
const bytesOf: Partial<Record<SafetensorsDType, number>> = { F32: 4, F16: 2, BF16: 2 };
/** Files that belong to a checkpoint and are copied as they are. */
const copiedFiles = ['tokenizer.json', 'tokenizer_config.json', 'special_tokens_map.json', 'tokenizer.model'];
/** Marks weights that mean nothing; copied with them, but not to a model that was trained from them. */
const randomWeightsMarker = 'RANDOM_WEIGHTS';

/** Writes a loaded model in Hugging Face layout; see `Siglip2.save`. */
export async function saveModel(model: LoadedModel, folder: string, options?: SaveOptions): Promise<void> {
  requireString('folder', folder);
  const checked = requireOptions('options', options, ['dtype', 'maxShardBytes']);
  const dtype =
    checked.dtype === undefined
      ? undefined
      : storedName[requireOneOf('options.dtype', checked.dtype, ['float32', 'float16', 'bfloat16'])];
  const maxShardBytes = requireInteger('options.maxShardBytes', checked.maxShardBytes ?? 5e9, 1);

  const tensors = [...parameterShapes(model.config, model.towers)].map(([name, shape]) => {
    const stored = dtype ?? model.weights.storedType(name);
    const elements = shape.reduce((product, size) => product * size, 1);
    return {
      name,
      dtype: stored,
      shape,
      bytes: elements * (bytesOf[stored] as number),
      read: () => model.weights.read(name, stored),
    };
  });
  const names = model.weights.checkpoint === undefined ? copiedFiles : [...copiedFiles, randomWeightsMarker];
  const { config, preprocessor } = configToJson(model.config);
  await writeCheckpoint(folder, {
    configJson: dtype === undefined ? config : { ...config, dtype: checked.dtype },
    preprocessorJson: preprocessor,
    tokenizerFiles: model.folder === undefined ? [] : await existingFiles(model.folder, names),
    tensors,
    maxShardBytes,
  });
}

async function existingFiles(folder: string, names: readonly string[]): Promise<{ name: string; path: string }[]> {
  const present = await stat(folder).then(
    (found) => found.isDirectory(),
    () => false,
  );
  if (!present)
    throw new SiglipError(
      'ERR_SIGLIP_CHECKPOINT',
      `${folder}, which the tokenizer is copied from, is no longer there`,
      {
        details: { folder },
      },
    );
  const found: { name: string; path: string }[] = [];
  for (const name of names) {
    const file = path.join(folder, name);
    const exists = await access(file).then(
      () => true,
      () => false,
    );
    if (exists) found.push({ name, path: file });
  }
  return found;
}
