/**
 * How good embeddings are: recall of retrieval in both directions, and accuracy of zero-shot classification, as the
 * SigLIP papers report them (google-research/big_vision, evaluators/proj/image_text).
 *
 * Scores are cosines, computed in blocks of whole rows, so that memory grows with the number of pictures or texts and
 * not with their product. Ties count against the model: one that embeds everything alike retrieves nothing.
 */
import { types } from 'node:util';
import { describe, requireInteger, requireOptions, wrongRange, wrongType } from '../arguments.js';
import { SiglipError } from '../errors.js';
import { linear } from '../kernels/layers.js';
import { Tensor } from '../kernels/tensor.js';
import { type Embeddings, joinEmbeddings, requireEmbeddings } from '../model/embeddings.js';
import { averageGroups } from '../model/prompts.js';

/** A share from 0 to 1 for each k that was asked for. */
export type AtRank = Readonly<Record<number, number>>;

/** Result of {@link retrievalMetrics}. */
export interface RetrievalMetrics {
  images: number;
  texts: number;
  /** R@k: share of the pictures with captions for which at least one of them is among the k best texts. */
  imageToText: AtRank;
  /** R@k: share of the texts whose picture is among the k best. */
  textToImage: AtRank;
}

/** Result of {@link zeroShotAccuracy}. */
export interface ZeroShotMetrics {
  images: number;
  classes: number;
  /** Share of the pictures whose class is among the k best. */
  accuracy: AtRank;
}

/** Options of {@link zeroShotAccuracy}. */
export interface ZeroShotOptions {
  /** Prompts of each class; default 1. */
  promptsPerClass?: number;
  /** Default 1 and 5. */
  ks?: readonly number[];
}

/**
 * Recall of retrieval in both directions. A picture may have several texts; one without any only distracts.
 *
 * @param images [images, dim], of any length
 * @param texts [texts, dim], of any length
 * @param textToImage for each text the row of its picture
 * @param ks ranks to report; default 1, 5 and 10
 * @throws TypeError, RangeError for wrong arguments; SiglipError ERR_SIGLIP_SHAPE when they do not fit each other
 */
export async function retrievalMetrics(
  images: Embeddings,
  texts: Embeddings,
  textToImage: Int32Array,
  ks: readonly number[] = [1, 5, 10],
): Promise<RetrievalMetrics> {
  const pictures = requireRows('images', images);
  const captions = requireRows('texts', texts, pictures.shape[1]);
  checkIndices('textToImage', textToImage, 'text', captions.shape[0], 'picture', pictures.shape[0]);
  checkRanks('ks', ks);
  const [imageRows, textRows] = [normalized(pictures), normalized(captions)];
  const forward = groupRows(textToImage, pictures.shape[0]);
  const toImage = await countAhead(textRows, imageRows, single(textToImage));
  const toText = await countAhead(imageRows, textRows, forward);
  const described = toText.filter((_, image) => forward.offsets[image + 1] !== forward.offsets[image]);
  return {
    images: pictures.shape[0],
    texts: captions.shape[0],
    imageToText: shareWithin(described, ks),
    textToImage: shareWithin(toImage, ks),
  };
}

/**
 * Accuracy of zero-shot classification. Embeddings of prompts are normalised, averaged for each class, and normalised
 * again; the class with the highest cosine is the prediction.
 *
 * @param images [images, dim], of any length
 * @param prompts [classes · promptsPerClass, dim]: all prompts of the first class, then those of the second, …
 * @param labels for each picture its class
 * @throws TypeError, RangeError for wrong arguments; SiglipError ERR_SIGLIP_SHAPE when they do not fit each other
 */
export async function zeroShotAccuracy(
  images: Embeddings,
  prompts: Embeddings,
  labels: Int32Array,
  options?: ZeroShotOptions,
): Promise<ZeroShotMetrics> {
  const { promptsPerClass = 1, ks = [1, 5] } = requireOptions('options', options, ['promptsPerClass', 'ks']);
  const pictures = requireRows('images', images);
  const texts = requireRows('prompts', prompts, pictures.shape[1]);
  requireInteger('options.promptsPerClass', promptsPerClass, 1);
  checkRanks('options.ks', ks);
  if (texts.shape[0] % promptsPerClass !== 0)
    throw misfit(`prompts: expected a multiple of ${promptsPerClass} rows, got ${texts.shape[0]}`);
  const classes = texts.shape[0] / promptsPerClass;
  checkIndices('labels', labels, 'picture', pictures.shape[0], 'class', classes);
  const classRows = normalized(averageGroups(normalized(texts), promptsPerClass));
  const ahead = await countAhead(normalized(pictures), classRows, single(labels));
  return { images: pictures.shape[0], classes, accuracy: shareWithin(ahead, ks) };
}

function misfit(message: string): SiglipError {
  return new SiglipError('ERR_SIGLIP_SHAPE', message);
}

