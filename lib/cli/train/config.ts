/** The configuration of a training, as it is written in its file. */
import path from 'node:path';
import { isScalar } from 'yaml';
import { SiglipError } from '../../errors.js';
import type { DatasetSource } from '../../training/data/index.js';
import { checkTrainerOptions, type TrainerOptions, type TrainerSettings } from '../../training/options.js';
import type { CosineSchedule, Schedule } from '../../training/schedule.js';
import type { JsonValue } from '../../training/state.js';
import { ConfigDocument, mistakesError, type Way } from './document.js';
import {
  boolean,
  integer,
  list,
  mappingOr,
  number,
  oneOf,
  oneOrMore,
  readDocument,
  type Schema,
  section,
  text,
  type ValueOf,
} from './schema.js';

/** A parameter's name, the beginning of one, or `/pattern/flags`. */
const pattern: Schema<string | RegExp> = {
  read(node, way, reader) {
    const written = text.read(node, way, reader);
    const parts = /^\/(.*)\/([dimsuv]*)$/s.exec(written ?? '');
    if (parts === null) return written;
    try {
      return new RegExp(parts[1] as string, parts[2]);
    } catch (error) {
      return reader.wrong(way, `expected a regular expression, got one that is not valid: ${(error as Error).message}`);
    }
  },
};

const template: Schema<string> = {
  read(node, way, reader) {
    const written = text.read(node, way, reader);
    if (written === undefined || written.includes('{}')) return written;
    return reader.unexpected(way, 'a text with {} for the class', node);
  },
};

const sizeOrNaflex: Schema<number | 'naflex'> = {
  read(node, way, reader) {
    const value: unknown = isScalar(node) ? node.value : undefined;
    if (value === 'naflex' || Number.isSafeInteger(value)) return value as number | 'naflex';
    return reader.unexpected(way, 'a number of pixels, or naflex', node);
  },
};

const count = integer(1);

const model = section(
  {},
  {
    checkpoint: text,
    revision: text,
    config: text,
    size: oneOf('B', 'L', 'So400m', 'g'),
    patchSize: count,
    imageSize: sizeOrNaflex,
    vocabSize: count,
    tokenizer: text,
  },
);

const sourceFields = {
  folder: text,
  captions: oneOrMore(text),
  shards: oneOrMore(text),
  imageKey: text,
  textKey: text,
};

const data = section(
  {},
  {
    ...sourceFields,
    batchSize: count,
    sequenceLengths: oneOrMore(count),
    tokenBudget: count,
    textsPerImage: count,
    augment: section(
      { size: count },
      {
        background: oneOrMore(oneOf('white', 'light', 'dark', 'any')),
        scale: list(number, 2),
        aspectRatio: number,
        rotation: number,
        brightness: number,
        contrast: number,
        saturation: number,
        hue: number,
        greyscale: number,
        mirror: number,
        blur: number,
      },
    ),
    cacheBytes: integer(0),
    shuffle: boolean,
    shuffleBuffer: count,
    seed: integer(0),
    decodeConcurrency: count,
    prefetch: integer(0),
    maxPixels: count,
  },
);

const scheduleSchema = section(
  { name: oneOf('constant', 'cosine', 'stretched') },
  {
    warmupSteps: integer(0),
    totalSteps: count,
    base: section({ totalSteps: count }, { warmupSteps: integer(0) }),
    from: number,
    stretch: number,
  },
);

const training = section(
  {},
  {
    steps: count,
    epochs: count,
    optimizer: section(
      {},
      {
        name: oneOf('adam', 'adamw'),
        learningRate: number,
        betas: list(number, 2),
        epsilon: number,
        weightDecay: number,
        clipNorm: number,
        decayed: oneOf('kernels', 'all'),
      },
    ),
    schedule: scheduleSchema,
    microBatchSize: count,
    microBatches: count,
    checkpointing: boolean,
    seed: integer(0),
    initialization: section(
      {},
      {
        logitScale: number,
        logitBias: number,
        visionPositions: oneOf('normal', 'sincos2d'),
        positionTemperature: number,
      },
    ),
    ema: section({ decay: number }, {}),
    frozen: oneOrMore(pattern),
    groups: list(section({ match: oneOrMore(pattern) }, { learningRateScale: number, weightDecayScale: number })),
    device: text,
    dtype: oneOf('float32', 'bfloat16'),
    threads: integer(1, 1024),
  },
);

const evaluation = section(
  { everySteps: count },
  {
    retrieval: section({}, { ...sourceFields, limit: count, maxPatches: count }),
    zeroShot: section(
      { folder: text },
      {
        labels: text,
        imageKey: text,
        labelKey: text,
        templates: oneOrMore(template),
        limit: count,
        maxPatches: count,
      },
    ),
  },
);

const schema = section(
  { model: mappingOr(model, text), data, training },
  {
    checkpoints: section({}, { everySteps: count, everyMinutes: count, snapshotEverySteps: count }),
    evaluation,
    output: text,
  },
);

