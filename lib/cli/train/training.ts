/** The loop of a training: steps, their metrics, and everything that is saved on the way. */
import { SiglipError } from '../../errors.js';
import type { Batch, Dataset, DatasetPosition } from '../../training/data/index.js';
import type { JsonValue, StepMetrics, Trainer } from '../../training/index.js';
import { Progress } from '../progress.js';
import type { Context } from '../run.js';
import type { TrainConfig } from './config.js';
import type { Evaluator } from './evaluator.js';
import type { MetricsLine, MetricsLog } from './metrics.js';
import type { RunFolder } from './run-folder.js';
import { shortNumber } from './scale.js';
import { tokensOf, trainingBatches } from './setup.js';

/** What is kept with a checkpoint. */
export interface SavedState {
  version: 1;
  /** What must not change when the training is continued; see `TrainConfig.computed`. */
  computed: { [key: string]: JsonValue };
  position: DatasetPosition;
}

/** How a training has ended, or that it goes on. */
export type Status = 'running' | 'finished' | 'stopped' | 'interrupted' | 'failed';

/** What a training consists of. */
export interface TrainingParts {
  context: Context;
  config: TrainConfig;
  folder: RunFolder;
  trainer: Trainer;
  dataset: Dataset;
  log: MetricsLog;
  evaluator: Evaluator | undefined;
  computed: SavedState['computed'];
  /** Where the training ends, if that is known before the data end. */
  total: number | undefined;
  /** Where this run ends, if that is earlier. */
  stopAt: number | undefined;
  /** Writes the report. */
  report: (status: Status) => Promise<void>;
}

/** A step that has been asked for. */
interface Pending {
  batch: Batch;
  metrics: Promise<StepMetrics>;
  /** Calls it off. */
  controller: AbortController;
}

const defaultMinutes = 10;

const snapshotName = (step: number): string => `snapshots/step-${String(step).padStart(8, '0')}`;

/** Saves a trainer with what continuing it needs. */
export async function saveState(
  trainer: Trainer,
  folder: RunFolder,
  computed: SavedState['computed'],
  position: DatasetPosition,
): Promise<void> {
  const state: SavedState = { version: 1, computed, position };
  await folder.requireOwn();
  await trainer.save(folder.checkpoint, { state: state as unknown as JsonValue });
}

/** One run of a training. */
export class Training {
  #position: DatasetPosition;
  /** A checkpoint holds everything up to this step. */
  #savedStep: number;
  #savedAt = performance.now();
  /** When this run began, and the seconds that earlier ones had taken. */
  readonly #started = performance.now();
  readonly #earlierSeconds: number;
  #computing = false;
  /** Of the step that waits for the one that is computed. */
  #waiting: AbortController | undefined;
  /** Whether a step has failed, so that none may follow it. */
  #stepFailed = false;
  #progress: Progress | undefined;
  /** Smoothed seconds that an example takes, everything between two steps included. */
  #secondsPerExample: number | undefined;
  #lastFinish = performance.now();
  #dataEnded = false;
  /** Whether something could not be written, so that more would not get far either. */
  #storageFailed = false;

  constructor(private readonly parts: TrainingParts) {
    this.#position = parts.dataset.position();
    this.#savedStep = parts.trainer.stepsTaken;
    this.#earlierSeconds = parts.log.history.seconds;
  }

  /** Examples that could not be used, up to the last step. */
  get skippedExamples(): number {
    return this.#position.skipped;
  }

  /**
   * Trains to the end of the training, of the data, or of this run. What has been learnt is saved in any case, also
   * when something fails, as long as saving works.
   */
  async run(): Promise<Status> {
    const { context, trainer, total, report, folder } = this.parts;
    const { terminal, signal } = context;
    const stop = (): void => {
      this.#waiting?.abort(signal.reason);
      if (!folder.wasLost) terminal.notice('finishing the step and saving; a second signal ends at once');
    };
    if (signal.aborted) stop();
    else signal.addEventListener('abort', stop, { once: true });
    this.#progress = new Progress(terminal, 'training', { total, unit: 'steps', start: trainer.stepsTaken });
    try {
      await this.#steps();
      if (trainer.stepsTaken > this.#savedStep) await this.#save();
      const status = signal.aborted ? 'interrupted' : this.#complete() ? 'finished' : 'stopped';
      if (status !== 'interrupted') await this.#evaluateAtEnd(status);
      await report(status);
      return status;
    } catch (error) {
      if (!this.#storageFailed && trainer.stepsTaken > this.#savedStep) await this.#save().catch(() => undefined);
      await report('failed').catch(() => undefined);
      throw error;
    } finally {
      signal.removeEventListener('abort', stop);
      this.#progress.stop();
    }
  }

  #complete(): boolean {
    const { total, trainer } = this.parts;
    return this.#dataEnded || (total !== undefined && trainer.stepsTaken >= total);
  }

  /** The last step of this run. */
  get #last(): number {
    const { total = Number.POSITIVE_INFINITY, stopAt = Number.POSITIVE_INFINITY } = this.parts;
    return Math.min(total, stopAt);
  }

