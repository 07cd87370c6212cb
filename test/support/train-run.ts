/** Trainings of the command line on a few made-up pictures. */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import type { MetricsLine, StepLine } from '../../lib/cli/train/metrics.js';
import { checkpoint } from './command-line.js';
import { parseSafetensors } from './golden.js';
import { picture } from './training-data.js';

const colours = ['red', 'green', 'blue', 'grey'];

/** Files of a folder with pictures, captions, pictures by class, and `config.yaml` with this text. */
export function trainFiles(config: string): Record<string, unknown> {
  const files: Record<string, unknown> = {};
  const lines: string[] = [];
  for (let n = 0; n < 22; n++) {
    const colour = colours[n % colours.length] as string;
    files[`pictures/${n}.png`] = picture(n * 2900, 5 + n);
    files[`classes/${colour}/${n}.png`] = files[`pictures/${n}.png`];
    lines.push(JSON.stringify({ image: `${n}.png`, text: [`${colour} number ${n}`, `a ${colour} picture`] }));
  }
  files['pictures/captions.jsonl'] = `${lines.join('\n')}\n`;
  return { ...files, 'config.yaml': config };
}

/** A training of the smallest model: pictures of 4 patches, 4 a batch. */
export const tinyConfig = `model: ${checkpoint}
data:
  folder: pictures
  captions: captions.jsonl
  batchSize: 4
  sequenceLengths: 4
training:
  steps: 12
  optimizer: { learningRate: 1e-3 }
  schedule: { name: cosine, warmupSteps: 2 }
  frozen: [vision_model.embeddings]
checkpoints:
  everySteps: 3
`;

export const evaluationConfig = `evaluation:
  everySteps: 4
  retrieval: { folder: pictures, captions: captions.jsonl, maxPatches: 4 }
  zeroShot: { folder: classes, templates: ['{}', 'a {} picture'], maxPatches: 4, limit: 10 }
`;

/** Everything that continuing depends on, and the model. */
export function savedBytes(run: string): Buffer[] {
  return ['training_state.safetensors', 'model.safetensors'].map((name) =>
    readFileSync(path.join(run, 'checkpoint', name)),
  );
}

/** The step that a checkpoint was saved after. */
export function savedStep(run: string): number {
  const { metadata } = parseSafetensors(savedBytes(run)[0] as Buffer);
  return (JSON.parse(metadata.siglip2_training as string) as { progress: { step: number } }).progress.step;
}

/** The lines of metrics.jsonl, all of which must be whole. */
export function metricsOf(run: string): MetricsLine[] {
  const text = readFileSync(path.join(run, 'metrics.jsonl'), 'utf8');
  if (!text.endsWith('\n')) throw new Error('the last line is not whole');
  return text
    .slice(0, -1)
    .split('\n')
    .map((line) => JSON.parse(line) as MetricsLine);
}

/** What a training computed, without times. */
export function computedLines(run: string): unknown[] {
  return metricsOf(run).map(
    ({ time: _time, seconds: _seconds, ...line }) =>
      Object.fromEntries(
        Object.entries(line).filter(([key]) => key !== 'examplesPerSecond' && key !== 'evaluationSeconds'),
      ) as unknown,
  );
}

/** The numbers of the steps in metrics.jsonl. */
export function stepsOf(run: string): number[] {
  return metricsOf(run)
    .filter((line): line is StepLine => line.kind === 'step')
    .map(({ step }) => step);
}
