/** `siglip2 train` and its data: mistakes in how they are read, and what is at their end. */
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { checkpoint, documentOf, type Outcome, siglip2 } from '../support/command-line.js';
import { temporaryFolder } from '../support/folders.js';
import { checkpointFolder } from '../support/golden.js';
import { evaluationConfig, metricsOf, tinyConfig, trainFiles } from '../support/train-run.js';

const config = `${tinyConfig}${evaluationConfig.replaceAll(', maxPatches: 4', '')}`;
const train = (folder: string, ...options: string[]): Promise<Outcome> =>
  siglip2(['train', 'config.yaml', '--out', 'run', ...options], { cwd: folder });

describe('a mistake in the data', () => {
  const lengths = 'sequenceLengths: 4';
  const size = `batchSize: 4\n  ${lengths}`;
  it.each<[what: string, from: string, to: string, expected: string]>([
    [
      'in random changes',
      lengths,
      `${lengths}\n  augment: { size: 32, rotation: 270 }`,
      'config.yaml:7:34: data.augment.rotation: expected',
    ],
    [
      'of a budget below a picture',
      size,
      'tokenBudget: 8\n  sequenceLengths: [4, 16]',
      'config.yaml:5:16: data.tokenBudget: expected an integer of at least 16, got 8',
    ],
    [
      'of a resolution for a model that has its own',
      `model: ${checkpoint}`,
      `model: ${checkpointFolder('fixed_p14_hd64')}`,
      'config.yaml:6:20: data.sequenceLengths: is for NaFlex models',
    ],
    [
      'of a key for labels that are not there',
      'folder: classes',
      'folder: classes, labelKey: class',
      'evaluation.zeroShot.labelKey: belongs to labels, which is not set',
    ],
  ])('%s is named before anything is saved', async (_, from, to, expected) => {
    expect(config).toContain(from);
    const folder = temporaryFolder(trainFiles(config.replace(from, to)));
    const result = await train(folder);
    expect(result).toMatchObject({ code: 1, stderr: expect.stringContaining(expected) });
    expect(existsSync(path.join(folder, 'run', 'checkpoint'))).toBe(false);
  });
});

it('examples that are skipped after the last batch are counted', async () => {
  const text = tinyConfig.replace('steps: 12', 'epochs: 1').replace('batchSize: 4', 'batchSize: 4\n  shuffle: false');
  const folder = temporaryFolder(trainFiles(text));
  for (const name of ['20.png', '21.png']) writeFileSync(path.join(folder, 'pictures', name), 'no picture');
  const result = await train(folder, '--json');
  expect(documentOf(result)).toMatchObject({ status: 'finished', step: 5, examples: 20, skippedExamples: 2 });
});

it('what a run was ended before, after its last step, is made up for when the training goes on', async () => {
  const folder = temporaryFolder(trainFiles(`${tinyConfig}  snapshotEverySteps: 4\n${evaluationConfig}`));
  const run = path.join(folder, 'run');
  await train(folder, '--steps', '4');
  // As if it had been killed after saving.
  const metrics = path.join(run, 'metrics.jsonl');
  const steps = readFileSync(metrics, 'utf8').replace(/^\{"kind":"evaluation".*\n/m, '');
  writeFileSync(metrics, steps);
  rmSync(path.join(run, 'snapshots'), { recursive: true });
  expect(await train(folder, '--resume', '--steps', '8')).toMatchObject({ code: 0 });
  const kinds = metricsOf(run).map(({ kind, step }) => `${kind} ${step}`);
  expect(kinds.slice(3, 6)).toEqual(['step 4', 'evaluation 4', 'step 5']);
  expect(kinds.filter((kind) => kind.startsWith('evaluation'))).toEqual(['evaluation 4', 'evaluation 8']);
  expect(readdirSync(path.join(run, 'snapshots'))).toEqual(['step-00000004', 'step-00000008']);
});
