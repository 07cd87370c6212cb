/** Batches of decoded pictures with captions, prepared ahead of their use. */
import { availableParallelism } from 'node:os';
import { requireInteger, requireOptions, throwIfAborted, wrongRange, wrongType } from '../../arguments.js';
import { SiglipError } from '../../errors.js';
import type { PositivePairs } from '../../kernels/positive-pairs.js';
import { defaultMaxPixels, type RawImage } from '../../processing/decode.js';
import type { AugmentOptions } from './augment.js';
import { type Dataset, requireDataset } from './dataset.js';
import { drawCaptions, type Example, type Place, type Skip } from './example.js';
import { PictureReader } from './pictures.js';
import type { DatasetPosition } from './position.js';
import { gatherTexts } from './positives.js';
import { purposes, RandomStream } from './random.js';
import type { Cursor, SequenceEvent } from './sequence.js';
import { SkipTally } from './tally.js';

/** How the batches of a NaFlex model differ in resolution. */
export interface NaflexBatchOptions {
  /** Patches of a picture at most, one of these for each batch, all equally likely; default 128, 256, 576, 784, 1024. */
  sequenceLengths?: readonly number[];
  /** Patches of a batch at most: as many pictures as fit. Without it every batch has `batchSize` pictures. */
  tokenBudget?: number;
}

/** Options of {@link batches}. */
export interface BatchOptions {
  /** Pictures of a batch; left out with a token budget. */
  batchSize?: number;
  /** For NaFlex models; `{}` takes the defaults. */
  naflex?: NaflexBatchOptions;
  /**
   * Captions that are drawn for each picture. With this option, also with 1, every text is in a batch once, and it
   * belongs to all pictures that have it among their captions: see {@link Batch.positives}.
   */
  textsPerImage?: number;
  /** Random changes of the pictures. Transparent ones keep their transparency until they are drawn on a background. */
  augment?: AugmentOptions;
  /** Memory for decoded pictures, in bytes, so that a small data set is decoded once; with `augment` only. Default 0. */
  cacheBytes?: number;
  /** Pictures that are decoded at the same time; default 4, or the processors there are if fewer. */
  decodeConcurrency?: number;
  /** Complete batches that wait for their use, at most; default 1. */
  prefetch?: number;
  /** Largest accepted width × height of a picture; larger ones are skipped. Default 178 956 970. */
  maxPixels?: number;
  /** Ends the iteration with `ERR_SIGLIP_ABORTED` when it fires. */
  signal?: AbortSignal;
}

/** Pictures and captions of one training step. */
export interface Batch {
  images: RawImage[];
  /** The caption of each picture; with `textsPerImage` the different captions of all. */
  texts: string[];
  /** With `textsPerImage`: the texts that belong to each picture. */
  positives?: PositivePairs;
  /** {@link Example.key} of each. */
  keys: string[];
  /** For NaFlex models: patches of a picture at most. */
  maxPatches?: number;
  /** The place after this batch, to be stored with what was learnt from it. */
  position: DatasetPosition;
}

/** Sequence lengths of the NaFlex models' training. */
export const defaultSequenceLengths: readonly number[] = [128, 256, 576, 784, 1024];

const optionNames = [
  'batchSize',
  'naflex',
  'textsPerImage',
  'augment',
  'cacheBytes',
  'decodeConcurrency',
  'prefetch',
  'maxPixels',
  'signal',
];

interface Settings {
  /** Pictures of a batch of this sequence length, or of any. */
  batchSize: (sequenceLength: number | undefined) => number;
  sequenceLengths: readonly number[] | undefined;
  textsPerImage: number | undefined;
  augment: AugmentOptions | undefined;
  cacheBytes: number;
  decodeConcurrency: number;
  prefetch: number;
  maxPixels: number;
  signal: AbortSignal | undefined;
}

/**
 * Batches from the present place of a data set on. All have their full size, across the borders of epochs; only the
 * last one of a data set with an end may be smaller. Pictures that cannot be decoded are skipped. The next batches are
 * read and decoded while the caller works on one; a batch counts as delivered, for {@link Dataset.position} and
 * {@link Dataset.skipped}, when the caller gets it.
 *
 * @throws TypeError, RangeError for a mistake in the arguments, at once
 * @throws SiglipError `ERR_SIGLIP_DATA` when a file cannot be read any more or nothing in an epoch can be used,
 *   `ERR_SIGLIP_UNSUPPORTED` when the decoder is not installed, `ERR_SIGLIP_ABORTED`
 */
