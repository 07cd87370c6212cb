/** Evaluation of a model on pictures as they are stored: embeds what a metric needs and computes it. */
import { requireInteger, requireOptions, throwIfAborted, wrongType } from '../arguments.js';
import { SiglipError } from '../errors.js';
import { type Embeddings, joinEmbeddings } from '../model/embeddings.js';
import { checkTemplates, labelTexts } from '../model/prompts.js';
import type { Siglip2 } from '../model/siglip2.js';
import { decodeImage, type ImageInput, type RawImage } from '../processing/decode.js';
import { type Dataset, requireDataset } from './data/dataset.js';
import { type RetrievalMetrics, retrievalMetrics, type ZeroShotMetrics, zeroShotAccuracy } from './evaluation.js';

/** Options of {@link evaluateRetrieval} and {@link evaluateZeroShot}. */
export interface EvaluationOptions {
  /** NaFlex only: most patches a picture may have; default 256. */
  maxPatches?: number;
  /** Pictures that are decoded and embedded together; default 16. Results do not depend on it. */
  batchSize?: number;
  /** Only the first so many pictures; default all. */
  limit?: number;
  /** Largest accepted width × height of a picture; larger ones are skipped. */
  maxPixels?: number;
  signal?: AbortSignal;
  /** Called after every batch with the number of pictures that have been embedded. */
  onProgress?: (done: number) => void;
}

/** Pictures that could not be decoded. */
export interface SkippedPictures {
  skipped: number;
}

/** Pictures with classes. */
export interface LabelledImages {
  /** Names of the classes, as they are put in place of `{}` in templates. */
  classes: readonly string[];
  /** Pictures, and for each the number of its class. */
  images: Iterable<LabelledImage> | AsyncIterable<LabelledImage>;
}

export interface LabelledImage {
  image: ImageInput;
  label: number;
}

const optionNames = ['maxPatches', 'batchSize', 'limit', 'maxPixels', 'signal', 'onProgress'];

/**
 * Retrieval in both directions over one pass of a data set. Rows with the same picture file are one picture with
 * several texts, and so are the texts of one row. Pictures that cannot be decoded are left out with their texts.
 *
 * @param dataset opened with `epochs: 1`, or of any kind with `options.limit`
 * @throws SiglipError ERR_SIGLIP_DATA when no picture can be used, and for files that cannot be read
 */
export async function evaluateRetrieval(
  model: Siglip2,
  dataset: Dataset,
  options?: EvaluationOptions,
): Promise<RetrievalMetrics & SkippedPictures> {
  requireDataset('dataset', dataset);
  const settings = checkOptions(options);
  const pictures: { row: number }[] = [];
  const captions: { text: string; picture: { row: number } }[] = [];
  const files = new Map<string, { row: number }>();
  const broken = dataset.skipped.count;
  async function* read(): AsyncGenerator<{ image: string | Uint8Array; picture: { row: number } }> {
    for await (const { image, texts } of dataset.examples(signalOf(settings))) {
      let picture = typeof image === 'string' ? files.get(image) : undefined;
      if (picture === undefined) {
        if (pictures.length === settings.limit) return;
        picture = { row: -1 };
        pictures.push(picture);
        if (typeof image === 'string') files.set(image, picture);
        for (const text of texts) captions.push({ text, picture });
        yield { image, picture };
      } else {
        for (const text of texts) captions.push({ text, picture });
      }
    }
  }
  const images = await embedReadable(model, read(), settings, (item, row) => {
    item.picture.row = row;
  });
  const usable = captions.filter(({ picture }) => picture.row >= 0);
  const texts = await model.embedTexts(
    usable.map(({ text }) => text),
    signalOf(settings),
  );
  const textToImage = Int32Array.from(usable, ({ picture }) => picture.row);
  const undecoded = pictures.length - images.shape[0];
  const metrics = await retrievalMetrics(images, texts, textToImage);
  return { ...metrics, skipped: dataset.skipped.count - broken + undecoded };
}

/**
 * Zero-shot classification of pictures.
 *
 * @param options.template prompt with `{}` for the class, or several whose embeddings are averaged; default
 *   `This is a photo of {}.`
 * @throws SiglipError ERR_SIGLIP_DATA when no picture can be used
 */
