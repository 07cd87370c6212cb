/** The configuration of a SigLIP 2 model: `config.json` and `preprocessor_config.json`, validated and with every default filled in. */
import path from 'node:path';
import { describe } from '../arguments.js';
import { SiglipError } from '../errors.js';
import { isJsonObject, JsonFields, type JsonObject, readJsonFile } from './json.js';
import { type PreprocessingConfig, parsePreprocessing } from './preprocessing-config.js';

/** A tower of the model. */
export type Tower = 'vision' | 'text';

/** 'fixed': square pictures of one size (Hugging Face's SiglipModel). 'naflex': any aspect ratio (Siglip2Model). */
export type Architecture = 'fixed' | 'naflex';

/** The only activation SigLIP 2 uses: GELU in its tanh approximation, under its usual name. */
export type HiddenActivation = 'gelu_pytorch_tanh';

/** The vision tower. */
export interface VisionConfig {
  readonly hiddenSize: number;
  readonly numHiddenLayers: number;
  readonly numAttentionHeads: number;
  readonly intermediateSize: number;
  /** Height and width of a patch, in pixels. */
  readonly patchSize: number;
  readonly numChannels: number;
  readonly layerNormEps: number;
  readonly hiddenAct: HiddenActivation;
  /** Whether the tower ends in the attention-pooling head that makes the image embedding. */
  readonly useHead: boolean;
  /** 'fixed' only: height and width of a picture, in pixels. */
  readonly imageSize?: number;
  /**
   * Rows of the learned position table. 'fixed': floor(imageSize / patchSize)². 'naflex': a square grid that is resized to
   * each picture's grid, so not a limit on the number of patches.
   */
  readonly numPatches: number;
}

/** The text tower. */
export interface TextConfig {
  readonly hiddenSize: number;
  readonly numHiddenLayers: number;
  readonly numAttentionHeads: number;
  readonly intermediateSize: number;
  readonly vocabSize: number;
  /** Tokens of a text; shorter ones are padded to it. */
  readonly maxPositionEmbeddings: number;
  /** Width of the text embedding; equals the vision tower's `hiddenSize`. */
  readonly projectionSize: number;
  readonly layerNormEps: number;
  readonly hiddenAct: HiddenActivation;
}

/** Everything that determines a model's shape and its input, with defaults filled in. */
export interface Siglip2Config {
  readonly architecture: Architecture;
  readonly vision: VisionConfig;
  readonly text: TextConfig;
  readonly preprocessing: PreprocessingConfig;
  /** The files as they were, for saving; absent in a configuration made by hand. */
  readonly json?: { readonly config: JsonObject; readonly preprocessor?: JsonObject };
}

/** Upper bounds of what a configuration may ask for: far above any real model, low enough to allocate nothing absurd. */
export const configLimits = {
  hiddenSize: 65_536,
  numHiddenLayers: 1024,
  intermediateSize: 262_144,
  headDim: 256,
  vocabSize: 16_777_216,
  maxPositionEmbeddings: 65_536,
  patchSize: 1024,
  imageSize: 16_384,
  numPatches: 1_048_576,
} as const;

const architectures: ReadonlyMap<string, Architecture> = new Map([
  ['siglip', 'fixed'],
  ['siglip2', 'naflex'],
  ['SiglipModel', 'fixed'],
  ['Siglip2Model', 'naflex'],
]);

/** Names under which transformers offers the same function: x/2·(1 + tanh(√(2/π)·(x + 0.044715·x³))). */
const activationNames: readonly string[] = [
  'gelu_pytorch_tanh',
  'gelu_python_tanh',
  'gelu_new',
  'gelu_fast',
  'gelu_accurate',
];

/**
 * Reads a checkpoint folder's `config.json` and its preprocessing settings: `image_processor` of `processor_config.json`
 * (how transformers 5 saves them) or else `preprocessor_config.json`; without either, SigLIP 2's defaults.
 * Sizes may still disagree with the weights: see {@link reconcileConfig}.
 *
 * @throws SiglipError ERR_SIGLIP_CONFIG for files that are missing, damaged, out of bounds or of an unsupported model;
 *   ERR_SIGLIP_UNSUPPORTED for preprocessing that this package does not do
 */
