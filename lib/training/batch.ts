/** From what a user calls a batch to what the native core takes. */
import { wrongType } from '../arguments.js';
import { SiglipError } from '../errors.js';
import { checkPositivePairs, type PositivePairs } from '../kernels/positive-pairs.js';
import type { Siglip2Config } from '../model/config.js';
import { checkTextInput, packVisionInput, type VisionForwardInput } from '../model/forward.js';
import type { NativeTrainingBatch, NativeVisionInput } from '../native.js';
import { decodeImages, type ImageInput } from '../processing/decode.js';
import { nativeImages, resolveMaxPatches } from '../processing/prepare.js';
import type { Tokenizer } from '../processing/tokenizer.js';

/** Images that have been made model input already, as `Siglip2.vision.forward` takes them. */
export type PreparedImages = VisionForwardInput;

/** Texts that have been tokenised already: ids [n, length]. */
export interface PreparedTexts {
  inputIds: Int32Array;
  shape: [n: number, length: number];
}

/** Pictures and what they show. */
export interface TrainingBatch {
  images: ImageInput[] | PreparedImages;
  texts: string[] | PreparedTexts;
  /**
   * Which texts belong to which images; then there may be more texts than images, or fewer. When omitted the n-th text
   * belongs to the n-th image.
   */
  positives?: PositivePairs;
  /** NaFlex only: most patches an image may have; default 256. */
  maxPatches?: number;
}

/** A checked batch, and how many images it has. */
export interface PreparedBatch extends NativeTrainingBatch {
  examples: number;
}

/**
 * Decodes and tokenises a batch.
 * @throws SiglipError ERR_SIGLIP_SHAPE when images and texts differ in number without lists of positives, there are
 *   none, or the lists do not fit them; ERR_SIGLIP_IMAGE for a picture that cannot be read, naming it
 */
export async function prepareBatch(
  config: Siglip2Config,
  batch: TrainingBatch,
  tokenizer: () => Promise<Tokenizer>,
  signal: AbortSignal | undefined,
): Promise<PreparedBatch> {
  if (typeof batch !== 'object' || batch === null) throw wrongType('batch', '{ images, texts }', batch);
  const { images, texts } = batch;
  const maxPatches = resolveMaxPatches('batch.maxPatches', config, batch.maxPatches);
  const imageCount = countImages(images);
  const textCount = countTexts(texts);
  const listed = batch.positives !== undefined;
  if (imageCount !== textCount && !listed)
    throw new SiglipError(
      'ERR_SIGLIP_SHAPE',
      `batch: expected as many texts as images, got ${imageCount} images and ${textCount} texts`,
      { details: { images: imageCount, texts: textCount } },
    );
  if (imageCount === 0)
    throw new SiglipError('ERR_SIGLIP_SHAPE', 'batch: expected at least one image and its text, got none');
  if (textCount === 0) throw new SiglipError('ERR_SIGLIP_SHAPE', 'batch: expected at least one text, got none');
  const positives = listed ? checkPositivePairs('batch.positives', batch.positives, imageCount, textCount) : undefined;
  const [vision, text] = await Promise.all([
    visionInput(config, images, maxPatches, signal),
    textInput(config, texts, tokenizer),
  ]);
  return { images: vision, ...text, positives, examples: imageCount };
}

function countImages(images: unknown): number {
  if (Array.isArray(images)) return images.length;
  if (typeof images !== 'object' || images === null || !('shape' in images) || !Array.isArray(images.shape))
    throw wrongType('batch.images', 'an array of images, or prepared images', images);
  return images.shape[0] as number;
}

function countTexts(texts: unknown): number {
  if (Array.isArray(texts)) return texts.length;
  if (typeof texts !== 'object' || texts === null || !('shape' in texts) || !Array.isArray(texts.shape))
    throw wrongType('batch.texts', 'an array of strings, or prepared texts', texts);
  return texts.shape[0] as number;
}

async function visionInput(
  config: Siglip2Config,
  images: TrainingBatch['images'],
  maxPatches: number,
  signal: AbortSignal | undefined,
): Promise<NativeVisionInput> {
  if (!Array.isArray(images)) return packVisionInput(config, images).native;
  const decoded = await decodeImages(images, signal === undefined ? {} : { signal });
  return { kind: 'images', ...nativeImages(config, decoded, maxPatches) };
}

async function textInput(
  config: Siglip2Config,
  texts: TrainingBatch['texts'],
  tokenizer: () => Promise<Tokenizer>,
): Promise<{ inputIds: Int32Array; length: number }> {
  const { inputIds, shape } = Array.isArray(texts) ? (await tokenizer()).encode(texts) : texts;
  return { inputIds, length: checkTextInput(config, inputIds, shape) };
}
