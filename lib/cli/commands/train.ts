import type { Command } from 'commander';
import { resolveDevice } from '../../device.js';
import { SiglipError } from '../../errors.js';
import { isJsonObject } from '../../model/json.js';
import type { AtRank, Trainer, TrainingMemory } from '../../training/index.js';
import { exitCodes, UsageError } from '../errors.js';
import { addDeviceOptions, addHubOptions, type CommonOptions, integer } from '../options.js';
import { type Context, runs } from '../run.js';
import { bytes, count, duration, percent, plural, table } from '../table.js';
import { printable, shellWord, type Terminal } from '../terminal.js';
import { TrainConfig } from '../train/config.js';
import { describeTraining } from '../train/description.js';
import { Evaluator } from '../train/evaluator.js';
import { type History, MetricsLog } from '../train/metrics.js';
import { reportPage } from '../train/report.js';
import { RunFolder } from '../train/run-folder.js';
import {
  createTrainer,
  largestMemory,
  openTrainingData,
  resumeTrainer,
  totalSteps,
  trainingBatches,
} from '../train/setup.js';
import { type SavedState, type Status, saveState, Training } from '../train/training.js';

interface TrainOptions extends CommonOptions {
  out?: string;
  resume?: boolean;
  steps?: number;
}

/** Adds `siglip2 train`. */
export function addTrain(program: Command): void {
  const command = program
    .command('train')
    .summary('train a model, or go on with a training')
    .description(
      'Trains as a configuration file says (YAML or JSON; docs/training.md lists the keys). The folder gets checkpoint/, ' +
        'metrics.jsonl, report.html and a copy of the configuration. An interrupted training, killed ones included, goes ' +
        'on from its last checkpoint with --resume, as if nothing had happened.',
    )
    .argument('<config>', 'configuration file; paths in it start from its folder')
    .option('--out <folder>', 'folder of the training (default: output in the configuration)')
    .option('--resume', 'go on with the training in the folder')
    .option('--steps <n>', 'end this run after step n of the training; its schedule stays the same', integer(1));
  addHubOptions(addDeviceOptions(command)).addHelpText(
    'after',
    `
Examples:
  siglip2 train config.yaml --out runs/first
  siglip2 train config.yaml --out runs/first --resume
  siglip2 train config.yaml --out runs/try --steps 20 --json

SIGINT (Ctrl-C) and SIGTERM end the run after the present step and save; a second signal ends it at once.`,
  );
  runs(command, trainCommand);
}

async function trainCommand(command: Context, options: TrainOptions, operands: string[]): Promise<number> {
  const { terminal, signal } = command;
  const file = operands[0] as string;
  if (options.device !== undefined) resolveDevice('options.device', options.device);
  const config = await TrainConfig.read(file);
  const output = config.written.output;
  const location = options.out ?? (output === undefined ? undefined : config.resolve(output));
  if (location === undefined)
    throw new UsageError(
      'no folder is given for the training',
      'add --out with a folder, or output to the configuration',
    );
  await config.settings(Number.MAX_SAFE_INTEGER);
  const folder = new RunFolder(location);
  const named = options.out === undefined ? '' : ` --out ${shellWord(options.out)}`;
  const resumption = `siglip2 train ${shellWord(file)}${named} --resume`;
  const check = (): Promise<void> => (options.resume ? folder.requireTraining() : folder.requireFree(file, resumption));
  await check();
  return folder.alone(terminal, signal, async (ending) => {
    const context = { ...command, signal: ending };
    // Once more: while this process waited for its turn, another one may have trained here.
    await check();
    await folder.tidy();
    const start = await (options.resume ? resume(config, context, folder) : begin(config, context));
    using trainer = start.trainer;
    const outcome = await train(start, { config, context, folder, stopAt: options.steps });
    summarise(terminal, outcome, folder, resumption);
    if (outcome.status === 'interrupted')
      throw new SiglipError('ERR_SIGLIP_ABORTED', `the training was interrupted after step ${trainer.stepsTaken}`, {
        details: { step: trainer.stepsTaken, folder: folder.folder },
        cause: signal.reason,
      });
    if (terminal.settings.json) terminal.document(summaryDocument(outcome, folder, trainer));
    return exitCodes.success;
  });
}

/** What a run begins with. */
interface Start {
  trainer: Trainer;
  dataset: Awaited<ReturnType<typeof openTrainingData>>;
  total: number | undefined;
  evaluator: Evaluator | undefined;
  computed: SavedState['computed'];
  /** Whether it goes on with a saved training. */
  resumed: boolean;
}

async function begin(config: TrainConfig, context: Context): Promise<Start> {
  // What can be found out without a model is found out before one is downloaded.
  const dataset = await openTrainingData(config);
  const total = totalSteps(config, dataset);
  config.trainerOptions(total);
  const computed = await config.computed();
  const trainer = await createTrainer(config, context, total);
  return disposingOnFailure(trainer, async () => {
    const evaluator = await Evaluator.open(config, trainer.model.config.architecture === 'naflex');
    return { trainer, dataset, total, evaluator, computed, resumed: false };
  });
}

