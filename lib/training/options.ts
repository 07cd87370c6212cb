/** Options of a trainer: checks, defaults, and what they mean for each parameter. */
import {
  requireBoolean,
  requireInteger,
  requireNumber,
  requireOneOf,
  requireOptions,
  wrongRange,
  wrongType,
} from '../arguments.js';
import { type Device, type DType, resolveDevice, resolveDType, resolveThreads } from '../device.js';
import type { Siglip2Config } from '../model/config.js';
import { parameterShapes } from '../model/parameter-shapes.js';
import type { NativeGradientPlan, NativeParameterSetting } from '../native.js';
import { Tokenizer } from '../processing/tokenizer.js';
import { chosenInitialValues, type InitializationOptions } from './initial-values.js';
import { initializationOf } from './initialization.js';
import { checkSchedule, type Schedule } from './schedule.js';

/** A parameter's Hugging Face name, the beginning of one up to a dot (`vision_model.encoder`), or a pattern of names. */
export type ParameterPattern = string | RegExp;

/** Adam and how its weight decay works. */
export interface OptimizerOptions {
  /**
   * `adam` (default): big_vision's, with weight decay that is not multiplied by the learning rate, only by the schedule,
   * on the weights of linear layers alone. `adamw`: as torch.optim.AdamW, multiplied by the learning rate, on everything.
   */
  name?: 'adam' | 'adamw';
  /** Default 1e-3. */
  learningRate?: number;
  /** Default [0.9, 0.95]. */
  betas?: [number, number];
  /** Default 1e-8. */
  epsilon?: number;
  /** Default 1e-4 for `adam`, 1e-2 for `adamw`. */
  weightDecay?: number;
  /** Gradients are scaled down to this global norm; default 1, and 0 for no clipping. */
  clipNorm?: number;
  /** Which parameters decay; default as the name says. */
  decayed?: 'kernels' | 'all';
}

/** Parameters that learn at another rate. The first group that matches a parameter counts. */
export interface ParameterGroup {
  match: ParameterPattern | ParameterPattern[];
  /** Factor of the learning rate; default 1. */
  learningRateScale?: number;
  /** Factor of the weight decay; default 1. */
  weightDecayScale?: number;
}

/** Options of `Trainer.create`. */
export interface TrainerOptions {
  device?: Device;
  /**
   * Type of computation: on CPUs, of the operands of layers' products alone. Master weights, gradients of parameters and
   * moments are float32. Default float32.
   */
  dtype?: 'float32' | 'bfloat16';
  /** CPU: default all cores available to the process. */
  threads?: number;
  optimizer?: OptimizerOptions;
  /** Factor of the learning rate over time; default constant. */
  schedule?: Schedule;
  /**
   * Images that go through the towers together; default all of a batch. Gradients are those of the whole batch. Of n
   * images and m texts, ⌈m · microBatchSize / n⌉ texts go together.
   */
  microBatchSize?: number;
  /** Instead of their size, how many micro-batches every batch is cut into; of fewer images than that, each is one. */
  microBatches?: number;
  /** Keep only the inputs of transformer blocks for the backward pass and compute the rest again: slower, smaller. */
  checkpointing?: boolean;
  /** For the initial weights of a model that is made from a configuration; default 0. */
  seed?: number;
  /** Some of those initial weights by choice; refused for a model that has weights. */
  initialization?: InitializationOptions;
  /** Also keep an exponential moving average of the weights. */
  ema?: { decay: number };
  /** Parameters that stay as they are, such as `vision_model` for a locked image tower. */
  frozen?: ParameterPattern[];
  groups?: ParameterGroup[];
  /** For texts in steps; default the model's own. A folder with tokenizer.json, or a tokenizer. */
  tokenizer?: string | Tokenizer;
}

/** Checked options, with every default. What can be stored is plain data. */
export interface TrainerSettings {
  device: string;
  dtype: DType;
  threads: number;
  optimizer: Required<OptimizerOptions>;
  schedule: Schedule;
  microBatchSize: number | undefined;
  microBatches: number | undefined;
  checkpointing: boolean;
  seed: number;
  ema: { decay: number } | undefined;
  tokenizer: string | Tokenizer | undefined;
}

