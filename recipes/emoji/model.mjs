// The folder that a training starts from: the model's shape and its tokenizer.
import { existsSync } from 'node:fs';
import path from 'node:path';
import { readMade, writeWhole, writeWholeFolder } from './data/cache.mjs';
import { learnTokenizer } from './tokenizer.mjs';

/** Longest text in tokens, the end token included: 99 of 100 names in the trained languages are shorter. */
const context = 20;
const vocabularySize = 16_384;
const width = 192;

/** The model as Hugging Face's Siglip2Model reads it; what is not said has that class's default. */
export const modelConfig = {
  architectures: ['Siglip2Model'],
  model_type: 'siglip2',
  text_config: {
    model_type: 'siglip2_text_model',
    hidden_size: width,
    intermediate_size: 4 * width,
    num_attention_heads: 3,
    num_hidden_layers: 2,
    max_position_embeddings: context,
    projection_size: width,
    vocab_size: vocabularySize,
    bos_token_id: 2,
    eos_token_id: 1,
    pad_token_id: 0,
  },
  vision_config: {
    model_type: 'siglip2_vision_model',
    hidden_size: width,
    intermediate_size: 4 * width,
    num_attention_heads: 3,
    num_hidden_layers: 6,
    num_patches: 64,
    patch_size: 8,
  },
};

/** What Hugging Face's processor does with a picture; `max_num_patches` is the resolution of training. */
const preprocessorConfig = {
  image_processor_type: 'Siglip2ImageProcessor',
  processor_class: 'Siglip2Processor',
  do_convert_rgb: true,
  do_normalize: true,
  do_rescale: true,
  do_resize: true,
  image_mean: [0.5, 0.5, 0.5],
  image_std: [0.5, 0.5, 0.5],
  max_num_patches: modelConfig.vision_config.num_patches,
  patch_size: modelConfig.vision_config.patch_size,
  resample: 2,
  rescale_factor: 1 / 255,
};

/**
 * Makes the folder unless it is there: config.json, preprocessor_config.json, tokenizer.json and tokenizer_config.json.
 *
 * @param {string} cache where texts.json is
 * @param {string} folder
 */
export async function makeModelFolder(cache, folder) {
  if (existsSync(folder)) return;
  const texts = readMade(path.join(cache, 'texts.json'), 'texts');
  const { tokenizer, configuration } = learnTokenizer(trainedTexts(texts), { vocabularySize, context });
  const files = {
    'config.json': modelConfig,
    'preprocessor_config.json': preprocessorConfig,
    'tokenizer.json': tokenizer,
    'tokenizer_config.json': configuration,
  };
  await writeWholeFolder(folder, (partial) => {
    for (const [name, content] of Object.entries(files))
      writeWhole(path.join(partial, name), `${JSON.stringify(content, undefined, 1)}\n`);
  });
}

/** Names, twice because they are trained more, and the keywords that may be trained, of all trained languages. */
function* trainedTexts({ seen, languages, heldOut }) {
  for (const language of seen) {
    const never = new Set(heldOut[language]);
    for (const { name, keywords } of Object.values(languages[language])) {
      yield name;
      yield name;
      for (const keyword of keywords) if (!never.has(keyword)) yield keyword;
    }
  }
}
