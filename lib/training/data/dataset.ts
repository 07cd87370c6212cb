/** Data sets of pictures with captions, read example by example in an order that depends on a seed alone. */
import path from 'node:path';
import {
  requireBoolean,
  requireInteger,
  requireOptions,
  requireString,
  throwIfAborted,
  wrongRange,
  wrongType,
} from '../../arguments.js';
import { SiglipError } from '../../errors.js';
import { openCsv } from './csv.js';
import { dataError } from './errors.js';
import { type Example, type FieldNames, fieldNames, type Skip } from './example.js';
import { type DataFile, findFiles, fingerprint } from './files.js';
import { openJsonLines } from './jsonl.js';
import { openParquet } from './parquet.js';
import { PartSequence } from './part-sequence.js';
import type { Part } from './parts.js';
import { checkPosition, type DatasetPosition, type PositionBasis } from './position.js';
import { type Cursor, type Sequence, type SequenceEvent, startOf, TableSequence } from './sequence.js';
import { shardPart } from './shards.js';
import { joinTables, type Table } from './table.js';
import { SkipTally } from './tally.js';

/** A folder of pictures with captions files. */
export interface FolderSource {
  /** Folder that the paths of pictures, and of the captions files, start from. */
  folder: string;
  /** `.jsonl`, `.csv` or `.parquet` files: paths or patterns such as `data/train-*.parquet`. */
  captions: string | readonly string[];
  /** Column or key of the picture's path, or of the picture; default `image`, else `file_name`. */
  imageKey?: string;
  /** Column or key of the caption; default `text`, else `caption`. */
  textKey?: string;
}

/** WebDataset shards, `.tar` or `.tar.gz`. */
export interface ShardSource {
  /** Paths or patterns such as `train-{0000..0009}.tar` and `shards/*.tar`. */
  shards: string | readonly string[];
  /** Key of the caption in `.json` members, which count where there is no `.txt`; default `text`, else `caption`. */
  textKey?: string;
}

export type DatasetSource = FolderSource | ShardSource;

/** Options of {@link openDataset}. */
export interface DatasetOptions {
  /** Decides the order and every other choice; default 0. */
  seed?: number;
  /** False gives the stored order; default true. */
  shuffle?: boolean;
  /** Examples among which the next one is drawn, for shards and Parquet files with pictures; default 1000. */
  shuffleBuffer?: number;
  /** How often every example comes; default without end. */
  epochs?: number;
  /** Goes on from a place that {@link Dataset.position} gave, instead of at the beginning. */
  position?: DatasetPosition | Readonly<Record<string, unknown>>;
}

/** Examples that were left out. */
export interface SkippedExamples {
  /** How many, since the first epoch began. An example that is broken counts in every epoch. */
  count: number;
  /** The first of them that this object saw, ten at most. */
  first: readonly Skip[];
}

const optionNames = ['seed', 'shuffle', 'shuffleBuffer', 'epochs', 'position'];
const largestShuffleBuffer = 10_000_000;

/**
 * Opens a data set. Captions files of text are read once to find their rows; pictures are not touched.
 *
 * @throws TypeError, RangeError for a mistake in the arguments
 * @throws SiglipError `ERR_SIGLIP_DATA` when a file is missing, unreadable, empty or lacks a column, or when the
 *   position is damaged or of other data
 */
export async function openDataset(source: DatasetSource, options?: DatasetOptions): Promise<Dataset> {
  const given = requireOptions('options', options, optionNames);
  const { shuffle = true } = given;
  requireBoolean('options.shuffle', shuffle);
  const settings = {
    seed: requireInteger('options.seed', given.seed ?? 0, 0),
    shuffle,
    shuffleBuffer: requireInteger('options.shuffleBuffer', given.shuffleBuffer ?? 1000, 1, largestShuffleBuffer),
    epochs: given.epochs === undefined ? Number.POSITIVE_INFINITY : requireInteger('options.epochs', given.epochs, 1),
  };
  const { files, content } = await openSource(source);
  const sequence =
    'table' in content
      ? new TableSequence(content.table, settings)
      : new PartSequence(content.parts, settings, content.rows);
  const basis = {
    data: fingerprint(files),
    seed: settings.seed,
    shuffle,
    shuffleBuffer: shuffle && 'parts' in content ? settings.shuffleBuffer : 1,
  };
  const parts = 'parts' in content ? content.parts.length : undefined;
  const start =
    given.position === undefined
      ? { cursor: startOf(0), skipped: 0, batches: 0 }
      : checkPosition(given.position, basis, { parts, length: sequence.length });
  return new Dataset(sequence, basis, { ...start, cursor: () => start.cursor });
}

type Content = { table: Table } | { parts: readonly Part[]; rows?: number };

async function openSource(source: DatasetSource): Promise<{ files: DataFile[]; content: Content }> {
  if (typeof source !== 'object' || source === null || !('shards' in source || 'captions' in source))
    throw wrongType('source', '{ folder, captions } or { shards }', source);
  const textKey = optionalName('source.textKey', source.textKey);
  if ('shards' in source) {
    requireOptions('source', source, ['shards', 'textKey']);
    const names = fieldNames(undefined, textKey);
    const files = await findFiles(source.shards, '.', 'source.shards');
    return { files, content: { parts: files.map((file) => shardPart(file.path, names)) } };
  }
  requireOptions('source', source, ['folder', 'captions', 'imageKey', 'textKey']);
  const names = fieldNames(optionalName('source.imageKey', source.imageKey), textKey);
  const folder = path.resolve(requireString('source.folder', source.folder));
  const files = await findFiles(source.captions, folder, 'source.captions');
  return { files, content: await openCaptions(files, names, folder) };
}