async function resume(config: TrainConfig, context: Context, folder: RunFolder): Promise<Start> {
  const { steps } = config.written.training;
  const total = steps ?? totalSteps(config, await openTrainingData(config));
  const trainer = await resumeTrainer(config, context, folder.checkpoint, total);
  return disposingOnFailure(trainer, async () => {
    const { savedState } = trainer;
    if (!isJsonObject(savedState) || savedState.version !== 1)
      throw new SiglipError('ERR_SIGLIP_CHECKPOINT', `${folder.checkpoint} was not saved by siglip2 train`);
    const { computed, position } = savedState as unknown as SavedState;
    await config.requireSame(computed);
    const dataset = await openTrainingData(config, position);
    const evaluator = await Evaluator.open(config, trainer.model.config.architecture === 'naflex');
    return { trainer, dataset, total, evaluator, computed, resumed: true };
  });
}

async function disposingOnFailure<T>(trainer: Trainer, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    trainer.dispose();
    throw error;
  }
}

interface Run {
  config: TrainConfig;
  context: Context;
  folder: RunFolder;
  stopAt: number | undefined;
}

/** What came of a run. */
interface Outcome {
  status: Status;
  history: History;
  skippedExamples: number;
  total: number | undefined;
}

async function train(start: Start, { config, context, folder, stopAt }: Run): Promise<Outcome> {
  const { trainer, dataset, total, resumed } = start;
  const { terminal } = context;
  // Nothing is read yet, but mistakes in the data's options show, before anything is computed or saved for them.
  await trainingBatches(config, trainer.model.config, dataset, context.signal);
  const memory = await largestMemory(config, trainer);
  if (!terminal.settings.quiet) terminal.error(memoryLine(memory));
  const step = trainer.stepsTaken;
  if (resumed && total !== undefined && step >= total)
    terminal.notice(`the training has its ${plural(step, 'step')} already`);
  const about = await describeTraining({ config, trainer, dataset, memory });
  // A new training is saved before it has metrics: then a folder with metrics always has something to go on from, and
  // whatever keeps saving from working shows before hours of work.
  if (!resumed) await saveState(trainer, folder, start.computed, dataset.position());
  await folder.copyConfig(config.document.file);
  const log = await (resumed ? MetricsLog.resume(folder.metrics, step) : MetricsLog.create(folder.metrics));
  const { history } = log;
  const training: Training = new Training({
    ...start,
    context,
    config,
    folder,
    log,
    stopAt,
    report: (status) =>
      folder.replace(
        'report.html',
        reportPage({ about, history, status, total, skippedExamples: training.skippedExamples }),
      ),
  });
  try {
    const status = await training.run();
    return { status, history, skippedExamples: training.skippedExamples, total };
  } finally {
    await log.close();
  }
}

function memoryLine(memory: TrainingMemory): string {
  const { totalBytes, parameterBytes, packedBytes, gradientBytes, optimizerBytes, activationBytes } = memory;
  const parts = [
    `weights ${bytes(parameterBytes + packedBytes)}`,
    `gradients ${bytes(gradientBytes)}`,
    `optimiser ${bytes(optimizerBytes)}`,
    `activations ${bytes(activationBytes)}`,
  ];
  return `memory for the largest batch: ${bytes(totalBytes)} (${parts.join(', ')})`;
}

/** The closing summary, for people. */
function summarise(
  terminal: Terminal,
  { status, history, skippedExamples }: Outcome,
  folder: RunFolder,
  resumption: string,
): void {
  if (terminal.settings.quiet || terminal.settings.json) return;
  const { lastStep, evaluations, examples, seconds } = history;
  const { retrieval, zeroShot } = evaluations.at(-1) ?? {};
  const shares = (values: AtRank): string =>
    Object.entries(values)
      .map(([k, share]) => `${percent(share)} at ${k}`)
      .join(', ');
  terminal.error(
    table([
      ['steps', `${count(lastStep?.step ?? 0)}, ${endings[status]}`],
      ...(lastStep === undefined ? [] : [['loss', lastStep.loss.toPrecision(4)]]),
      ['examples', `${count(examples)}${skippedExamples === 0 ? '' : `; ${count(skippedExamples)} skipped`}`],
      ...(lastStep === undefined || lastStep.skippedSteps === 0
        ? []
        : [['not finite', `${plural(lastStep.skippedSteps, 'step')} changed nothing`]]),
      ['time', duration(seconds)],
      ...(retrieval === undefined
        ? []
        : [
            ['image to text', shares(retrieval.imageToText)],
            ['text to image', shares(retrieval.textToImage)],
          ]),
      ...(zeroShot === undefined ? [] : [['zero-shot', shares(zeroShot.accuracy)]]),
      ['model', printable(folder.checkpoint)],
      ['report', printable(folder.report)],
    ]),
  );
  if (status !== 'finished') terminal.error(`go on with: ${resumption}`);
}

const endings: Record<Status, string> = {
  running: 'going on',
  finished: 'finished',
  stopped: 'not yet finished',
  interrupted: 'interrupted',
  failed: 'failed',
};

function summaryDocument({ status, history, skippedExamples, total }: Outcome, folder: RunFolder, trainer: Trainer) {
  const { lastStep, evaluations, examples, tokens, seconds } = history;
  return {
    folder: folder.folder,
    checkpoint: folder.checkpoint,
    metrics: folder.metrics,
    report: folder.report,
    device: trainer.model.device,
    status,
    step: trainer.stepsTaken,
    ...(total === undefined ? {} : { totalSteps: total }),
    ...(lastStep === undefined ? {} : { loss: lastStep.loss, learningRate: lastStep.learningRate }),
    skippedSteps: trainer.skippedSteps,
    examples,
    skippedExamples,
    tokens,
    seconds,
    ...(evaluations.length === 0 ? {} : { evaluation: evaluations.at(-1) }),
  };
}
