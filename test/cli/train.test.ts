/** `siglip2 train`: whole trainings, their interruptions and their continuation. */
import type { ChildProcess } from 'node:child_process';
import {
  appendFileSync,
  cpSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { EvaluationLine, StepLine } from '../../lib/cli/train/metrics.js';
import { Siglip2 } from '../../lib/index.js';
import { checkpoint, documentOf, type Outcome, type RunOptions, siglip2 } from '../support/command-line.js';
import { temporaryFolder, writeFiles } from '../support/folders.js';
import {
  computedLines,
  evaluationConfig,
  metricsOf,
  savedBytes,
  savedStep,
  stepsOf,
  tinyConfig,
  trainFiles,
} from '../support/train-run.js';

const config = `${tinyConfig}  snapshotEverySteps: 6\n${evaluationConfig}`;
const range = (from: number, to: number): number[] => Array.from({ length: to - from + 1 }, (_, i) => from + i);

function train(folder: string, options: string[], run: RunOptions = {}): Promise<Outcome> {
  return siglip2(['train', 'config.yaml', ...options], { cwd: folder, ...run });
}

/** A folder with a configuration and its data, and where its training goes. */
function newFolder(text = config): { folder: string; run: string } {
  const folder = temporaryFolder(trainFiles(text));
  return { folder, run: path.join(folder, 'run') };
}

/** Does something to the process as soon as metrics.jsonl has this many lines. */
function atLine(run: string, lines: number, act: (child: ChildProcess) => void): RunOptions {
  const onStart = (child: ChildProcess): void => {
    const file = path.join(run, 'metrics.jsonl');
    const timer = setInterval(() => {
      if (!existsSync(file) || readFileSync(file, 'utf8').split('\n').length <= lines) return;
      clearInterval(timer);
      act(child);
    }, 2);
    child.on('close', () => clearInterval(timer));
  };
  return { onStart };
}

function endAt(run: string, lines: number, signal: NodeJS.Signals): RunOptions {
  return atLine(run, lines, (child) => child.kill(signal));
}

// The training without interruption, which every interrupted one must equal.
const home = mkdtempSync(path.join(tmpdir(), 'siglip2-test-'));
const straight = path.join(home, 'run');
let whole: Outcome;
beforeAll(async () => {
  writeFiles(home, trainFiles(config));
  whole = await train(home, ['--out', 'run', '--json']);
});
afterAll(() => rmSync(home, { recursive: true, force: true }));

/** Requires that a training has computed what the one without interruption has. */
function expectWhole(run: string): void {
  expect(computedLines(run)).toEqual(computedLines(straight));
  const expected = savedBytes(straight);
  savedBytes(run).forEach((bytes, i) => {
    expect(bytes.equals(expected[i] as Buffer)).toBe(true);
  });
}

describe('a training', () => {
  it('leaves model, metrics, report, snapshots and its configuration', async () => {
    expect(whole.stderr).toContain('memory for the largest batch: ');
    expect(whole.code).toBe(0);
    const summary = documentOf(whole);
    expect(summary).toMatchObject({
      folder: straight,
      status: 'finished',
      step: 12,
      totalSteps: 12,
      skippedSteps: 0,
      skippedExamples: 0,
      examples: 48,
      device: 'cpu',
    });
    expect(readdirSync(straight).sort()).toEqual([
      'checkpoint',
      'config.yaml',
      'metrics.jsonl',
      'report.html',
      'snapshots',
    ]);
    expect(readFileSync(path.join(straight, 'config.yaml'), 'utf8')).toBe(config);
    expect(readdirSync(path.join(straight, 'snapshots'))).toEqual(['step-00000006', 'step-00000012']);

    using start = await Siglip2.load(checkpoint);
    using trained = await Siglip2.load(path.join(straight, 'checkpoint'));
    using snapshot = await Siglip2.load(path.join(straight, 'snapshots', 'step-00000012'));
    const [before, after, copy] = await Promise.all(
      [start, trained, snapshot].map(async (model) => (await model.embedTexts('red number 0')).data),
    );
    expect(after).not.toEqual(before);
    expect(copy).toEqual(after);
    expect(trained.logitBias).toBe((metricsOf(straight).findLast(({ kind }) => kind === 'step') as StepLine).logitBias);
  });

  it('has a line of metrics for every step, and one for every evaluation', () => {
    expect(stepsOf(straight)).toEqual(range(1, 12));
    const lines = metricsOf(straight);
    // Cosine with two steps of warm-up, over the steps of the training.
    const rates = lines.flatMap((line) => (line.kind === 'step' ? [line.learningRate] : []));
    rates.forEach((rate, step) => {
      const factor = Math.min(1, step / 2) * 0.5 * (1 + Math.cos(Math.PI * Math.max(0, (step - 2) / 10)));
      expect(rate).toBeCloseTo(1e-3 * factor, 12);
    });
    // Pictures of at most 4 patches and texts of 64 tokens.
    for (const line of lines)
      if (line.kind === 'step') {
        expect(line.examples).toBe(4);
        expect(line.tokens).toBeGreaterThan(4 * 64);
        expect(line.tokens).toBeLessThanOrEqual(4 * (64 + 4));
        expect(line.updated).toBe(true);
      }
    const evaluations = lines.filter((line): line is EvaluationLine => line.kind === 'evaluation');
    expect(evaluations.map(({ step }) => step)).toEqual([4, 8, 12]);
    expect(documentOf(whole).evaluation).toEqual(evaluations[2]);
    for (const { retrieval, zeroShot } of evaluations) {
      expect(retrieval).toMatchObject({ images: 22, texts: 44, skipped: 0 });
      expect(zeroShot).toMatchObject({ images: 10, classes: 4, skipped: 0, accuracy: { 5: 1 } });
    }
  });

  it('writes a report that needs nothing else', () => {
    const report = readFileSync(path.join(straight, 'report.html'), 'utf8');
    expect(report).not.toMatch(/https?:|\bsrc=|\bhref=|@import|url\(/);
    for (const part of [
      'finished',
      'Loss',
      'Learning rate',
      'Gradient norm',
      'Logit bias',
      'Retrieval, text to image',
      'Zero-shot',
    ])
      expect(report).toContain(part);
    expect(report.match(/<svg /g)?.length).toBe(9);
    expect(report).toContain('22 pictures, 44 texts');
    expect(report).toContain('Last evaluation');
    expect(report).not.toMatch(/NaN|undefined|Infinity/);
  });

  it('shows progress and a summary on stderr, and nothing when told so', async () => {
    const { folder } = newFolder(tinyConfig);
    const shown = await train(folder, ['--out', 'run', '--steps', '2']);
    expect(shown.code).toBe(0);
    expect(shown.stdout).toBe('');
    expect(shown.stderr).toMatch(/^ {2}steps +2, not yet finished$/m);
    expect(shown.stderr).toContain('go on with: siglip2 train config.yaml --out run --resume');
    const quiet = await train(folder, ['--out', 'run', '--resume', '--quiet']);
    expect(quiet).toMatchObject({ code: 0, stdout: '' });
    expect(quiet.stderr).toBe('');
  });

  it('ends with its epochs; a broken picture is skipped and counted', async () => {
    const text = tinyConfig.replace('steps: 12', 'epochs: 2').replace('batchSize: 4', 'batchSize: 4\n  seed: 3');
    const { folder, run } = newFolder(text);
    writeFileSync(path.join(folder, 'pictures', '7.png'), 'no picture');
    const result = await train(folder, ['--out', 'run', '--json']);
    // 21 pictures, twice: ten batches of four, and a last one of two.
    expect(documentOf(result)).toMatchObject({
      status: 'finished',
      step: 11,
      totalSteps: 11,
      examples: 42,
      skippedExamples: 2,
    });
    expect(metricsOf(run).at(-1)).toMatchObject({ examples: 2 });
    expect(readFileSync(path.join(run, 'report.html'), 'utf8')).toMatch(
      /class="wrong"><dt>Examples skipped<\/dt><dd>2</,
    );
  });

  it('cuts a last batch that is smaller than its number of micro-batches into single examples', async () => {
    const { folder, run } = newFolder(tinyConfig.replace('steps: 12', 'epochs: 1\n  microBatches: 4'));
    const result = await train(folder, ['--out', 'run', '--json']);
    expect(documentOf(result)).toMatchObject({ status: 'finished', step: 6, examples: 22 });
    expect(metricsOf(run).at(-1)).toMatchObject({ examples: 2 });
  });

  it('goes on when gradients are not finite, and says so', async () => {
    const text = tinyConfig
      .replace('learningRate: 1e-3', 'learningRate: 1e30')
      .replace('{ name: cosine, warmupSteps: 2 }', '{ name: constant }');
    const { folder, run } = newFolder(text);
    const result = await train(folder, ['--out', 'run', '--steps', '4']);
    expect(result.code).toBe(0);
    expect(result.stderr).toMatch(/not finite +\d steps? changed nothing/);
    const steps = metricsOf(run) as StepLine[];
    const last = steps[3] as StepLine;
    expect(last.updated).toBe(false);
    expect(last.skippedSteps).toBeGreaterThan(0);
    expect([last.loss, last.gradNorm]).toContain(null);
    const report = readFileSync(path.join(run, 'report.html'), 'utf8');
    expect(report).toContain('class="broken"');
    // What is null in the file is not finite again for whoever continues.
    const resumed = await train(folder, ['--out', 'run', '--resume', '--steps', '5', '--json']);
    expect(documentOf(resumed)).toMatchObject({ step: 5, skippedSteps: last.skippedSteps + 1 });
  });

  it('trains a fresh model, with averages and patterns, from JSON and the folder that it names', async () => {
    const { folder } = newFolder();
    const json = {
      model: { config: checkpoint },
      data: { folder: 'pictures', captions: ['captions.jsonl'], tokenBudget: 40, sequenceLengths: [4, 10] },
      training: { steps: 3, seed: 5, ema: { decay: 0.5 }, groups: [{ match: '/bias$/', learningRateScale: 2 }] },
      output: 'elsewhere/run',
    };
    writeFileSync(path.join(folder, 'config.json'), JSON.stringify(json));
    const result = await siglip2(['train', path.join(folder, 'config.json'), '--json']);
    expect(result.code).toBe(0);
    const run = path.join(folder, 'elsewhere', 'run');
    expect(documentOf(result)).toMatchObject({ folder: run, step: 3, status: 'finished' });
    expect(readdirSync(run).sort()).toEqual(['average', 'checkpoint', 'config.json', 'metrics.jsonl', 'report.html']);
    using model = await Siglip2.load(path.join(run, 'checkpoint'));
    using average = await Siglip2.load(path.join(run, 'average'));
    expect(average.logitBias).not.toBe(model.logitBias);
    expect((metricsOf(run) as StepLine[]).every(({ examples }) => examples === 10 || examples === 4)).toBe(true);
  });
});

describe('an interrupted training', () => {
  it('continued, is the one without interruption, to the last bit', async () => {
    const { folder, run } = newFolder();
    const first = await train(folder, ['--out', 'run', '--steps', '5', '--json']);
    expect(documentOf(first)).toMatchObject({ status: 'stopped', step: 5 });
    expect(savedStep(run)).toBe(5);
    const second = await train(folder, ['--out', 'run', '--resume', '--json']);
    expect(documentOf(second)).toMatchObject({ status: 'finished', step: 12, examples: 48 });
    expectWhole(run);
    const seconds = metricsOf(run).map((line) => line.seconds);
    expect(seconds).toEqual([...seconds].sort((a, b) => a - b));
    // Once more there is nothing left to do.
    const third = await train(folder, ['--out', 'run', '--resume']);
    expect(third.stderr).toContain('note: the training has its 12 steps already');
    expectWhole(run);
  });

  it('killed again and again, loses only what came after its last checkpoint', async () => {
    const { folder, run } = newFolder();
    for (const lines of [5, 7, 9, 12]) {
      const resumed = existsSync(path.join(run, 'checkpoint')) ? ['--resume'] : [];
      const result = await train(folder, ['--out', 'run', ...resumed], endAt(run, lines, 'SIGKILL'));
      expect(result.signal).toBe('SIGKILL');
    }
    const last = await train(folder, ['--out', 'run', '--resume', '--json']);
    expect(documentOf(last)).toMatchObject({ step: 12 });
    expectWhole(run);
    const leftovers = readdirSync(run, { recursive: true, encoding: 'utf8' }).filter((name) =>
      /\.new$|\.old$|unfinished|lock/.test(name),
    );
    expect(leftovers).toEqual([]);
  });

  it.each([
    ['SIGINT', 130, 'interrupted\n'],
    ['SIGTERM', 143, 'stopped by SIGTERM\n'],
  ] as const)('by %s saves the step that it has come to', async (signal, code, message) => {
    // With nothing to do between the steps, so that the next one waits while one is computed.
    const { folder, run } = newFolder(config.replace('everySteps: 3', 'everySteps: 100'));
    const result = await train(folder, ['--out', 'run'], endAt(run, 1, signal));
    expect(result).toMatchObject({ code, signal: null });
    expect(result.stderr).toContain('note: finishing the step and saving');
    expect(result.stderr.endsWith(message)).toBe(true);
    const steps = stepsOf(run);
    expect(steps).toEqual(range(1, steps.length));
    expect(steps.length).toBeLessThan(12);
    expect(readFileSync(path.join(run, 'report.html'), 'utf8')).toContain('>interrupted<');
    expect(savedStep(run)).toBe(steps.length);
    await train(folder, ['--out', 'run', '--resume']);
    expectWhole(run);
  });

  it('says as JSON where it was interrupted', async () => {
    const { folder, run } = newFolder();
    const result = await train(folder, ['--out', 'run', '--json'], endAt(run, 2, 'SIGTERM'));
    expect(result.code).toBe(143);
    expect(documentOf(result)).toMatchObject({
      error: { code: 'ERR_SIGLIP_ABORTED', details: { step: stepsOf(run).length, folder: run } },
    });
  });

  it('drops lines after its checkpoint and one that was cut off', async () => {
    const { folder, run } = newFolder();
    await train(folder, ['--out', 'run', '--steps', '6']);
    const lines = readFileSync(path.join(straight, 'metrics.jsonl'), 'utf8').split('\n');
    const seventh = lines.find((line) => line.startsWith('{"kind":"step","step":7,')) as string;
    appendFileSync(path.join(run, 'metrics.jsonl'), `${seventh}\n${seventh.slice(0, 40)}`);
    await train(folder, ['--out', 'run', '--resume']);
    expectWhole(run);
  });

  it('keeps its checkpoint when the disk is full', async () => {
    const { folder, run } = newFolder();
    await train(folder, ['--out', 'run', '--steps', '4']);
    const before = savedBytes(run);
    const full = path.join(folder, 'full.mjs');
    writeFileSync(
      full,
      `import { open } from 'node:fs/promises';
      const handle = await open(new URL(import.meta.url));
      const prototype = Object.getPrototypeOf(handle);
      await handle.close();
      const write = prototype.write;
      let left = 4_000_000;
      prototype.write = function (data, ...rest) {
        left -= data.byteLength ?? 0;
        if (left < 0) throw Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC' });
        return write.call(this, data, ...rest);
      };`,
    );
    const env = { NODE_OPTIONS: `--import ${full}` };
    const result = await train(folder, ['--out', 'run', '--resume', '--json'], { env });
    expect(result.code).toBe(1);
    expect(documentOf(result)).toMatchObject({
      error: { code: 'ERR_SIGLIP_CHECKPOINT', message: expect.stringContaining('no space left on device') },
    });
    savedBytes(run).forEach((bytes, i) => {
      expect(bytes.equals(before[i] as Buffer)).toBe(true);
    });
    await train(folder, ['--out', 'run', '--resume']);
    expectWhole(run);
  });

  it('by a step that fails saves what came before, and not the step that waited behind', async () => {
    const { folder, run } = newFolder(config.replace('everySteps: 3', 'everySteps: 100'));
    const broken = path.join(folder, 'broken.cjs');
    // The third step fails when the fourth has long been asked for.
    writeFileSync(
      broken,
      `const addon = require(${JSON.stringify(path.resolve('build/Release/siglip2.node'))});
      const { trainerStep } = addon;
      let steps = 0;
      addon.trainerStep = (...operands) =>
        ++steps === 3
          ? new Promise((_, reject) => setTimeout(() => reject(new Error('the device is gone')), 1000))
          : trainerStep(...operands);`,
    );
    const env = { NODE_OPTIONS: `--require ${broken}` };
    const result = await train(folder, ['--out', 'run'], { env });
    expect(result).toMatchObject({ code: 1, stderr: expect.stringContaining('the device is gone') });
    expect(stepsOf(run)).toEqual([1, 2]);
    expect(savedStep(run)).toBe(2);
    await train(folder, ['--out', 'run', '--resume']);
    expectWhole(run);
  });

  it('by a pause in which another process took it over writes nothing more', async () => {
    const { folder, run } = newFolder(tinyConfig.replace('everySteps: 3', 'everySteps: 100'));
    const other = JSON.stringify({ host: 'another machine', pid: 1, nonce: 'other' });
    const lock = path.join(run, '.lock');
    const takeOver = atLine(run, 2, (child) => {
      child.kill('SIGSTOP');
      writeFileSync(lock, other);
      child.kill('SIGCONT');
    });
    const result = await train(folder, ['--out', 'run'], takeOver);
    expect(result).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('another process took it over while this one stood still'),
    });
    expect(savedStep(run)).toBe(0);
    expect(stepsOf(run).length).toBeLessThan(12);
    expect(existsSync(path.join(run, 'report.html'))).toBe(false);
    expect(readFileSync(lock, 'utf8')).toBe(other);
  });

  it('saves what it has when its data fail', async () => {
    const { folder, run } = newFolder();
    await train(folder, ['--out', 'run', '--steps', '4']);
    // Rows of the same number and length, but without captions.
    const file = path.join(folder, 'pictures', 'captions.jsonl');
    writeFileSync(file, readFileSync(file, 'utf8').replaceAll('"text"', '"none"'));
    const result = await train(folder, ['--out', 'run', '--resume', '--json']);
    expect(result.code).toBe(1);
    expect(documentOf(result)).toMatchObject({ error: { code: 'ERR_SIGLIP_DATA' } });
    expect(stepsOf(run)).toEqual([1, 2, 3, 4]);
  });
});

