/**
 * SigLIP 2 vision-language encoders: image and text embeddings, zero-shot classification, dense features.
 * @module siglip2
 */
export type { Device, DType } from './device.js';
export { SiglipError, type SiglipErrorCode } from './errors.js';
export { type DownloadProgress, downloadCheckpoint, type RetryOptions } from './hub/index.js';
export { type Inspection, inspect } from './inspect.js';
export type { Architecture, Siglip2Config, TextConfig, VisionConfig } from './model/config.js';
export { defaultModel } from './model/default-model.js';
export type { Embeddings } from './model/embeddings.js';
export type { ForwardOptions, ForwardOutput, TensorData, VisionForwardInput } from './model/forward.js';
export type { LoadOptions } from './model/load.js';
export type { SaveOptions } from './model/save.js';
export {
  type Classification,
  type ClassifyOptions,
  type DenseFeaturesOptions,
  type EmbedImagesOptions,
  type EmbedTextsOptions,
  Siglip2,
} from './model/siglip2.js';
export { type ModelSize, type SizeOptions, sizeConfig } from './model/sizes.js';
export type { DecodeLimits, ImageInput, RawImage } from './processing/decode.js';
export { type PatchInput, type PixelInput, type PreprocessOptions, preprocessImages } from './processing/prepare.js';
export { type EncodedTexts, Tokenizer } from './processing/tokenizer.js';