function optionalName(argument: string, name: unknown): string | undefined {
  if (name === undefined) return undefined;
  if (requireString(argument, name) === '') throw wrongRange(argument, 'a name', name);
  return name as string;
}

async function openCaptions(files: readonly DataFile[], names: FieldNames, folder: string): Promise<Content> {
  const tables: Table[] = [];
  const parts: Part[] = [];
  let rows = 0;
  for (const { path: file } of files) {
    const content = await openCaptionsFile(file, names, folder);
    if ('table' in content) {
      if (content.table.length === 0) throw dataError(file, 'holds no examples');
      tables.push(content.table);
    } else {
      if (content.rows === 0) throw dataError(file, 'holds no examples');
      parts.push(...content.parts);
      rows += content.rows;
    }
  }
  if (tables.length === 0) return { parts, rows };
  if (parts.length === 0) return { table: joinTables(tables) };
  throw new SiglipError(
    'ERR_SIGLIP_UNSUPPORTED',
    'some of the captions files hold the pictures themselves and others only their paths; open them as two data sets',
  );
}

async function openCaptionsFile(
  file: string,
  names: FieldNames,
  folder: string,
): Promise<{ table: Table } | { parts: Part[]; rows: number }> {
  switch (path.extname(file).toLowerCase()) {
    case '.jsonl':
      return { table: await openJsonLines(file, names, folder) };
    case '.csv':
      return { table: await openCsv(file, names, folder) };
    case '.parquet':
      return openParquet(file, names, folder);
    default:
      throw wrongRange('source.captions', 'files ending in .jsonl, .csv or .parquet', file);
  }
}

/** How far a data set has been delivered. */
interface Delivered {
  cursor: () => Cursor;
  skipped: number;
  batches: number;
}

/**
 * An opened data set. It remembers what it has delivered, through {@link Dataset.examples} or `batches`: each further
 * iteration goes on from there. It holds no open files between iterations.
 */
export class Dataset {
  private readonly firstSkips: Skip[] = [];
  private inUse = false;

  /** @internal Use {@link openDataset}. */
  constructor(
    private readonly sequence: Sequence,
    private readonly basis: PositionBasis,
    private delivered: Delivered,
  ) {}

  /** Decides the order and every other choice. */
  get seed(): number {
    return this.basis.seed;
  }

  /** Examples of an epoch, broken ones included; `undefined` for shards, of which nobody knows before reading them. */
  get length(): number | undefined {
    return this.sequence.length;
  }

  /** Examples that were left out among those delivered so far. */
  get skipped(): SkippedExamples {
    return { count: this.delivered.skipped, first: [...this.firstSkips] };
  }

  /** The place after the last delivered example, to go on from in a later run. */
  position(): DatasetPosition {
    const { cursor, skipped, batches } = this.delivered;
    return { version: 1, ...this.basis, ...cursor(), skipped, batches };
  }

  /**
   * The examples from the present place on, with pictures as they are stored. A broken one is skipped as far as that
   * shows without decoding the picture.
   *
   * @throws SiglipError `ERR_SIGLIP_DATA` when a file cannot be read any more or nothing in an epoch can be used,
   *   `ERR_SIGLIP_ABORTED`
   */
  async *examples(options?: { signal?: AbortSignal }): AsyncGenerator<Example, void, undefined> {
    const { signal } = requireOptions('options', options, ['signal']);
    const tally = new SkipTally();
    for await (const event of this.read()) {
      throwIfAborted(signal);
      tally.count(event);
      if (event.kind === 'skip') continue;
      this.deliver(event.cursor, tally.take(), 0);
      if (event.kind === 'example') yield event.example;
    }
  }

  /** @internal The present place. */
  get cursor(): () => Cursor {
    return this.delivered.cursor;
  }

  /** @internal Batches delivered so far. */
  get batchesDelivered(): number {
    return this.delivered.batches;
  }

  /** @internal Everything from the present place on, for one reader at a time. Does not count as delivered. */
  async *read(): AsyncGenerator<SequenceEvent> {
    if (this.inUse)
      throw new SiglipError(
        'ERR_SIGLIP_UNSUPPORTED',
        'the data set is being iterated already; end that iteration first, or open the data set twice',
      );
    this.inUse = true;
    try {
      yield* this.sequence.events(this.delivered.cursor());
    } finally {
      this.inUse = false;
    }
  }

  /** @internal Moves the place. */
  deliver(cursor: () => Cursor, skips: readonly Skip[], batches: number): void {
    const { delivered, firstSkips } = this;
    firstSkips.push(...skips.slice(0, shownSkips - firstSkips.length));
    this.delivered = { cursor, skipped: delivered.skipped + skips.length, batches: delivered.batches + batches };
  }
}

const shownSkips = 10;

/** Requires a data set as {@link openDataset} gives it. */
export function requireDataset(argument: string, value: unknown): Dataset {
  if (value instanceof Dataset) return value;
  throw wrongType(argument, 'a data set from openDataset', value);
}
