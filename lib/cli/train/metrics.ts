/** `metrics.jsonl`: a line for every step and every evaluation, and what is known of a training from reading it. */
import { type FileHandle, open } from 'node:fs/promises';
import path from 'node:path';
import { isJsonObject } from '../../model/json.js';
import { StagedFiles } from '../../model/staged-files.js';
import type { AtRank } from '../../training/evaluation.js';
import type { StepMetrics } from '../../training/trainer.js';
import { writeError } from './run-folder.js';
import { Series } from './series.js';

/** A step. Numbers that are not finite are null in the file. */
export interface StepLine extends StepMetrics {
  kind: 'step';
  examples: number;
  /** Patches and text tokens that went through the towers. */
  tokens: number;
  /** Since the training began, without the time between an interruption and its continuation. */
  seconds: number;
  /** When the step was complete, ISO 8601. */
  time: string;
}

/** An evaluation of the model after a step. Shares are from 0 to 1. */
export interface EvaluationLine {
  kind: 'evaluation';
  step: number;
  retrieval?: { images: number; texts: number; imageToText: AtRank; textToImage: AtRank; skipped: number };
  zeroShot?: { images: number; classes: number; accuracy: AtRank; skipped: number };
  /** How long it took. */
  evaluationSeconds: number;
  seconds: number;
  time: string;
}

export type MetricsLine = StepLine | EvaluationLine;

/** The curves of a report. */
export const curveNames = [
  'loss',
  'learningRate',
  'gradNorm',
  'logitScale',
  'logitBias',
  'examplesPerSecond',
] as const satisfies (keyof StepLine)[];
export type CurveName = (typeof curveNames)[number];

/** What a report and a summary say of a training. Its size does not grow with the training. */
export class History {
  readonly curves: Readonly<Record<CurveName, Series>> = {
    loss: new Series(),
    learningRate: new Series(),
    gradNorm: new Series(),
    logitScale: new Series(),
    logitBias: new Series(),
    examplesPerSecond: new Series(),
  };
  readonly evaluations: EvaluationLine[] = [];
  lastStep: StepLine | undefined;
  examples = 0;
  tokens = 0;
  /** Seconds of training at the last line. */
  seconds = 0;

  add(line: MetricsLine): void {
    this.seconds = line.seconds;
    if (line.kind === 'evaluation') {
      this.evaluations.push(line);
      return;
    }
    for (const name of curveNames) {
      const value = line[name];
      // The temperature is what people know; its logarithm is what is trained.
      this.curves[name].add(line.step, name === 'logitScale' ? Math.exp(value) : value);
    }
    this.examples += line.examples;
    this.tokens += line.tokens;
    this.lastStep = line;
  }

  /** Whether the model has been evaluated after this step. */
  evaluatedAt(step: number): boolean {
    return this.evaluations.at(-1)?.step === step;
  }
}

/** Appends lines to the file. Each is handed to the system before the next step counts as done. */
export class MetricsLog {
  private constructor(
    private readonly file: string,
    private readonly handle: FileHandle,
    readonly history: History,
  ) {}

  /** A new, empty file. */
  static async create(file: string): Promise<MetricsLog> {
    return new MetricsLog(file, await open(file, 'wx').catch(failed(file)), new History());
  }

  /**
   * Continues a file after a step that was saved: later lines, and one that was cut off, are removed. The file is at any
   * time the old one or the new one as a whole.
   */
  static async resume(file: string, step: number): Promise<MetricsLog> {
    const history = new History();
    const staged = new StagedFiles(path.dirname(file));
    const name = path.basename(file);
    try {
      await staged.write(name, (handle) => copyLines(file, step, handle, history));
      await staged.place(name, name);
      await staged.sync();
    } catch (cause) {
      await staged.undo();
      throw writeError(file, cause);
    }
    return new MetricsLog(file, await open(file, 'a').catch(failed(file)), history);
  }

  async add(line: MetricsLine): Promise<void> {
    this.history.add(line);
    await this.handle.appendFile(`${JSON.stringify(line)}\n`).catch(failed(this.file));
  }

  /** Makes the lines durable. */
  async sync(): Promise<void> {
    await this.handle.sync().catch(failed(this.file));
  }

  async close(): Promise<void> {
    await this.handle.close();
  }
}

function failed(file: string): (cause: unknown) => never {
  return (cause) => {
    throw writeError(file, cause);
  };
}

const pieceBytes = 1 << 20;

async function copyLines(file: string, step: number, to: FileHandle, history: History): Promise<void> {
  let source: FileHandle;
  try {
    source = await open(file, 'r');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return;
    throw error;
  }
  try {
    let piece = '';
    for await (const text of source.readLines({ encoding: 'utf8', autoClose: false })) {
      const line = parseLine(text);
      if (line === undefined || line.step > step) continue;
      history.add(line);
      piece += `${text}\n`;
      if (piece.length < pieceBytes) continue;
      await to.writeFile(piece);
      piece = '';
    }
    await to.writeFile(piece);
  } finally {
    await source.close();
  }
}

/** A line of the file; `undefined` for what is none, such as one that was cut off. */
function parseLine(text: string): MetricsLine | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (!isJsonObject(value) || !Number.isSafeInteger(value.step)) return undefined;
  if (value.kind === 'evaluation') return value as unknown as EvaluationLine;
  if (value.kind !== 'step') return undefined;
  const numbers = Object.entries(value).map(([key, entry]) => [key, entry === null ? Number.NaN : entry]);
  return Object.fromEntries(numbers) as StepLine;
}