export function batches(dataset: Dataset, options: BatchOptions): AsyncGenerator<Batch, void, undefined> {
  requireDataset('dataset', dataset);
  const settings = checkOptions(requireOptions('options', options, optionNames));
  return iterate(dataset, settings, new PictureReader('options', dataset.seed, settings));
}

function checkOptions(options: BatchOptions): Settings {
  const { naflex, textsPerImage, augment, cacheBytes = 0, signal } = options;
  if (signal !== undefined && !(signal instanceof AbortSignal))
    throw wrongType('options.signal', 'an AbortSignal', signal);
  return {
    ...checkSizes(options.batchSize, naflex),
    textsPerImage: textsPerImage === undefined ? undefined : requireInteger('options.textsPerImage', textsPerImage, 1),
    augment,
    cacheBytes: requireInteger('options.cacheBytes', cacheBytes, 0),
    decodeConcurrency: requireInteger(
      'options.decodeConcurrency',
      options.decodeConcurrency ?? Math.min(4, availableParallelism()),
      1,
    ),
    prefetch: requireInteger('options.prefetch', options.prefetch ?? 1, 0),
    maxPixels: requireInteger('options.maxPixels', options.maxPixels ?? defaultMaxPixels, 1),
    signal,
  };
}

function checkSizes(
  batchSize: number | undefined,
  naflex: NaflexBatchOptions | undefined,
): Pick<Settings, 'batchSize' | 'sequenceLengths'> {
  const { sequenceLengths = defaultSequenceLengths, tokenBudget } = requireOptions('options.naflex', naflex, [
    'sequenceLengths',
    'tokenBudget',
  ]);
  if (!Array.isArray(sequenceLengths)) throw wrongType('options.naflex.sequenceLengths', 'an array', sequenceLengths);
  if (sequenceLengths.length === 0)
    throw wrongRange('options.naflex.sequenceLengths', 'at least one length', sequenceLengths);
  sequenceLengths.forEach((length, i) => {
    requireInteger(`options.naflex.sequenceLengths[${i}]`, length, 1);
  });
  const lengths = naflex === undefined ? undefined : [...(sequenceLengths as readonly number[])];
  if (tokenBudget === undefined) {
    const size = requireInteger('options.batchSize', batchSize, 1);
    return { batchSize: () => size, sequenceLengths: lengths };
  }
  if (batchSize !== undefined) throw wrongRange('options.batchSize', 'no size with a token budget', batchSize);
  const longest = sequenceLengths.reduce((a, b) => Math.max(a, b), 0);
  requireInteger('options.naflex.tokenBudget', tokenBudget, longest);
  return { batchSize: (length) => Math.floor(tokenBudget / length!), sequenceLengths: lengths };
}

/** A batch that is ready, and what its delivery changes. */
interface Prepared {
  batch: Omit<Batch, 'position'>;
  cursor: () => Cursor;
  skips: readonly Skip[];
}

async function* iterate(
  dataset: Dataset,
  settings: Settings,
  reader: PictureReader,
): AsyncGenerator<Batch, void, undefined> {
  const { signal, prefetch } = settings;
  throwIfAborted(signal);
  const stopped = new AbortController();
  const events = dataset.read();
  const assembler = new Assembler(dataset, events, reader, {
    ...settings,
    signal: signal === undefined ? stopped.signal : AbortSignal.any([signal, stopped.signal]),
  });
  // Each is begun when the one before it is complete; the first of the queue is the one that is delivered next.
  const queue: Promise<Prepared>[] = [];
  let last: Promise<unknown> = Promise.resolve();
  const prepare = (): void => {
    const next = last.then(() => assembler.next());
    // Reported when its turn comes; until then it must not count as unhandled.
    next.catch(() => {});
    queue.push(next);
    last = next;
  };
  try {
    for (;;) {
      while (queue.length < prefetch + 1) prepare();
      const { batch, cursor, skips } = await queue.shift()!;
      throwIfAborted(signal);
      const delivers = batch.images.length > 0;
      // After the end of the data only what was skipped there is left to be counted.
      dataset.deliver(cursor, skips, delivers ? 1 : 0);
      if (!delivers) return;
      yield { ...batch, position: dataset.position() };
    }
  } finally {
    stopped.abort();
    await last.catch(() => {});
    await assembler.stop();
    await events.return(undefined);
  }
}

type Decoded = { image: RawImage } | { skip: Skip };

/** An example, and what tells it from all others. */
type Drawn = { example: Example; place: Place };

/** What waits for its turn: something of the sequence, with its picture being decoded, or why the sequence broke off. */
type Awaited = { event: SequenceEvent; decoded?: Promise<Decoded> } | { failure: unknown };