const optionNames = [
  'device',
  'dtype',
  'threads',
  'optimizer',
  'schedule',
  'microBatchSize',
  'microBatches',
  'checkpointing',
  'seed',
  'initialization',
  'ema',
  'frozen',
  'groups',
  'tokenizer',
];

/** A finite number with `least` ≤ value (and value < `below`). */
function boundedNumber(argument: string, value: unknown, least: number, below = Infinity): number {
  const expected = below === Infinity ? `a number of at least ${least}` : `a number from ${least} to below ${below}`;
  return requireNumber(argument, value, expected, (number) => number >= least && number < below);
}

function checkOptimizer(options: OptimizerOptions | undefined): Required<OptimizerOptions> {
  const known = ['name', 'learningRate', 'betas', 'epsilon', 'weightDecay', 'clipNorm', 'decayed'];
  const checked = requireOptions('options.optimizer', options, known);
  const name = requireOneOf('options.optimizer.name', checked.name ?? 'adam', ['adam', 'adamw']);
  const { betas = [0.9, 0.95] } = checked;
  if (!Array.isArray(betas) || betas.length !== 2) throw wrongType('options.optimizer.betas', 'two numbers', betas);
  const number = (key: 'learningRate' | 'weightDecay' | 'clipNorm', fallback: number): number =>
    boundedNumber(`options.optimizer.${key}`, checked[key] ?? fallback, 0);
  const epsilon = boundedNumber('options.optimizer.epsilon', checked.epsilon ?? 1e-8, 0);
  if (epsilon === 0) throw wrongRange('options.optimizer.epsilon', 'a number above 0', epsilon);
  return {
    name,
    learningRate: number('learningRate', 1e-3),
    betas: betas.map((beta, i) => boundedNumber(`options.optimizer.betas[${i}]`, beta, 0, 1)) as [number, number],
    epsilon,
    weightDecay: number('weightDecay', name === 'adam' ? 1e-4 : 1e-2),
    clipNorm: number('clipNorm', 1),
    decayed: requireOneOf('options.optimizer.decayed', checked.decayed ?? (name === 'adam' ? 'kernels' : 'all'), [
      'kernels',
      'all',
    ]),
  };
}

/** Checks a trainer's options and fills in defaults. */
export function checkTrainerOptions(options: TrainerOptions | undefined): TrainerSettings {
  const checked = requireOptions('options', options, optionNames);
  const device = resolveDevice('options.device', checked.device);
  const dtype = resolveDType('options.dtype', checked.dtype ?? 'float32', device, 'train');
  const { microBatchSize, microBatches, checkpointing = false, tokenizer } = checked;
  if (microBatchSize !== undefined) requireInteger('options.microBatchSize', microBatchSize, 1);
  if (microBatches !== undefined) requireInteger('options.microBatches', microBatches, 1);
  if (microBatchSize !== undefined && microBatches !== undefined)
    throw wrongRange('options.microBatches', 'no value beside microBatchSize', microBatches);
  requireBoolean('options.checkpointing', checkpointing);
  if (tokenizer !== undefined && typeof tokenizer !== 'string' && !(tokenizer instanceof Tokenizer))
    throw wrongType('options.tokenizer', 'a folder or a Tokenizer', tokenizer);
  const ema = checked.ema === undefined ? undefined : requireOptions('options.ema', checked.ema, ['decay']);
  return {
    device,
    dtype,
    threads: resolveThreads('options.threads', checked.threads),
    optimizer: checkOptimizer(checked.optimizer),
    schedule: checkSchedule('options.schedule', checked.schedule ?? { name: 'constant' }),
    microBatchSize,
    // One is the same as none, and saved alike.
    microBatches: microBatches === 1 ? undefined : microBatches,
    checkpointing,
    seed: requireInteger('options.seed', checked.seed ?? 0, 0),
    ema: ema === undefined ? undefined : { decay: boundedNumber('options.ema.decay', ema.decay, 0, 1) },
    tokenizer,
  };
}

