/** What a report says of a training besides its numbers. */
import { inspect } from '../../inspect.js';
import { parameterShapes } from '../../model/parameter-shapes.js';
import type { Dataset } from '../../training/data/index.js';
import type { Trainer, TrainingMemory } from '../../training/index.js';
import { bytes, count, plural } from '../table.js';
import type { TrainConfig } from './config.js';

/** Rows of a name and what belongs to it, under headings. */
export interface Description {
  title: string;
  sections: { heading: string; rows: [name: string, value: string][] }[];
}

interface Subject {
  config: TrainConfig;
  trainer: Trainer;
  dataset: Dataset;
  memory: TrainingMemory;
}

/** Describes model, data, settings and machine. */
export async function describeTraining(subject: Subject): Promise<Description> {
  const { config } = subject;
  const { model } = config.written;
  const title = model.checkpoint ?? model.size ?? model.config ?? '';
  return {
    title,
    sections: [
      { heading: 'Model', rows: modelRows(subject) },
      { heading: 'Data', rows: dataRows(subject) },
      { heading: 'Training', rows: await settingRows(subject) },
      { heading: 'Machine', rows: await machineRows(subject) },
    ],
  };
}

function modelRows({ config, trainer }: Subject): [string, string][] {
  const { checkpoint, config: location, size, tokenizer } = config.written.model;
  const { architecture, vision, text } = trainer.model.config;
  const parameters = [...parameterShapes(trainer.model.config).values()].reduce(
    (sum, shape) => sum + shape.reduce((product, length) => product * length, 1),
    0,
  );
  const tower = ({ numHiddenLayers, hiddenSize, numAttentionHeads }: typeof vision | typeof text): string =>
    `${plural(numHiddenLayers, 'layer')} of width ${hiddenSize}, ${plural(numAttentionHeads, 'head')}`;
  return [
    ['Starts from', checkpoint === undefined ? `fresh weights (${location ?? `size ${size}`})` : checkpoint],
    ...(tokenizer === undefined ? [] : ([['Tokenizer', tokenizer]] as [string, string][])),
    ['Parameters', count(parameters)],
    ['Image tower', tower(vision)],
    [
      'Pictures',
      architecture === 'fixed'
        ? `${vision.imageSize} × ${vision.imageSize}, patches of ${vision.patchSize}`
        : `NaFlex, patches of ${vision.patchSize}`,
    ],
    ['Text tower', tower(text)],
    ['Texts', `${text.maxPositionEmbeddings} tokens, vocabulary of ${count(text.vocabSize)}`],
  ];
}

function dataRows({ config, dataset }: Subject): [string, string][] {
  const { data } = config.written;
  const { folder, captions, shards, batchSize, tokenBudget, sequenceLengths, shuffle = true } = data;
  return [
    shards === undefined
      ? ['Pictures and captions', [folder, ...(captions ?? [])].join(' · ')]
      : ['Shards', shards.join(' · ')],
    ...(dataset.length === undefined ? [] : ([['Examples', count(dataset.length)]] as [string, string][])),
    batchSize === undefined
      ? ['Batch', `${count(tokenBudget as number)} patches at most`]
      : ['Batch', plural(batchSize, 'example')],
    ...(sequenceLengths === undefined
      ? []
      : ([['Patches a picture', sequenceLengths.join(', ')]] as [string, string][])),
    ['Order', shuffle ? `shuffled, seed ${dataset.seed}` : 'as stored'],
  ];
}

async function settingRows({ config, memory }: Subject): Promise<[string, string][]> {
  const { training } = config.written;
  const settings = await config.settings(Number.MAX_SAFE_INTEGER);
  const { name, learningRate, betas, epsilon, weightDecay, clipNorm, decayed } = settings.optimizer;
  const { steps, epochs, schedule = { name: 'constant' }, frozen, groups, ema } = training;
  const { microBatchSize, microBatches, checkpointing } = settings;
  const optional = (label: string, value: string | undefined): [string, string][] =>
    value === undefined ? [] : [[label, value]];
  return [
    ['Length', steps === undefined ? plural(epochs as number, 'epoch') : plural(steps, 'step')],
    ['Optimiser', `${name}, betas ${betas.join(' and ')}, epsilon ${epsilon}`],
    ['Learning rate', String(learningRate)],
    ['Schedule', plain(schedule)],
    ['Weight decay', `${weightDecay} on ${decayed === 'all' ? 'all parameters' : 'kernels'}`],
    ['Clipping', clipNorm === 0 ? 'none' : `global norm ${clipNorm}`],
    ...optional('Moving average', ema === undefined ? undefined : `decay ${ema.decay}`),
    ...optional('Frozen', frozen?.map(String).join(', ')),
    ...optional(
      'Groups',
      groups?.map(({ match, ...factors }) => `${match.map(String).join(', ')}: ${plain(factors)}`).join('; '),
    ),
    ...optional('Micro-batches', microBatches?.toString() ?? (microBatchSize && `of ${microBatchSize}`)?.toString()),
    ...optional('Checkpointing', checkpointing ? 'of transformer blocks' : undefined),
    ['Seed', String(settings.seed)],
    ['Memory', `${bytes(memory.totalBytes)} for the largest batch`],
  ];
}

/** `cosine, warmupSteps 100`. */
function plain(values: object): string {
  return Object.entries(values)
    .map(([key, value]) =>
      key === 'name' ? value : `${key} ${typeof value === 'object' ? `(${plain(value)})` : value}`,
    )
    .join(', ');
}

async function machineRows({ trainer }: Subject): Promise<[string, string][]> {
  const { version, node, platform, arch, cpu } = await inspect();
  return [
    ['Device', trainer.model.device],
    ...(cpu === undefined
      ? []
      : ([['Processor', `${cpu.model}, ${plural(cpu.cores, 'core')}, ${cpu.instructionSet}`]] as [string, string][])),
    ['System', `${platform} ${arch}`],
    ['Versions', `siglip2 ${version}, Node.js ${node}`],
  ];
}