export async function evaluateZeroShot(
  model: Siglip2,
  data: LabelledImages,
  options?: EvaluationOptions & { template?: string | string[] },
): Promise<ZeroShotMetrics & SkippedPictures> {
  if (typeof data !== 'object' || data === null || !Array.isArray(data.classes))
    throw wrongType('data', '{ classes, images }', data);
  const { template, ...rest } = requireOptions('options', options, [...optionNames, 'template']);
  const settings = checkOptions(rest);
  const templates = checkTemplates(template);
  const { classes } = data;
  let seen = 0;
  async function* read(): AsyncGenerator<LabelledImage> {
    for await (const labelled of data.images) {
      if (seen === settings.limit) return;
      seen++;
      yield labelled;
    }
  }
  const labels: number[] = [];
  const images = await embedReadable(model, read(), settings, ({ label }) => labels.push(label));
  const prompts = await model.embedTexts(labelTexts(classes, templates), signalOf(settings));
  const metrics = await zeroShotAccuracy(images, prompts, Int32Array.from(labels), {
    promptsPerClass: templates.length,
  });
  return { ...metrics, skipped: seen - images.shape[0] };
}

interface Settings extends EvaluationOptions {
  batchSize: number;
}

function checkOptions(options: EvaluationOptions | undefined): Settings {
  const checked = requireOptions('options', options, optionNames);
  if (checked.limit !== undefined) requireInteger('options.limit', checked.limit, 1);
  return { ...checked, batchSize: requireInteger('options.batchSize', checked.batchSize ?? 16, 1) };
}

function signalOf({ signal }: Settings): { signal?: AbortSignal } {
  return signal === undefined ? {} : { signal };
}

/**
 * Embeds pictures batch by batch while the next ones are decoded.
 * @param found called for each that could be decoded, with its row in the result
 */
async function embedReadable<T extends { image: ImageInput }>(
  model: Siglip2,
  items: AsyncIterable<T>,
  settings: Settings,
  found: (item: T, row: number) => void,
): Promise<Embeddings> {
  const { batchSize, maxPatches } = settings;
  const parts: Float32Array[] = [];
  let rows = 0;
  let firstReason: string | undefined;
  const embed = async (batch: Decoded<T>[]): Promise<void> => {
    const readable = batch.filter((entry) => entry.pixels !== undefined);
    firstReason ??= batch.find((entry) => entry.pixels === undefined)?.reason;
    const embeddings = await model.embedImages(
      readable.map(({ pixels }) => pixels as RawImage),
      { batchSize, ...(maxPatches === undefined ? {} : { maxPatches }), ...signalOf(settings) },
    );
    parts.push(embeddings.data);
    for (const { item } of readable) found(item, rows++);
    settings.onProgress?.(rows);
  };
  let waiting: Promise<Decoded<T>[]> | undefined;
  for await (const batch of batchesOf(items, batchSize)) {
    throwIfAborted(settings.signal);
    const decoding = Promise.all(batch.map((item) => decode(item, settings)));
    // Its failure is reported when it is awaited; until then it must not count as unhandled.
    decoding.catch(() => {});
    if (waiting !== undefined) await embed(await waiting);
    waiting = decoding;
  }
  if (waiting !== undefined) await embed(await waiting);
  if (rows === 0)
    throw new SiglipError(
      'ERR_SIGLIP_DATA',
      `the evaluation found no picture that can be used${firstReason === undefined ? '' : `; the first says: ${firstReason}`}`,
    );
  return joinEmbeddings(parts, model.config.vision.hiddenSize);
}

interface Decoded<T> {
  item: T;
  pixels?: RawImage;
  reason?: string;
}

async function decode<T extends { image: ImageInput }>(item: T, settings: Settings): Promise<Decoded<T>> {
  const { maxPixels } = settings;
  try {
    const pixels = await decodeImage(item.image, {
      ...(maxPixels === undefined ? {} : { maxPixels }),
      ...signalOf(settings),
    });
    return { item, pixels };
  } catch (error) {
    if (error instanceof SiglipError && error.code === 'ERR_SIGLIP_IMAGE') return { item, reason: error.message };
    throw error;
  }
}

async function* batchesOf<T>(items: AsyncIterable<T>, size: number): AsyncGenerator<T[]> {
  let batch: T[] = [];
  for await (const item of items) {
    batch.push(item);
    if (batch.length === size) {
      yield batch;
      batch = [];
    }
  }
  if (batch.length > 0) yield batch;
}