export async function readConfig(folder: string): Promise<Siglip2Config> {
  const where = path.join(folder, 'config.json');
  const json = await readJsonFile(where, 'ERR_SIGLIP_CONFIG');
  if (json === undefined)
    throw new SiglipError(
      'ERR_SIGLIP_CONFIG',
      `${folder} has no config.json: a folder in Hugging Face layout is expected`,
      {
        details: { folder, file: where },
      },
    );
  return parseConfig(json, where, await readPreprocessor(folder));
}

async function readPreprocessor(folder: string): Promise<{ json: unknown; where: string } | undefined> {
  const processorFile = path.join(folder, 'processor_config.json');
  const processor = await readJsonFile(processorFile, 'ERR_SIGLIP_CONFIG');
  if (isJsonObject(processor) && isJsonObject(processor.image_processor))
    return { json: processor.image_processor, where: `${processorFile}: image_processor` };
  const where = path.join(folder, 'preprocessor_config.json');
  const json = await readJsonFile(where, 'ERR_SIGLIP_CONFIG');
  return json === undefined ? undefined : { json, where };
}

/**
 * Validates the parsed `config.json` (and preprocessing settings, when there are any) and fills in the defaults of
 * transformers' SiglipConfig and Siglip2Config. The special token ids of the file are ignored: in released checkpoints they
 * are stale, the tokenizer knows the real ones.
 *
 * @param where names the file in errors
 * @throws SiglipError as {@link readConfig}
 */
export function parseConfig(
  json: unknown,
  where: string,
  preprocessor?: { readonly json: unknown; readonly where: string },
): Siglip2Config {
  if (!isJsonObject(json))
    throw new SiglipError('ERR_SIGLIP_CONFIG', `${where}: expected a JSON object, got ${describe(json)}`, {
      details: { file: where },
    });
  const fields = new JsonFields(json, where);
  const architecture = parseArchitecture(fields, where);
  const vision = parseVision(fields.section('vision_config'), architecture);
  const text = parseText(fields.section('text_config'));
  const preprocessing = parsePreprocessing(preprocessor?.json, preprocessor?.where ?? where, architecture, vision);
  const preprocessorJson = preprocessor?.json as JsonObject | undefined;
  return {
    architecture,
    vision,
    text,
    preprocessing,
    json: { config: json, ...(preprocessorJson === undefined ? {} : { preprocessor: preprocessorJson }) },
  };
}

function parseArchitecture(fields: JsonFields, where: string): Architecture {
  const classes = fields.get('architectures');
  const name = fields.get('model_type') ?? (Array.isArray(classes) ? classes[0] : undefined);
  const architecture = typeof name === 'string' ? architectures.get(name) : undefined;
  if (architecture !== undefined) return architecture;
  throw new SiglipError(
    'ERR_SIGLIP_CONFIG',
    `${where}: model_type ${name === undefined ? 'is missing' : describe(name)}; supported are "siglip" (SiglipModel, ` +
      'fixed resolution) and "siglip2" (Siglip2Model, NaFlex)',
    { details: { file: where, field: 'model_type', supported: ['siglip', 'siglip2'] } },
  );
}

function parseVision(fields: JsonFields, architecture: Architecture): VisionConfig {
  const patchSize = fields.squareInteger('patch_size', 16, configLimits.patchSize);
  const numChannels = fields.integer('num_channels', 3, configLimits.hiddenSize);
  if (numChannels !== 3) throw fields.wrong('num_channels', '3 (pictures are RGB)', numChannels);
  const tower = {
    ...parseEncoder(fields),
    patchSize,
    numChannels,
    useHead: fields.boolean('vision_use_head', true),
  };
  if (architecture === 'naflex')
    return { ...tower, numPatches: fields.integer('num_patches', 256, configLimits.numPatches) };
  const imageSize = fields.squareInteger('image_size', 224, configLimits.imageSize);
  // At least one: whether the sizes fit each other is checkConfig's to say, once the tensors have been heard.
  return { ...tower, imageSize, numPatches: Math.max(1, Math.floor(imageSize / patchSize)) ** 2 };
}

function parseText(fields: JsonFields): TextConfig {
  const encoder = parseEncoder(fields);
  return {
    ...encoder,
    vocabSize: fields.integer('vocab_size', 32_000, configLimits.vocabSize),
    maxPositionEmbeddings: fields.integer('max_position_embeddings', 64, configLimits.maxPositionEmbeddings),
    projectionSize: fields.integer('projection_size', encoder.hiddenSize, configLimits.hiddenSize),
  };
}