type Written = ValueOf<typeof schema>;
export type DataConfig = Written['data'];
export type ModelConfig = ValueOf<typeof model>;
export type EvaluationConfig = NonNullable<Written['evaluation']>;
export type CheckpointsConfig = NonNullable<Written['checkpoints']>;

type Wrong = (way: Way, message: string) => void;

function checkModel(config: ModelConfig, wrong: Wrong): void {
  const { checkpoint, size } = config;
  const starts = (['checkpoint', 'config', 'size'] as const).filter((key) => config[key] !== undefined);
  if (starts.length !== 1)
    wrong(
      ['model'],
      `expected one of checkpoint, config and size, got ${starts.length === 0 ? 'none' : starts.join(' and ')}`,
    );
  if (checkpoint === undefined && config.revision !== undefined)
    wrong(['model', 'revision'], 'belongs to a checkpoint of the hub');
  for (const key of ['patchSize', 'imageSize', 'vocabSize'] as const)
    if (size === undefined && config[key] !== undefined) wrong(['model', key], 'belongs to size, which is not set');
  if (size !== undefined && config.tokenizer === undefined)
    wrong(['model', 'tokenizer'], 'is required with size: a folder with tokenizer.json, or a hub id');
}

function checkSource(way: Way, config: Pick<DataConfig, keyof typeof sourceFields>, wrong: Wrong): void {
  const { folder, captions, shards, imageKey } = config;
  const complete = shards === undefined ? folder !== undefined && captions !== undefined : folder === undefined;
  if (!complete) wrong(way, 'expected either folder and captions, or shards');
  else if (shards !== undefined)
    for (const [key, value] of Object.entries({ captions, imageKey }))
      if (value !== undefined) wrong([...way, key], 'belongs to a folder with captions, not to shards');
}

function checkWhole(config: Written, wrong: Wrong): void {
  if (typeof config.model !== 'string') checkModel(config.model, wrong);
  checkSource(['data'], config.data, wrong);
  const { batchSize, tokenBudget } = config.data;
  if ((batchSize === undefined) === (tokenBudget === undefined))
    wrong(['data'], `expected either batchSize or tokenBudget, got ${batchSize === undefined ? 'none' : 'both'}`);
  const { steps, epochs } = config.training;
  if ((steps === undefined) === (epochs === undefined))
    wrong(['training'], `expected either steps or epochs, got ${steps === undefined ? 'none' : 'both'}`);
  const { microBatches } = config.training;
  if (batchSize !== undefined && microBatches !== undefined && microBatches > batchSize)
    wrong(['training', 'microBatches'], `expected at most ${batchSize}, the examples of a batch, got ${microBatches}`);
  const retrieval = config.evaluation?.retrieval;
  if (retrieval !== undefined) checkSource(['evaluation', 'retrieval'], retrieval, wrong);
  const zeroShot = config.evaluation?.zeroShot;
  for (const key of ['imageKey', 'labelKey'] as const)
    if (zeroShot !== undefined && zeroShot.labels === undefined && zeroShot[key] !== undefined)
      wrong(['evaluation', 'zeroShot', key], 'belongs to labels, which is not set');
  if (config.evaluation !== undefined && retrieval === undefined && zeroShot === undefined)
    wrong(['evaluation'], 'expected retrieval, zeroShot or both');
}

/** Whose argument names in error messages stand for which keys. */
type Arguments = Readonly<Record<string, Way>>;

/** A checked configuration and the file that it came from. */
export class TrainConfig {
  private constructor(
    readonly document: ConfigDocument,
    readonly written: Omit<Written, 'model'> & { model: ModelConfig },
  ) {}

  /** @throws SiglipError ERR_SIGLIP_CONFIG with the place of every mistake */
  static async read(file: string): Promise<TrainConfig> {
    return TrainConfig.of(await ConfigDocument.read(file));
  }

  static of(document: ConfigDocument): TrainConfig {
    const written = readDocument(document, schema, checkWhole);
    const { model } = written;
    return new TrainConfig(document, { ...written, model: typeof model === 'string' ? { checkpoint: model } : model });
  }

  /** A path of the file, which starts from the file's folder. */
  resolve(location: string): string {
    return path.resolve(path.dirname(this.document.file), location);
  }

  /** The error for a value that turned out to be wrong. */
  mistake(way: Way, message: string, cause?: unknown): SiglipError {
    return mistakesError([this.document.mistake(way, message)], cause);
  }

  /** Does something with values of the file. What the library says of its arguments is said of the file's keys. */
  async naming<T>(names: Arguments, action: () => T | Promise<T>): Promise<T> {
    try {
      return await action();
    } catch (error) {
      throw this.#named(names, error);
    }
  }