describe('a folder', () => {
  it('that holds a training is not started in again, and says how to continue', async () => {
    const before = savedBytes(straight);
    const result = await siglip2(['train', 'config.yaml', '--out', 'run'], { cwd: home });
    expect(result.code).toBe(2);
    expect(result.stderr).toContain('error ERR_SIGLIP_USAGE: run already holds a training');
    expect(result.stderr).toContain('continue it with: siglip2 train config.yaml --out run --resume');
    savedBytes(straight).forEach((bytes, i) => {
      expect(bytes.equals(before[i] as Buffer)).toBe(true);
    });
  });

  it('that comes to hold a training while a start waits for its turn is left alone', async () => {
    const { folder, run } = newFolder();
    const race = path.join(folder, 'race.mjs');
    // Another process trains between the first look at the folder and the lock.
    writeFileSync(
      race,
      `import { cpSync } from 'node:fs';
      import promises from 'node:fs/promises';
      import { syncBuiltinESMExports } from 'node:module';
      const { open } = promises;
      let raced = false;
      promises.open = async (file, ...rest) => {
        if (!raced && String(file).endsWith('.lock')) {
          raced = true;
          cpSync(${JSON.stringify(straight)}, ${JSON.stringify(run)}, { recursive: true });
        }
        return open(file, ...rest);
      };
      syncBuiltinESMExports();`,
    );
    const result = await train(folder, ['--out', 'run'], { env: { NODE_OPTIONS: `--import ${race}` } });
    expect(result).toMatchObject({ code: 2, stderr: expect.stringContaining('run already holds a training') });
    expectWhole(run);
  });

  it('whose checkpoint is a model of somebody else is left alone', async () => {
    const { folder } = newFolder(config.replace(`model: ${checkpoint}`, 'model: ./checkpoint'));
    const model = path.join(folder, 'checkpoint');
    cpSync(checkpoint, model, { recursive: true });
    const before = readFileSync(path.join(model, 'model.safetensors'));
    const result = await train(folder, ['--out', '.']);
    expect(result).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('. already holds checkpoint, which is not of a training'),
    });
    expect(readdirSync(model).sort()).toEqual(readdirSync(checkpoint).sort());
    expect(readFileSync(path.join(model, 'model.safetensors')).equals(before)).toBe(true);
  });

  it('where a start was ended during its first save is started in again; only what that left is removed', async () => {
    const { folder, run } = newFolder(tinyConfig);
    cpSync(checkpoint, path.join(run, 'checkpoint'), { recursive: true });
    writeFiles(run, {
      'checkpoint/.training_state.safetensors.0123456789ab.new': '',
      'checkpoint/.tokenizer.json.0123456789ab.new': '',
      'checkpoint/.config.json.0123456789ab.old': '',
      'checkpoint/.model.safetensors.index.json.0123456789ab.new': '',
      'average.unfinished/config.json': '',
      'article.unfinished/text': '',
    });
    expect(await train(folder, ['--out', 'run', '--steps', '1'])).toMatchObject({ code: 0 });
    writeFiles(run, { 'snapshots/step-00000001.unfinished/config.json': '', 'snapshots/notes.unfinished': '' });
    expect(await train(folder, ['--out', 'run', '--steps', '2', '--resume'])).toMatchObject({ code: 0 });
    const left = readdirSync(run, { recursive: true, encoding: 'utf8' });
    expect(left.filter((name) => /unfinished|\.new$|\.old$/.test(name)).sort()).toEqual([
      'article.unfinished',
      path.join('article.unfinished', 'text'),
      path.join('snapshots', 'notes.unfinished'),
    ]);
  });

  it('with files of the same names is left alone', async () => {
    const { folder, run } = newFolder();
    writeFiles(run, { 'config.yaml': 'mine' });
    const result = await train(folder, ['--out', 'run']);
    expect(result).toMatchObject({ code: 2, stderr: expect.stringContaining('run already holds config.yaml') });
    expect(readdirSync(run)).toEqual(['config.yaml']);
  });

  it('without a training cannot be continued, and one must be named', async () => {
    const { folder } = newFolder();
    const nothing = await train(folder, ['--out', 'run', '--resume']);
    expect(nothing).toMatchObject({ code: 2, stderr: expect.stringContaining('run holds no training to continue') });
    expect(existsSync(path.join(folder, 'run'))).toBe(false);
    const unnamed = await train(folder, []);
    expect(unnamed).toMatchObject({ code: 2, stderr: expect.stringContaining('no folder is given') });
  });

  it('may hold the configuration itself', async () => {
    const { folder } = newFolder();
    const result = await train(folder, ['--out', '.', '--steps', '1']);
    expect(result.code).toBe(0);
    expect(readFileSync(path.join(folder, 'config.yaml'), 'utf8')).toBe(config);
    expect(stepsOf(folder)).toEqual([1]);
  });
});