  async #steps(): Promise<void> {
    const { config, dataset, trainer, context } = this.parts;
    await this.#makeUp();
    if (trainer.stepsTaken >= this.#last) return;
    const source = await trainingBatches(config, trainer.model.config, dataset, context.signal);
    try {
      let current = await this.#begin(source);
      while (current !== undefined) {
        const step = trainer.stepsTaken + 1;
        // The next batch is prepared, and its step queued, while this one is computed; not across a save.
        const goesOn = step < this.#last && !this.#pausesAfter(step);
        const next = goesOn ? this.#begin(source) : undefined;
        next?.catch(() => undefined);
        try {
          if (!(await this.#finish(current))) break;
        } catch (error) {
          await this.#callOff(next);
          throw error;
        }
        if (!goesOn) await this.#pause();
        current =
          next !== undefined ? await next : trainer.stepsTaken < this.#last ? await this.#begin(source) : undefined;
        // What was skipped after the last batch belongs to none.
        if (current === undefined && this.#dataEnded) this.#position = dataset.position();
      }
    } finally {
      await source.return();
    }
  }

  /** Asks for the step of the next batch; `undefined` when there is none or the run is to end. */
  async #begin(source: AsyncGenerator<Batch, void>): Promise<Pending | undefined> {
    const { trainer, context } = this.parts;
    const { signal } = context;
    if (signal.aborted) return undefined;
    let next: IteratorResult<Batch, void>;
    try {
      next = await source.next();
    } catch (error) {
      if (signal.aborted) return undefined;
      throw error;
    }
    if (next.done) this.#dataEnded = true;
    if (next.done || signal.aborted || this.#stepFailed) return undefined;
    const batch = next.value;
    const { images, texts, positives, maxPatches } = batch;
    const controller = new AbortController();
    if (this.#computing) this.#waiting = controller;
    const metrics = trainer.step(
      {
        images,
        texts,
        ...(positives === undefined ? {} : { positives }),
        ...(maxPatches === undefined ? {} : { maxPatches }),
      },
      { signal: controller.signal },
    );
    // Its failure is reported when its turn comes; until then it must not count as unhandled.
    metrics.catch(() => undefined);
    return { batch, metrics, controller };
  }

  /** Keeps the step that follows a failed one from being taken. Once it has been taken all the same, it counts. */
  async #callOff(next: Promise<Pending | undefined> | undefined): Promise<void> {
    this.#stepFailed = true;
    const pending = await next?.catch(() => undefined);
    pending?.controller.abort();
    if (pending !== undefined) await this.#finish(pending).catch(() => undefined);
  }

  /** Waits for a step and notes what it did; false when it was called off before it began. */
  async #finish({ batch, metrics: promise }: Pending): Promise<boolean> {
    const { context, trainer } = this.parts;
    let metrics: StepMetrics;
    this.#computing = true;
    try {
      metrics = await promise;
    } catch (error) {
      if (context.signal.aborted && error instanceof SiglipError && error.code === 'ERR_SIGLIP_ABORTED') return false;
      throw error;
    } finally {
      this.#computing = false;
      this.#waiting = undefined;
    }
    this.#position = batch.position;
    const examples = batch.images.length;
    const tokens = tokensOf(trainer.model.config, batch);
    await this.#log({ kind: 'step', ...metrics, examples, tokens, ...this.#clock() });
    const { step, loss, learningRate, skippedSteps } = metrics;
    this.#progress?.update(
      step,
      [
        `loss ${loss.toPrecision(4)}`,
        `learning rate ${shortNumber(learningRate)}`,
        `${Number(this.#rate(examples).toPrecision(3)).toLocaleString('en-US')} examples/s`,
        ...(skippedSteps > 0 ? [`${skippedSteps} not finite`] : []),
      ].join(', '),
    );
    return true;
  }

  /** Examples a second of late, by the clock, when another step has been done. */
  #rate(examples: number): number {
    const now = performance.now();
    const seconds = (now - this.#lastFinish) / 1000 / examples;
    this.#lastFinish = now;
    this.#secondsPerExample = 0.9 * (this.#secondsPerExample ?? seconds) + 0.1 * seconds;
    return 1 / this.#secondsPerExample;
  }

  #clock(): { seconds: number; time: string } {
    const seconds = this.#earlierSeconds + (performance.now() - this.#started) / 1000;
    return { seconds: Math.round(seconds * 1000) / 1000, time: new Date().toISOString() };
  }