function parseEncoder(fields: JsonFields) {
  const activation = fields.string('hidden_act', 'gelu_pytorch_tanh');
  if (!activationNames.includes(activation))
    throw fields.wrong('hidden_act', `"gelu_pytorch_tanh" (or ${activationNames.slice(1).join(', ')})`, activation);
  return {
    hiddenSize: fields.integer('hidden_size', 768, configLimits.hiddenSize),
    numHiddenLayers: fields.integer('num_hidden_layers', 12, configLimits.numHiddenLayers),
    numAttentionHeads: fields.integer('num_attention_heads', 12, configLimits.hiddenSize),
    intermediateSize: fields.integer('intermediate_size', 3072, configLimits.intermediateSize),
    layerNormEps: fields.positiveNumber('layer_norm_eps', 1e-6),
    hiddenAct: 'gelu_pytorch_tanh' as const,
  };
}

/**
 * Checks what relates several settings, and every bound again: heads divide the width, the two embeddings have one width,
 * preprocessing makes what the vision tower takes. A configuration made by hand is safe to build from after this.
 *
 * @throws SiglipError ERR_SIGLIP_CONFIG naming the setting
 */
export function checkConfig(config: Siglip2Config, where = 'the configuration'): void {
  const { vision, text, preprocessing, architecture } = config;
  const fail = (field: string, expected: string, value: unknown): never => {
    throw new SiglipError('ERR_SIGLIP_CONFIG', `${where}: ${field}: expected ${expected}, got ${describe(value)}`, {
      details: { file: where, field },
    });
  };
  const limits: Record<string, number> = {
    ...configLimits,
    numAttentionHeads: configLimits.hiddenSize,
    projectionSize: configLimits.hiddenSize,
  };
  if (vision.numChannels !== 3) fail('vision.numChannels', '3 (pictures are RGB)', vision.numChannels);
  for (const [name, tower] of Object.entries({ vision, text })) {
    for (const [key, value] of Object.entries(tower)) {
      const limit = limits[key];
      if (limit !== undefined && value !== undefined && !(Number.isInteger(value) && value >= 1 && value <= limit))
        fail(`${name}.${key}`, `an integer from 1 to ${limit}`, value);
    }
    const { hiddenSize, numAttentionHeads } = tower;
    if (hiddenSize % numAttentionHeads !== 0)
      fail(`${name}.numAttentionHeads`, `a divisor of hiddenSize (${hiddenSize})`, numAttentionHeads);
    if (hiddenSize / numAttentionHeads > configLimits.headDim)
      fail(
        `${name}.numAttentionHeads`,
        `heads of at most ${configLimits.headDim} values`,
        hiddenSize / numAttentionHeads,
      );
  }
  if (text.projectionSize !== vision.hiddenSize)
    fail(
      'text.projectionSize',
      `vision.hiddenSize (${vision.hiddenSize}): embeddings share a width`,
      text.projectionSize,
    );
  if (architecture === 'naflex') {
    if (!Number.isInteger(Math.sqrt(vision.numPatches)))
      fail('vision.numPatches', 'a square number (the position table is a square grid)', vision.numPatches);
    if (preprocessing.patchSize !== undefined && preprocessing.patchSize !== vision.patchSize)
      fail('preprocessing.patchSize', `vision.patchSize (${vision.patchSize})`, preprocessing.patchSize);
    return;
  }
  const { imageSize, patchSize, numPatches } = vision;
  if (imageSize === undefined || Math.floor(imageSize / patchSize) ** 2 !== numPatches)
    fail('vision.imageSize', `a size of ${numPatches} patches of ${patchSize} pixels`, imageSize);
  const { size } = preprocessing;
  const fits = (side: number): boolean => Math.floor(side / patchSize) ** 2 === numPatches;
  if (size === undefined || !fits(size.height) || !fits(size.width))
    fail(
      'preprocessing.size',
      `a size of ${numPatches} patches of ${patchSize} pixels, such as vision.imageSize (${imageSize})`,
      size && `${size.height}x${size.width}`,
    );
}
