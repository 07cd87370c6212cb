/** Configurations of the sizes that SigLIP 2 was released in. */
import { requireInteger, requireOneOf, requireOptions, wrongRange } from '../arguments.js';
import { parseConfig, type Siglip2Config } from './config.js';

/** Base, large, shape-optimised 400M, and giant. */
export type ModelSize = 'B' | 'L' | 'So400m' | 'g';

/** Options of {@link sizeConfig}. */
export interface SizeOptions {
  size: ModelSize;
  /** Side of a patch in pixels; default 16. */
  patchSize?: number;
  /** Side of the square pictures of a model of fixed resolution; `naflex` (default): any aspect ratio. */
  imageSize?: number | 'naflex';
  /** Default 256000, Gemma's. */
  vocabSize?: number;
}

interface Encoder {
  hidden_size: number;
  num_hidden_layers: number;
  num_attention_heads: number;
  intermediate_size: number;
}
const encoder = (width: number, layers: number, heads: number, intermediate: number): Encoder => ({
  hidden_size: width,
  num_hidden_layers: layers,
  num_attention_heads: heads,
  intermediate_size: intermediate,
});

const base = encoder(768, 12, 12, 3072);
const large = encoder(1024, 24, 16, 4096);
const shapeOptimised = encoder(1152, 27, 16, 4304);
/** Towers by size; the giant image tower goes with the text tower of So400m (arXiv 2502.14786, section 3). */
const towers: Record<ModelSize, { vision: Encoder; text: Encoder }> = {
  B: { vision: base, text: base },
  L: { vision: large, text: large },
  So400m: { vision: shapeOptimised, text: shapeOptimised },
  g: { vision: encoder(1536, 40, 16, 6144), text: shapeOptimised },
};

/**
 * The configuration of a SigLIP 2 model of a released size, for training one from fresh weights.
 * @throws TypeError, RangeError that name the option
 */
export function sizeConfig(options: SizeOptions): Siglip2Config {
  const checked = requireOptions('options', options, ['size', 'patchSize', 'imageSize', 'vocabSize']);
  const size = requireOneOf('options.size', checked.size, ['B', 'L', 'So400m', 'g']);
  const patchSize = requireInteger('options.patchSize', checked.patchSize ?? 16, 1, 1024);
  const vocabSize = requireInteger('options.vocabSize', checked.vocabSize ?? 256_000, 2);
  const { imageSize = 'naflex' } = checked;
  const { vision, text } = towers[size];
  const naflex = imageSize === 'naflex';
  if (!naflex && requireInteger('options.imageSize', imageSize, 1) < patchSize)
    throw wrongRange('options.imageSize', `at least one patch of ${patchSize} pixels`, imageSize);
  const json = {
    model_type: naflex ? 'siglip2' : 'siglip',
    architectures: [naflex ? 'Siglip2Model' : 'SiglipModel'],
    text_config: { ...text, vocab_size: vocabSize, max_position_embeddings: 64, projection_size: vision.hidden_size },
    vision_config: { ...vision, patch_size: patchSize, ...(naflex ? { num_patches: 256 } : { image_size: imageSize }) },
  };
  return parseConfig(json, `sizeConfig of ${size}`);
}
