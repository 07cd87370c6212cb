/** Brings a configuration in line with the tensors of its checkpoint, and back into the form of Hugging Face's files. */
import { SiglipError } from '../errors.js';
import {
  type Architecture,
  checkConfig,
  parseConfig,
  type Siglip2Config,
  type TextConfig,
  type VisionConfig,
} from './config.js';
import type { JsonObject } from './json.js';
import { parsePreprocessing } from './preprocessing-config.js';

type Shapes = ReadonlyMap<string, readonly number[]>;
type Mutable<T> = { -readonly [K in keyof T]: T[K] };

/** A configuration that fits its tensors, and what had to be changed for it, a sentence each. */
export interface ReconciledConfig {
  readonly config: Siglip2Config;
  readonly differences: readonly string[];
}

/**
 * Takes widths, depths, table sizes, patch size and architecture from the tensors where the configuration disagrees:
 * published configurations leave values out, or carry stale ones. The number of attention heads leaves no trace in the
 * tensors, so it must be stated when the width is not the stated one, and it must divide the width.
 *
 * Tensors that are absent change nothing; {@link checkParameters} reports those that are missing.
 *
 * @param shapes tensor shapes by Hugging Face name
 * @throws SiglipError ERR_SIGLIP_CONFIG when the result is not a model
 */
export function reconcileConfig(config: Siglip2Config, shapes: Shapes, where = 'config.json'): ReconciledConfig {
  const differences: string[] = [];
  const architecture = tensorArchitecture(shapes) ?? config.architecture;
  if (architecture !== config.architecture)
    differences.push(
      `the configuration says '${config.architecture}' but the patch embedding has the shape of '${architecture}'`,
    );

  const text: Mutable<TextConfig> = { ...config.text };
  const vision: Mutable<VisionConfig> = { ...config.vision };
  const adopt = <T extends object>(name: string, tower: T, key: keyof T & string, found: number | undefined): void => {
    if (found === undefined || tower[key] === found) return;
    differences.push(`${name}.${key} is ${found} by the tensors, ${tower[key]} by the configuration`);
    Object.assign(tower, { [key]: found });
  };

  const tokens = table(shapes, 'text_model.embeddings.token_embedding.weight');
  const textProjection = table(shapes, 'text_model.head.weight');
  adopt('text', text, 'hiddenSize', tokens?.[1]);
  adopt('text', text, 'vocabSize', tokens?.[0]);
  adopt('text', text, 'maxPositionEmbeddings', table(shapes, 'text_model.embeddings.position_embedding.weight')?.[0]);
  adopt('text', text, 'projectionSize', textProjection?.[0]);
  adopt('text', text, 'intermediateSize', table(shapes, 'text_model.encoder.layers.0.mlp.fc1.weight')?.[0]);
  adopt('text', text, 'numHiddenLayers', depth(shapes, 'text_model'));

  const positions = table(shapes, 'vision_model.embeddings.position_embedding.weight');
  adopt('vision', vision, 'hiddenSize', positions?.[1]);
  adopt('vision', vision, 'patchSize', tensorPatchSize(shapes, vision.numChannels));
  adopt('vision', vision, 'intermediateSize', table(shapes, 'vision_model.encoder.layers.0.mlp.fc1.weight')?.[0]);
  adopt('vision', vision, 'numHiddenLayers', depth(shapes, 'vision_model'));
  const numPatches = positions?.[0];
  if (architecture === 'naflex') {
    delete vision.imageSize;
    adopt('vision', vision, 'numPatches', numPatches);
  } else {
    const imageSize = fixedImageSize(config, vision.patchSize, numPatches ?? vision.numPatches);
    adopt('vision', vision, 'imageSize', imageSize);
    adopt('vision', vision, 'numPatches', numPatches);
  }
  requireStatedHeads(config, 'text', text.hiddenSize, where);
  requireStatedHeads(config, 'vision', vision.hiddenSize, where);

  const preprocessing =
    differences.length > 0 && (config.json !== undefined || architecture !== config.architecture)
      ? parsePreprocessing(config.json?.preprocessor, 'preprocessor_config.json', architecture, vision)
      : config.preprocessing;
  const reconciled: Siglip2Config = { ...config, architecture, vision, text, preprocessing };
  checkConfig(reconciled, where);
  return { config: reconciled, differences };
}

function table(shapes: Shapes, name: string): readonly [number, number] | undefined {
  const shape = shapes.get(name);
  return shape?.length === 2 ? [shape[0]!, shape[1]!] : undefined;
}

const patchEmbedding = 'vision_model.embeddings.patch_embedding.weight';

function tensorArchitecture(shapes: Shapes): Architecture | undefined {
  const rank = shapes.get(patchEmbedding)?.length;
  return rank === 4 ? 'fixed' : rank === 2 ? 'naflex' : undefined;
}

function tensorPatchSize(shapes: Shapes, numChannels: number): number | undefined {
  const shape = shapes.get(patchEmbedding);
  if (shape?.length === 4) return shape[3];
  if (shape?.length !== 2) return undefined;
  const side = Math.sqrt(shape[1]! / numChannels);
  return Number.isInteger(side) ? side : undefined;
}

