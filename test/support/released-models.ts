/** The configurations and exact parameter counts of the 17 released models. */
import type { JsonObject } from '../../lib/model/json.js';

export interface ReleasedModel {
  name: string;
  config: JsonObject;
  visionParameters: number;
  textParameters: number;
  numPatches: number;
}

const base = {};
const large = { hidden_size: 1024, intermediate_size: 4096, num_hidden_layers: 24, num_attention_heads: 16 };
const so400m = { hidden_size: 1152, intermediate_size: 4304, num_hidden_layers: 27, num_attention_heads: 16 };
const giant = { hidden_size: 1536, intermediate_size: 6144, num_hidden_layers: 40, num_attention_heads: 16 };
const baseText = 282_303_744;
const largeText = 565_570_560;
const so400mText = 707_782_896;
const giantText = 708_225_648;

function fixed(
  name: string,
  vision: JsonObject,
  patch: number,
  image: number,
  visionParameters: number,
  textParameters: number,
): ReleasedModel {
  const text = vision === giant ? { ...so400m, projection_size: 1536 } : vision;
  return {
    name: `${name}-patch${patch}-${image}`,
    config: {
      model_type: 'siglip',
      text_config: { ...text, vocab_size: 256000 },
      vision_config: { ...vision, patch_size: patch, image_size: image },
    },
    visionParameters,
    textParameters,
    numPatches: Math.floor(image / patch) ** 2,
  };
}

function naflex(name: string, tower: JsonObject, visionParameters: number, textParameters: number): ReleasedModel {
  return {
    name: `${name}-patch16-naflex`,
    config: { model_type: 'siglip2', text_config: { ...tower, vocab_size: 256000 }, vision_config: tower },
    visionParameters,
    textParameters,
    numPatches: 256,
  };
}

export const releasedModels: ReleasedModel[] = [
  fixed('base', base, 32, 256, 94_552_320, baseText),
  fixed('base', base, 16, 224, 92_884_224, baseText),
  fixed('base', base, 16, 256, 92_930_304, baseText),
  fixed('base', base, 16, 384, 93_176_064, baseText),
  fixed('base', base, 16, 512, 93_520_128, baseText),
  fixed('large', large, 16, 256, 315_956_224, largeText),
  fixed('large', large, 16, 384, 316_283_904, largeText),
  fixed('large', large, 16, 512, 316_742_656, largeText),
  fixed('so400m', so400m, 14, 224, 427_680_704, so400mText),
  fixed('so400m', so400m, 14, 384, 428_225_600, so400mText),
  fixed('so400m', so400m, 16, 256, 427_888_064, so400mText),
  fixed('so400m', so400m, 16, 384, 428_256_704, so400mText),
  fixed('so400m', so400m, 16, 512, 428_772_800, so400mText),
  fixed('giant-opt', giant, 16, 256, 1_163_168_256, giantText),
  fixed('giant-opt', giant, 16, 384, 1_163_659_776, giantText),
  naflex('base', base, 92_930_304, baseText),
  naflex('so400m', so400m, 427_888_064, so400mText),
];