  #due(step: number): { save: boolean; evaluate: boolean; snapshot: boolean } {
    const { everySteps, everyMinutes, snapshotEverySteps } = this.parts.config.written.checkpoints ?? {};
    const minutes = everyMinutes ?? (everySteps === undefined ? defaultMinutes : undefined);
    const late = minutes !== undefined && performance.now() - this.#savedAt >= minutes * 60_000;
    const every = (period: number | undefined): boolean => period !== undefined && step % period === 0;
    return {
      save: late || every(everySteps),
      evaluate: every(this.parts.evaluator?.everySteps),
      snapshot: every(snapshotEverySteps),
    };
  }

  #pausesAfter(step: number): boolean {
    const { save, evaluate, snapshot } = this.#due(step);
    return save || evaluate || snapshot;
  }

  /** What an earlier run was to do after its last step and did not come to: it was ended between saving and this. */
  async #makeUp(): Promise<void> {
    const { trainer, folder } = this.parts;
    const step = trainer.stepsTaken;
    if (step === 0) return;
    const { evaluate, snapshot } = this.#due(step);
    if (snapshot && !(await folder.holds(snapshotName(step))))
      await folder.replaceFolder(snapshotName(step), (target) => trainer.saveModel(target));
    if (evaluate) await this.#evaluate();
  }

  /** Everything that is done between two steps now and then. An evaluation comes after the save that it could cost. */
  async #pause(): Promise<void> {
    const { trainer, folder, report, context } = this.parts;
    const step = trainer.stepsTaken;
    const { save, evaluate, snapshot } = this.#due(step);
    if (save || evaluate) await this.#save();
    if (snapshot) await folder.replaceFolder(snapshotName(step), (target) => trainer.saveModel(target));
    if (evaluate && !context.signal.aborted) await this.#evaluate();
    if (save || evaluate) await report('running');
  }

  async #save(): Promise<void> {
    const { trainer, folder, log, computed } = this.parts;
    await this.#store(async () => {
      await log.sync();
      await saveState(trainer, folder, computed, this.#position);
    });
    this.#savedStep = trainer.stepsTaken;
    this.#savedAt = performance.now();
  }

  async #log(line: MetricsLine): Promise<void> {
    const { folder, log } = this.parts;
    await this.#store(async () => {
      await folder.requireOwn();
      await log.add(line);
    });
  }

  async #store(write: () => Promise<void>): Promise<void> {
    try {
      await write();
    } catch (error) {
      this.#storageFailed = true;
      throw error;
    }
  }

  async #evaluate(): Promise<void> {
    const { trainer, evaluator, log, context } = this.parts;
    const step = trainer.stepsTaken;
    if (evaluator === undefined || step === 0 || log.history.evaluatedAt(step)) return;
    const shown = context.terminal.active;
    shown?.hide();
    try {
      const results = await evaluator.run(trainer.model, context);
      await this.#log({ kind: 'evaluation', step, ...results, ...this.#clock() });
    } catch (error) {
      // An evaluation that was interrupted is made up for when the training goes on.
      if (!context.signal.aborted) throw error;
    } finally {
      context.terminal.active = shown;
    }
  }

  /** An evaluation that was missed, or that of the finished model, and its averaged weights. */
  async #evaluateAtEnd(status: Status): Promise<void> {
    const { trainer, folder, config } = this.parts;
    if (status === 'finished' || this.#due(trainer.stepsTaken).evaluate) await this.#evaluate();
    if (status === 'finished' && config.written.training.ema !== undefined)
      await folder.replaceFolder('average', (target) => trainer.saveModel(target, { average: true }));
  }
}