/** Puts decoded pictures together to batches, in the order of the sequence. */
class Assembler {
  /** Events whose turn has not come. Some room beyond the decoders keeps them busy while a large picture takes long. */
  private readonly window: Awaited[] = [];
  private readonly tally = new SkipTally();
  private readonly decoders: Limiter;
  private batchNumber: number;
  private ended = false;
  private cursor: () => Cursor;
  private readonly seed: number;

  constructor(
    dataset: Dataset,
    private readonly events: AsyncGenerator<SequenceEvent>,
    private readonly reader: PictureReader,
    private readonly settings: Settings & { signal: AbortSignal },
  ) {
    this.cursor = dataset.cursor;
    this.seed = dataset.seed;
    this.batchNumber = dataset.batchesDelivered;
    this.decoders = new Limiter(settings.decodeConcurrency);
  }

  /** The next batch; one without pictures after the end. */
  async next(): Promise<Prepared> {
    const maxPatches = this.sequenceLength();
    const size = this.settings.batchSize(maxPatches);
    const images: RawImage[] = [];
    const examples: Drawn[] = [];
    while (images.length < size) {
      await this.fillWindow();
      const next = this.window.shift();
      if (next === undefined) break;
      await this.add(next, images, examples);
    }
    this.batchNumber++;
    const keys = examples.map(({ example }) => example.key);
    const batch = { images, ...this.texts(examples), keys, ...(maxPatches ? { maxPatches } : {}) };
    return { batch, cursor: this.cursor, skips: this.tally.take() };
  }

  private texts(examples: readonly Drawn[]): Pick<Batch, 'texts' | 'positives'> {
    const { textsPerImage } = this.settings;
    if (textsPerImage === undefined) return { texts: examples.map(({ example }) => example.text) };
    return gatherTexts(
      examples.map(({ example, place }) => drawCaptions(example, this.seed, place, textsPerImage)),
      examples.map(({ example }) => example.texts),
    );
  }

  private sequenceLength(): number | undefined {
    const { sequenceLengths } = this.settings;
    if (sequenceLengths === undefined) return undefined;
    const random = new RandomStream(this.seed, purposes.sequenceLength, this.batchNumber);
    return sequenceLengths[random.below(sequenceLengths.length)];
  }

  private async fillWindow(): Promise<void> {
    const { decodeConcurrency, signal } = this.settings;
    while (!this.ended && this.window.length < 2 * decodeConcurrency) {
      throwIfAborted(signal);
      await this.events.next().then(
        ({ value, done }) => {
          if (done) this.ended = true;
          else this.window.push(this.begin(value));
        },
        (failure: unknown) => {
          this.ended = true;
          this.window.push({ failure });
        },
      );
    }
  }

  /** Starts decoding the picture of an example. */
  private begin(event: SequenceEvent): Awaited {
    if (event.kind !== 'example') return { event };
    const decoded = this.decoders.run(() => this.decode(event));
    // As above: reported in its turn.
    decoded.catch(() => {});
    return { event, decoded };
  }

  private async add(next: Awaited, images: RawImage[], examples: Drawn[]): Promise<void> {
    if ('failure' in next) throw next.failure;
    const { event, decoded } = next;
    if (event.kind !== 'example') {
      this.tally.count(event);
      if (event.kind === 'epoch') this.cursor = event.cursor;
      return;
    }
    const result = (await decoded)!;
    this.cursor = event.cursor;
    if ('skip' in result) this.tally.count({ kind: 'skip', skip: result.skip });
    else {
      this.tally.count(event);
      images.push(result.image);
      examples.push(event);
    }
  }

  private async decode({ example, place }: Drawn): Promise<Decoded> {
    try {
      return { image: await this.reader.read(example, place, this.settings.signal) };
    } catch (error) {
      if (error instanceof SiglipError && error.code === 'ERR_SIGLIP_IMAGE')
        return { skip: { source: example.source, reason: error.message } };
      throw error;
    }
  }

  /** Waits for the pictures that are being decoded. */
  async stop(): Promise<void> {
    await Promise.allSettled(this.window.map((waiting) => ('decoded' in waiting ? waiting.decoded : undefined)));
  }
}

/** Runs at most so many actions at a time, in the order in which they come. */
class Limiter {
  private readonly waiting: (() => void)[] = [];

  constructor(private free: number) {}

  async run<T>(action: () => Promise<T>): Promise<T> {
    if (this.free > 0) this.free--;
    else await new Promise<void>((resolve) => this.waiting.push(resolve));
    try {
      return await action();
    } finally {
      const next = this.waiting.shift();
      if (next === undefined) this.free++;
      else next();
    }
  }
}