/** How a batch of `examples` images is cut into micro-batches. */
export function gradientPlan(settings: TrainerSettings, examples: number): NativeGradientPlan {
  const { microBatchSize, microBatches, checkpointing } = settings;
  // At least one: the last batch of an epoch may have fewer images than it is to have parts.
  const microBatch = microBatches === undefined ? (microBatchSize ?? 0) : Math.ceil(examples / microBatches);
  return { microBatch, checkpointing };
}

function matches(name: string, pattern: ParameterPattern): boolean {
  if (typeof pattern === 'string') return name === pattern || name.startsWith(`${pattern}.`);
  pattern.lastIndex = 0;
  return pattern.test(name);
}

/** Checks patterns: a pattern that matches nothing is a mistake. */
function checkPatterns(argument: string, patterns: unknown, names: readonly string[]): ParameterPattern[] {
  if (!Array.isArray(patterns)) throw wrongType(argument, 'an array of names or patterns', patterns);
  patterns.forEach((pattern: unknown, index) => {
    const place = `${argument}[${index}]`;
    if (typeof pattern !== 'string' && !(pattern instanceof RegExp))
      throw wrongType(place, 'a parameter name or a RegExp', pattern);
    if (!names.some((name) => matches(name, pattern)))
      throw wrongRange(place, 'the name of a parameter, or a pattern of some', String(pattern));
  });
  return patterns as ParameterPattern[];
}

/** Whether a parameter is the weight of a linear layer: what big_vision's default mask lets decay. */
function isKernel(name: string, shape: readonly number[]): boolean {
  return shape.length > 1 && !/(token_embedding|position_embedding)\.weight$|\.probe$/.test(name);
}

/**
 * How each parameter of a model is trained, in the order of the model's definition.
 * @throws RangeError for a pattern that matches no parameter
 */
export function parameterSettings(
  config: Siglip2Config,
  optimizer: Required<OptimizerOptions>,
  options: Pick<TrainerOptions, 'frozen' | 'groups' | 'initialization'>,
): NativeParameterSetting[] {
  const shapes = parameterShapes(config);
  const names = [...shapes.keys()];
  const frozen = checkPatterns('options.frozen', options.frozen ?? [], names);
  if (!Array.isArray(options.groups ?? [])) throw wrongType('options.groups', 'an array of groups', options.groups);
  const groups = (options.groups ?? []).map((group, index) => {
    const place = `options.groups[${index}]`;
    const checked = requireOptions(place, group, ['match', 'learningRateScale', 'weightDecayScale']);
    const match = Array.isArray(checked.match) ? checked.match : [checked.match];
    return {
      match: checkPatterns(`${place}.match`, match, names),
      learningRateScale: boundedNumber(`${place}.learningRateScale`, checked.learningRateScale ?? 1, 0),
      weightDecayScale: boundedNumber(`${place}.weightDecayScale`, checked.weightDecayScale ?? 1, 0),
    };
  });
  const chosen = chosenInitialValues(config, options.initialization);
  const settings = [...shapes].map(([name, shape]): NativeParameterSetting => {
    const values = chosen.get(name);
    const group = groups.find(({ match }) => match.some((pattern) => matches(name, pattern)));
    const learningRateScale = group?.learningRateScale ?? 1;
    const decays = optimizer.decayed === 'all' || isKernel(name, shape);
    // In torch the decay is multiplied by the group's learning rate; in big_vision a group's factor leaves it alone.
    const decayScale = (group?.weightDecayScale ?? 1) * (optimizer.name === 'adamw' ? learningRateScale : 1);
    return {
      name,
      shape,
      trainable: !frozen.some((pattern) => matches(name, pattern)),
      learningRateScale,
      decayScale: decays ? decayScale : 0,
      initialization: values === undefined ? initializationOf(name, shape, config) : { values },
    };
  });
  if (settings.every(({ trainable }) => !trainable))
    throw wrongRange('options.frozen', 'patterns that leave some parameter to train', `all of ${names.length}`);
  return settings;
}