function requireRows(argument: string, value: unknown, width?: number): Embeddings {
  const embeddings = requireEmbeddings(argument, value);
  const [rows, dim] = embeddings.shape;
  if (rows === 0) throw misfit(`${argument}: expected at least one embedding, got none`);
  if (width !== undefined && dim !== width)
    throw misfit(`${argument}: expected embeddings of width ${width}, as the images', got ${dim}`);
  return embeddings;
}

/** `indices` has one entry a `row`, each the number of a `target`. */
function checkIndices(
  argument: string,
  indices: unknown,
  row: string,
  rows: number,
  target: string,
  targets: number,
): void {
  if (!types.isInt32Array(indices)) throw wrongType(argument, 'an Int32Array', indices);
  if (indices.length !== rows) throw misfit(`${argument}: expected one entry a ${row}, ${rows}, got ${indices.length}`);
  const wrong = indices.findIndex((index) => index < 0 || index >= targets);
  if (wrong >= 0) throw wrongRange(`${argument}[${wrong}]`, `a ${target} from 0 to ${targets - 1}`, indices[wrong]);
}

function checkRanks(argument: string, ks: unknown): void {
  if (!Array.isArray(ks)) throw wrongType(argument, 'an array of ranks', ks);
  if (ks.length === 0) throw wrongRange(argument, 'at least one rank', describe(ks));
  ks.forEach((k, index) => {
    requireInteger(`${argument}[${index}]`, k, 1);
  });
}

/** Rows scaled to unit length; one of zeros stays as it is. */
function normalized({ data, shape }: Embeddings): Embeddings {
  const [rows, dim] = shape;
  const scaled = new Float32Array(data.length);
  for (let row = 0; row < rows; row++) {
    let squares = 0;
    for (let i = row * dim; i < (row + 1) * dim; i++) squares += (data[i] as number) ** 2;
    const scale = squares === 0 ? 0 : 1 / Math.sqrt(squares);
    for (let i = row * dim; i < (row + 1) * dim; i++) scaled[i] = (data[i] as number) * scale;
  }
  return joinEmbeddings([scaled], dim);
}

/** For each query its own candidates: `indices` from `offsets[query]` to `offsets[query + 1]`. */
interface Groups {
  offsets: Int32Array;
  indices: Int32Array;
}

function single(indices: Int32Array): Groups {
  return { offsets: Int32Array.from({ length: indices.length + 1 }, (_, i) => i), indices };
}

/** The members of each group, from the group of each member. */
function groupRows(groupOf: Int32Array, groups: number): Groups {
  const offsets = new Int32Array(groups + 1);
  for (const group of groupOf) offsets[group + 1]!++;
  for (let group = 0; group < groups; group++) offsets[group + 1]! += offsets[group] as number;
  const next = offsets.slice(0, groups);
  const indices = new Int32Array(groupOf.length);
  groupOf.forEach((group, member) => {
    indices[next[group]!++] = member;
  });
  return { offsets, indices };
}

/** Scores of a block: 32 MiB. */
const blockElements = 1 << 23;

/**
 * For each query, how many candidates that are not its own score at least as high as the best of its own. NaN counts as
 * high, so that broken embeddings never look good.
 */
async function countAhead(queries: Embeddings, candidates: Embeddings, own: Groups): Promise<Int32Array> {
  const [rows, dim] = queries.shape;
  const columns = candidates.shape[0];
  const counts = new Int32Array(rows);
  using weight = Tensor.from(candidates.data, [columns, dim]);
  const blockRows = Math.max(1, Math.floor(blockElements / columns));
  for (let first = 0; first < rows; first += blockRows) {
    const count = Math.min(blockRows, rows - first);
    using input = Tensor.from(queries.data.subarray(first * dim, (first + count) * dim), [count, dim]);
    using output = (await linear({ input, weight })).output;
    const scores = await output.read();
    for (let row = 0; row < count; row++) {
      const members = own.indices.subarray(own.offsets[first + row], own.offsets[first + row + 1]);
      counts[first + row] = countRow(scores.subarray(row * columns, (row + 1) * columns), members);
    }
  }
  return counts;
}

function countRow(scores: Float32Array, own: Int32Array): number {
  let best = Number.NEGATIVE_INFINITY;
  for (const member of own) best = Math.max(best, scores[member] as number);
  let ahead = 0;
  for (let i = 0; i < scores.length; i++) if (!((scores[i] as number) < best)) ahead++;
  for (const member of own) if (!((scores[member] as number) < best)) ahead--;
  return ahead;
}

function shareWithin(ahead: Int32Array, ks: readonly number[]): AtRank {
  return Object.fromEntries(
    ks.map((k) => [k, ahead.reduce((hits, count) => hits + (count < k ? 1 : 0), 0) / ahead.length]),
  );
}