  #named(names: Arguments, error: unknown): unknown {
    if (!(error instanceof Error)) return error;
    const [, argument, message] = /^([\w.[\]]+): (.*)$/s.exec(error.message) ?? [];
    if (argument === undefined || message === undefined) return error;
    const name = Object.keys(names)
      .filter((known) => argument === known || /^[.[]/.test(argument.slice(known.length)))
      .filter((known) => argument.startsWith(known))
      .sort((a, b) => b.length - a.length)[0];
    if (name === undefined) return error;
    const rest = [...argument.slice(name.length).matchAll(/(\w+)(\])?/g)].map(([, part, index]) =>
      index === undefined ? (part as string) : Number(part),
    );
    const way = [...(names[name] as Way), ...rest];
    if (error instanceof TypeError || error instanceof RangeError) return this.mistake(way, message, error);
    if (!(error instanceof SiglipError)) return error;
    const { file, line, column, key } = this.document.mistake(way, '');
    return new SiglipError(error.code, `${file}:${line}:${column}: ${key}: ${message}`, {
      ...(error.details === undefined ? {} : { details: error.details }),
      cause: error,
    });
  }

  /** Where a part of the file says that pictures and captions are. */
  source(config: Pick<DataConfig, keyof typeof sourceFields>): DatasetSource {
    const { folder, captions = [], shards, imageKey, textKey } = config;
    const keys = {
      ...(imageKey === undefined ? {} : { imageKey }),
      ...(textKey === undefined ? {} : { textKey }),
    };
    if (shards !== undefined) return { shards: shards.map((shard) => this.resolve(shard)), ...keys };
    return { folder: this.resolve(folder as string), captions, ...keys };
  }

  /**
   * The trainer's options.
   * @param totalSteps where a cosine schedule without an end of its own ends
   */
  trainerOptions(totalSteps: number | undefined): TrainerOptions {
    const { steps: _steps, epochs: _epochs, schedule, device, optimizer, ...rest } = this.written.training;
    return {
      ...rest,
      ...(optimizer === undefined ? {} : { optimizer: optimizer as NonNullable<TrainerOptions['optimizer']> }),
      ...(device === undefined ? {} : { device: device as NonNullable<TrainerOptions['device']> }),
      ...(schedule === undefined ? {} : { schedule: this.#schedule(schedule, totalSteps) }),
    };
  }

  #schedule(schedule: ValueOf<typeof scheduleSchema>, totalSteps: number | undefined): Schedule {
    if (schedule.name !== 'cosine' || schedule.totalSteps !== undefined) return schedule as Schedule;
    if (totalSteps === undefined)
      throw this.mistake(
        ['training', 'schedule'],
        'totalSteps is required here, because how many steps the epochs have is not known before they are over',
      );
    return { ...schedule, totalSteps } as CosineSchedule;
  }

  /** The trainer's options, checked as far as that needs no model. */
  settings(totalSteps: number | undefined): Promise<TrainerSettings> {
    return this.naming(trainerArguments, () => checkTrainerOptions(this.trainerOptions(totalSteps)));
  }

  /**
   * What determines the numbers that a training computes, as it is compared when one is resumed. Where data lies does
   * not: a position in the data knows the files by itself.
   */
  async computed(): Promise<{ [key: string]: JsonValue }> {
    const { model, data, training } = this.written;
    const { optimizer, seed } = await this.settings(Number.MAX_SAFE_INTEGER);
    const {
      folder: _folder,
      captions: _captions,
      shards: _shards,
      decodeConcurrency: _concurrency,
      prefetch: _prefetch,
      cacheBytes: _cache,
      ...order
    } = data;
    const { schedule, ema, frozen, groups, initialization } = training;
    const plain = { model, data: order, training: { optimizer, seed, initialization, schedule, ema, frozen, groups } };
    const text = JSON.stringify(plain, (_, value: unknown) => (value instanceof RegExp ? String(value) : value));
    return JSON.parse(text) as { [key: string]: JsonValue };
  }

  /**
   * Requires that the file still describes a training that was saved.
   * @throws SiglipError ERR_SIGLIP_CONFIG naming the key that differs
   */
  async requireSame(saved: JsonValue): Promise<void> {
    const before = flatten(saved);
    const now = flatten(await this.computed());
    const mistakes = [...new Set([...before.keys(), ...now.keys()])].flatMap((key) => {
      const [was, is] = [before.get(key), now.get(key)];
      if (was?.value === is?.value) return [];
      const way = (was ?? is)?.way as Way;
      return [
        this.document.mistake(
          way,
          `expected ${was?.value ?? 'nothing'}, as in the training that is resumed, got ${is?.value ?? 'nothing'}`,
        ),
      ];
    });
    if (mistakes.length > 0) throw mistakesError(mistakes);
  }
}

/** Where the options of the trainer are in the file. */
export const trainerArguments: Arguments = { options: ['training'] };

/** The values that are neither lists nor mappings, as JSON, by their way. */
function flatten(value: JsonValue, way: Way = []): Map<string, { way: Way; value: string }> {
  if (typeof value !== 'object' || value === null)
    return new Map([[JSON.stringify(way), { way, value: JSON.stringify(value) }]]);
  const entries: [string | number, JsonValue][] = Array.isArray(value)
    ? value.map((entry: JsonValue, index) => [index, entry])
    : Object.entries(value as { [key: string]: JsonValue });
  return new Map(entries.flatMap(([key, entry]) => [...flatten(entry, [...way, key])]));
}