describe('a mistake', () => {
  it.each<[what: string, from: string, to: string, ...expected: string[]]>([
    [
      'in the configuration',
      'steps: 12',
      'setps: 12',
      'error ERR_SIGLIP_CONFIG: config.yaml:8:3: training.setps: there is no such key; did you mean steps?',
      'try: docs/training.md',
    ],
    [
      'in the optimiser',
      'learningRate: 1e-3',
      'learningRate: -1',
      'config.yaml:9:30: training.optimizer.learningRate: expected a number of at least 0, got -1',
    ],
    [
      'in a pattern',
      '[vision_model.embeddings]',
      '[visual]',
      'config.yaml:11:12: training.frozen[0]: expected the name of a parameter, or a pattern of some, got "visual"',
    ],
    ['in a file of captions', 'captions: captions.jsonl', 'captions: other.jsonl', 'ERR_SIGLIP_DATA', 'other.jsonl'],
    [
      'in the model',
      `model: ${checkpoint}`,
      'model: ./nowhere',
      'config.yaml:1:8: model.checkpoint: expected a folder or a hub id',
      'nowhere',
    ],
    [
      'in the data of an evaluation',
      'folder: classes',
      'folder: clases',
      'evaluation.zeroShot.folder: there is no folder',
    ],
    [
      'in micro-batches',
      'steps: 12',
      'steps: 12\n  microBatches: 5',
      'config.yaml:9:17: training.microBatches: expected at most 4, the examples of a batch, got 5',
    ],
  ])('%s is named before anything is trained', async (_, from, to, ...expected) => {
    expect(config).toContain(from);
    const { folder, run } = newFolder(config.replace(from, to));
    const result = await train(folder, ['--out', 'run', '--offline']);
    expect(result.code).toBe(1);
    for (const part of expected) expect(result.stderr).toContain(part);
    expect(existsSync(path.join(run, 'metrics.jsonl'))).toBe(false);
  });

  it('in what a continued training computes is named, and changes nothing', async () => {
    const { folder, run } = newFolder();
    cpSync(straight, run, { recursive: true });
    writeFileSync(
      path.join(folder, 'config.yaml'),
      config.replace('1e-3', '2e-3').replace('[vision_model.embeddings]', '[text_model]'),
    );
    const result = await train(folder, ['--out', 'run', '--resume']);
    expect(result.code).toBe(1);
    expect(result.stderr).toContain(
      'config.yaml:9:30: training.optimizer.learningRate: expected 0.001, as in the training that is resumed, got 0.002\n' +
        'config.yaml:11:12: training.frozen[0]: expected "vision_model.embeddings", as in the training that is resumed, got "text_model"',
    );
    expectWhole(run);
  });

  it('in the length of a continued training is none', async () => {
    const { folder, run } = newFolder();
    cpSync(straight, run, { recursive: true });
    writeFileSync(path.join(folder, 'config.yaml'), config.replace('steps: 12', 'steps: 14'));
    const result = await train(folder, ['--out', 'run', '--resume', '--json']);
    expect(documentOf(result)).toMatchObject({ step: 14, status: 'finished' });
    expect(stepsOf(run)).toEqual(range(1, 14));
  });

  it('in memory can be made up for: what no longer is in the configuration no longer counts', async () => {
    const memoryOf = ({ stderr }: Outcome): string | undefined => /memory for the largest batch: .*/.exec(stderr)?.[0];
    const { folder } = newFolder(
      tinyConfig.replace('steps: 12', 'steps: 12\n  microBatchSize: 1\n  checkpointing: true'),
    );
    const small = await train(folder, ['--out', 'run', '--steps', '1']);
    expect(memoryOf(small)).toBeDefined();
    writeFileSync(path.join(folder, 'config.yaml'), tinyConfig);
    const resumed = await train(folder, ['--out', 'run', '--resume', '--steps', '2']);
    expect(memoryOf(small)).not.toBe(memoryOf(whole));
    expect(memoryOf(resumed)).toBe(memoryOf(whole));
  });

  it('of other data for a continued training is named', async () => {
    const { folder, run } = newFolder();
    cpSync(straight, run, { recursive: true });
    appendFileSync(path.join(folder, 'pictures', 'captions.jsonl'), '{"image":"0.png","text":"one more"}\n');
    const result = await train(folder, ['--out', 'run', '--resume']);
    expect(result).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('config.yaml:3:3: data: was saved from other data'),
    });
  });
});
