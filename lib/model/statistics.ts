/** What a checkpoint consists of, and whether its weights are numbers: for people who look at one before using it. */
import { stat } from 'node:fs/promises';
import path from 'node:path';
import { type NonFiniteCounts, native, withCancellation } from '../native.js';
import { checkParameters, openCheckpointFiles, tensorShapes, weightsIndexName } from './checkpoint-files.js';
import { readConfig, type Siglip2Config } from './config.js';
import { mapParameters } from './load.js';
import { parameterShapes } from './parameter-shapes.js';
import { reconcileConfig } from './reconcile-config.js';

/** A checkpoint as {@link describeCheckpoint} finds it. */
export interface CheckpointDescription {
  folder: string;
  config: Siglip2Config;
  /** Where the configuration did not fit the tensors and was corrected, a sentence each. */
  differences: readonly string[];
  /** Numbers of parameters; `total` includes logit_scale and logit_bias. */
  parameters: { vision: number; text: number; total: number };
  /** Parameters by stored type, under the names of the safetensors format. */
  dtypes: Record<string, { tensors: number; parameters: number }>;
  /** Files of the checkpoint that this package reads, with their sizes in bytes. */
  files: { name: string; size: number }[];
  /** Tensors that are no parameters of the model. */
  unused: string[];
  /** Parameters that are NaN or infinite: in all, and of each tensor that has any. */
  nonFinite: NonFiniteCounts & { tensors: (NonFiniteCounts & { name: string })[] };
}

const smallFiles = [
  'config.json',
  'preprocessor_config.json',
  'processor_config.json',
  'tokenizer.json',
  'tokenizer_config.json',
  weightsIndexName,
];

/**
 * Reads a checkpoint folder, all weights included, without loading a model.
 * @throws SiglipError ERR_SIGLIP_CONFIG or ERR_SIGLIP_CHECKPOINT for what could not be loaded either; ERR_SIGLIP_ABORTED
 */
export async function describeCheckpoint(
  folder: string,
  options: { signal?: AbortSignal } = {},
): Promise<CheckpointDescription> {
  const stated = await readConfig(folder);
  const files = await openCheckpointFiles(folder);
  const { config, differences } = reconcileConfig(stated, tensorShapes(files));
  const unused = checkParameters(config, files);
  const shapes = parameterShapes(config);
  const dtypes: CheckpointDescription['dtypes'] = {};
  const parameters = { vision: 0, text: 0, total: 0 };
  for (const [name, shape] of shapes) {
    const elements = shape.reduce((product, size) => product * size, 1);
    parameters.total += elements;
    if (name.startsWith('vision_model.')) parameters.vision += elements;
    if (name.startsWith('text_model.')) parameters.text += elements;
    const dtype = files.tensors.get(name)?.dtype as string;
    const counted = dtypes[dtype] ?? { tensors: 0, parameters: 0 };
    dtypes[dtype] = counted;
    counted.tensors++;
    counted.parameters += elements;
  }
  const checkpoint = mapParameters(files, [...shapes.keys()]);
  try {
    const nonFinite = await withCancellation(options.signal, (token) =>
      native().checkpointStatistics(checkpoint, token),
    );
    return {
      folder,
      config,
      differences,
      parameters,
      dtypes,
      files: [
        ...(await sizes(folder, smallFiles)),
        ...files.files.map(({ path: file, size }) => ({ name: path.basename(file), size })),
      ],
      unused,
      nonFinite,
    };
  } finally {
    native().release(checkpoint);
  }
}

async function sizes(folder: string, names: readonly string[]): Promise<{ name: string; size: number }[]> {
  const found: { name: string; size: number }[] = [];
  for (const name of names) {
    const size = await stat(path.join(folder, name)).then(
      (entry) => entry.size,
      () => undefined,
    );
    if (size !== undefined) found.push({ name, size });
  }
  return found;
}