/** Layers by the highest index; a gap below it is a missing tensor. */
function depth(shapes: Shapes, tower: string): number | undefined {
  const pattern = new RegExp(`^${tower}\\.encoder\\.layers\\.(\\d{1,9})\\.`);
  let layers: number | undefined;
  for (const name of shapes.keys()) {
    const index = pattern.exec(name)?.[1];
    if (index !== undefined) layers = Math.max(layers ?? 0, Number(index) + 1);
  }
  return layers;
}

/**
 * The picture size that gives the position table's grid. Several do when patches do not divide the size (384 and 378 both
 * hold 27 patches of 14): what the files state is preferred, since pictures are resized to exactly that.
 */
function fixedImageSize(config: Siglip2Config, patchSize: number, numPatches: number): number {
  const fits = (size: number | undefined): size is number =>
    size !== undefined && Math.floor(size / patchSize) ** 2 === numPatches;
  const { size } = config.preprocessing;
  if (fits(config.vision.imageSize)) return config.vision.imageSize;
  if (fits(size?.height) && size.height === size.width) return size.height;
  return Math.round(Math.sqrt(numPatches)) * patchSize;
}

/** A default number of heads says nothing about a width that is not the default one either. */
function requireStatedHeads(config: Siglip2Config, tower: 'text' | 'vision', hiddenSize: number, where: string): void {
  if (hiddenSize === config[tower].hiddenSize || config.json === undefined) return;
  const section = config.json.config[`${tower}_config`] as JsonObject | null | undefined;
  if (section?.num_attention_heads !== undefined && section.num_attention_heads !== null) return;
  const field = `${tower}_config.num_attention_heads`;
  throw new SiglipError(
    'ERR_SIGLIP_CONFIG',
    `${where}: ${field} is missing and cannot be told from the tensors, whose width is ${hiddenSize}`,
    { details: { file: where, field } },
  );
}

const textKeys = {
  hiddenSize: 'hidden_size',
  numHiddenLayers: 'num_hidden_layers',
  numAttentionHeads: 'num_attention_heads',
  intermediateSize: 'intermediate_size',
  vocabSize: 'vocab_size',
  maxPositionEmbeddings: 'max_position_embeddings',
  projectionSize: 'projection_size',
  layerNormEps: 'layer_norm_eps',
  hiddenAct: 'hidden_act',
} as const;

const visionKeys = {
  hiddenSize: 'hidden_size',
  numHiddenLayers: 'num_hidden_layers',
  numAttentionHeads: 'num_attention_heads',
  intermediateSize: 'intermediate_size',
  patchSize: 'patch_size',
  numChannels: 'num_channels',
  layerNormEps: 'layer_norm_eps',
  hiddenAct: 'hidden_act',
  useHead: 'vision_use_head',
} as const;

/**
 * The configuration in the form of Hugging Face's `config.json` and `preprocessor_config.json`: the files it came from, with
 * only those values changed or added that would otherwise be read differently.
 */
export function configToJson(config: Siglip2Config): { config: JsonObject; preprocessor: JsonObject } {
  const naflex = config.architecture === 'naflex';
  const name = naflex ? 'siglip2' : 'siglip';
  const original = config.json?.config ?? {};
  const identity =
    original.model_type === name ? {} : { architectures: [naflex ? 'Siglip2Model' : 'SiglipModel'], model_type: name };
  const start: JsonObject = { ...original, ...identity };
  const text: JsonObject = { ...(start.text_config as JsonObject | null) };
  const vision: JsonObject = { ...(start.vision_config as JsonObject | null) };
  const json = { ...start, text_config: text, vision_config: vision };
  const sizeKey = naflex ? { numPatches: 'num_patches' } : { imageSize: 'image_size' };
  if (original.model_type !== name) {
    // The other architecture did not read its size keys, so what they say was never checked.
    delete vision.image_size;
    delete vision.num_patches;
  }
  // Twice, because changing the text width changes the default of the projection.
  for (let pass = 0; pass < 2; pass++) {
    const read = parseConfig(json, 'config.json');
    setDifferent(text, config.text, read.text, textKeys);
    setDifferent(vision, config.vision, read.vision, { ...visionKeys, ...sizeKey });
  }
  return { config: json, preprocessor: preprocessorToJson(config) };
}

function setDifferent<T extends object>(
  section: JsonObject,
  wanted: T,
  read: T,
  keys: { [K in keyof T]?: string },
): void {
  for (const key of Object.keys(keys) as (keyof T)[])
    if (wanted[key] !== read[key] && wanted[key] !== undefined) section[keys[key] as string] = wanted[key];
}

function preprocessorToJson({ architecture, preprocessing, json }: Siglip2Config): JsonObject {
  if (json?.preprocessor !== undefined) return json.preprocessor;
  const { imageMean, imageStd, rescaleFactor, resample, size, maxNumPatches, patchSize } = preprocessing;
  const kind = architecture === 'naflex' ? 'Siglip2' : 'Siglip';
  return {
    do_convert_rgb: true,
    do_normalize: true,
    do_rescale: true,
    do_resize: true,
    image_mean: imageMean,
    image_processor_type: `${kind}ImageProcessor`,
    image_std: imageStd,
    processor_class: `${kind}Processor`,
    resample: resample === 'bilinear' ? 2 : 3,
    rescale_factor: rescaleFactor,
    ...(architecture === 'naflex' ? { max_num_patches: maxNumPatches, patch_size: patchSize } : { size }),
  };
}
