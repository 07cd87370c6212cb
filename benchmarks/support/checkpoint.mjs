/** Full-size checkpoints with random weights, in Hugging Face layout. */
import { existsSync } from 'node:fs';
import path from 'node:path';
import { parseConfig } from '../../dist/esm/model/config.js';
import { parameterShapes } from '../../dist/esm/model/parameter-shapes.js';
import { writeCheckpoint } from '../../dist/esm/model/write-checkpoint.js';
import { cache } from './paths.mjs';
import { fillNormal, generator } from './random.mjs';

const tower = (hidden_size, intermediate_size, num_hidden_layers, num_attention_heads) => ({
  hidden_size,
  intermediate_size,
  num_hidden_layers,
  num_attention_heads,
});
const base = tower(768, 3072, 12, 12);
const large = tower(1024, 4096, 24, 16);
const so400m = tower(1152, 4304, 27, 16);
const vocabulary = 256_000;

const fixed = (size, patch_size, image_size, vocab_size = vocabulary) => ({
  type: 'siglip',
  vision: { ...size, patch_size, image_size },
  text: { ...size, vocab_size },
});
const naflex = (size) => ({
  type: 'siglip2',
  vision: { ...size, patch_size: 16, num_patches: 256 },
  text: { ...size, vocab_size: vocabulary },
});

/** The sizes that can be made, named as the released checkpoints are; `tiny` is for tests. */
export const sizes = {
  'base-patch16-256': fixed(base, 16, 256),
  'base-patch16-naflex': naflex(base),
  'large-patch16-256': fixed(large, 16, 256),
  'so400m-patch14-384': fixed(so400m, 14, 384),
  'so400m-patch16-naflex': naflex(so400m),
  // The packaged model.
  'siglip2-emoji': {
    type: 'siglip2',
    vision: { ...tower(192, 768, 6, 3), patch_size: 8, num_patches: 64 },
    text: { ...tower(192, 768, 2, 3), vocab_size: 16_384, max_position_embeddings: 20, projection_size: 192 },
  },
  tiny: fixed(tower(64, 96, 2, 2), 16, 64, 128),
};

function configOf(size, dtype) {
  const { type, vision, text } = sizes[size];
  return {
    architectures: [type === 'siglip' ? 'SiglipModel' : 'Siglip2Model'],
    dtype,
    model_type: type,
    text_config: { ...text, model_type: `${type}_text_model` },
    vision_config: { ...vision, model_type: `${type}_vision_model` },
  };
}

const chunkElements = 1 << 20;

/**
 * Writes a checkpoint. Every value is drawn: zeros and repeated weights are faster to compute with and to keep.
 * @param options `size` (see `sizes`), `dtype` float32 or bfloat16, `seed`, `towers` to write
 * @returns parameters and bytes of weights
 */
export async function makeCheckpoint(folder, { size, dtype = 'float32', seed = 1, towers = ['vision', 'text'] }) {
  const json = configOf(size, dtype);
  const config = parseConfig(json, `${size}: config.json`);
  const tensors = [...parameterShapes(config, towers)].map(([name, shape], index) => ({
    name,
    shape,
    dtype: dtype === 'float32' ? 'F32' : 'BF16',
    read: () => randomValues(shape, distribution(name, shape), seed * 65_536 + index, dtype),
  }));
  await writeCheckpoint(folder, { configJson: json, tensors });
  const parameters = tensors.reduce((sum, { shape }) => sum + shape.reduce((product, side) => product * side, 1), 0);
  return { parameters, bytes: parameters * (dtype === 'float32' ? 4 : 2) };
}

/** The folder of a size's checkpoint in the cache; made when it is missing. */
export async function cachedCheckpoint(size, towers = ['vision', 'text']) {
  const folder = path.join(cache, towers.length === 2 ? size : `${size}-${towers[0]}`);
  if (!existsSync(path.join(folder, 'model.safetensors'))) {
    process.stderr.write(`making ${folder}\n`);
    await makeCheckpoint(folder, { size, towers });
  }
  return folder;
}

/**
 * Mean and deviation of a parameter's values. Weights keep activations near unit size through every layer; the scale of
 * query and key is larger, so that attention is as peaked as in a trained model and not an average of all tokens, which
 * would make all images alike.
 */
function distribution(name, shape) {
  if (name === 'logit_scale') return [Math.log(100), 0.01];
  if (name === 'logit_bias') return [-12, 0.1];
  if (/norm\d?\.weight$/.test(name)) return [1, 0.1];
  if (name.endsWith('bias')) return [0, 0.02];
  if (/(token|position)_embedding\.weight$/.test(name)) return [0, 0.5];
  if (name.endsWith('probe')) return [0, 1];
  const inputs = shape.slice(1).reduce((product, side) => product * side, 1);
  return [0, (/(q_proj|k_proj|in_proj_weight)/.test(name) ? 1.5 : 1) / Math.sqrt(inputs)];
}

async function* randomValues(shape, [mean, deviation], seed, dtype) {
  const next = generator(seed);
  let left = shape.reduce((product, side) => product * side, 1);
  while (left > 0) {
    const values = new Float32Array(Math.min(left, chunkElements));
    fillNormal(values, next, mean, deviation);
    left -= values.length;
    yield dtype === 'float32' ? new Uint8Array(values.buffer) : bfloat16(values);
  }
}

/** Rounds to the nearest bfloat16, ties to even. */
function bfloat16(values) {
  const bits = new Uint32Array(values.buffer);
  const rounded = new Uint16Array(bits.length);
  for (let i = 0; i < bits.length; i++) rounded[i] = (bits[i] + 0x7fff + ((bits[i] >>> 16) & 1)) >>> 16;
  return new Uint8Array(rounded.buffer);
}
