import type { Command } from 'commander';
import { SiglipError } from '../../errors.js';
import { defaultModelTemplate } from '../../model/default-model.js';
import type { Embeddings } from '../../model/embeddings.js';
import { averageGroups, checkTemplates, labelTexts } from '../../model/prompts.js';
import type { Classification, Siglip2 } from '../../model/siglip2.js';
import { exitCodes, UsageError } from '../errors.js';
import { embedFiles, imageFile, requireFinite } from '../images.js';
import { imageLimits, isPackagedModel, loadModel } from '../model.js';
import {
  addCommonOptions,
  addImageOptions,
  type CommonOptions,
  collect,
  exampleModel,
  type ImageOptions,
  integer,
} from '../options.js';
import { Progress } from '../progress.js';
import { type Context, runs } from '../run.js';
import { bar, percent, table } from '../table.js';
import { printable, showsUnicode, type Terminal } from '../terminal.js';
import { readTextFile } from '../text-file.js';

interface ClassifyOptions extends CommonOptions, ImageOptions {
  labels?: string;
  labelsFile?: string;
  template?: string[];
  top?: number;
}

/** Images that are decoded and embedded together. */
const batchSize = 8;

/** Adds `siglip2 classify`. */
export function addClassify(program: Command): void {
  const command = program
    .command('classify')
    .summary('say how well labels describe images')
    .description(
      'Zero-shot classification: how probable it is that a label belongs to an image, best label first. Each label is ' +
        'judged by itself, so probabilities need not sum to one, and they are usually small.',
    )
    .argument('<images...>', 'files or URLs')
    .option('--labels <list>', 'labels, separated by commas')
    .option('--labels-file <file>', 'more labels, one per line')
    .option(
      '--template <text>',
      'text with {} for the label, may be repeated: embeddings are averaged (default: "This is a photo of {}.", ' +
        'and "{}" for the packaged model)',
      collect,
    )
    .option('--top <n>', 'show only the best n labels', integer(1));
  addCommonOptions(addImageOptions(command)).addHelpText(
    'after',
    `
Examples:
  siglip2 classify emoji.png --labels "Hund,chat,鳥"
  siglip2 classify photo.jpg --labels "cat,dog,bird" --model ${exampleModel}
  siglip2 classify *.jpg --labels-file labels.txt --top 3 --model ./checkpoint
  siglip2 classify photo.jpg --labels "cat,dog" --template "a {}" --template "art of a {}" --model ./checkpoint

Exits with 1 when an image could not be read; the others are classified.`,
  );
  runs(command, classifyCommand);
}

async function classifyCommand(context: Context, options: ClassifyOptions, operands: string[]): Promise<number> {
  const { terminal, signal } = context;
  const given = options.template && checkTemplates(options.template);
  const labels = await readLabels(options);
  const { top = labels.length } = options;
  const { model, folder, summary } = await loadModel(context, ['vision', 'text']);
  const templates = given ?? checkTemplates((await isPackagedModel(folder)) ? defaultModelTemplate : undefined);
  const texts = averageGroups(await model.embedTexts(labelTexts(labels, templates), { signal }), templates.length);
  const problem = requireFinite(texts.data);
  if (problem.error !== undefined)
    throw new SiglipError('ERR_SIGLIP_CHECKPOINT', `the labels cannot be used: ${problem.error.message}`);

  const images: unknown[] = [];
  let done = 0;
  let failed = 0;
  const progress =
    operands.length > batchSize && new Progress(terminal, 'classifying', { total: operands.length, unit: 'images' });
  const settings = { batchSize, signal, ...imageLimits(model.config, options) };
  for await (const batch of embedFiles(model, operands.map(imageFile), settings)) {
    for (const { path, ...result } of batch) {
      if (result.error !== undefined) {
        failed++;
        images.push({ path, error: result.error });
        terminal.skipped(path, result.error.message);
        continue;
      }
      const best = rank(model, result.embedding, texts, labels).slice(0, top);
      images.push({ path, labels: best });
      printImage(terminal, path, best);
    }
    done += batch.length;
    if (progress) progress.update(done);
  }
  if (progress) progress.stop();
  model.dispose();
  if (terminal.settings.json) terminal.document({ ...summary, templates, failed, images });
  return failed === 0 ? exitCodes.success : exitCodes.failure;
}

async function readLabels({ labels, labelsFile }: ClassifyOptions): Promise<string[]> {
  const listed = labels?.split(',') ?? [];
  const lines = labelsFile === undefined ? [] : (await readTextFile('--labels-file', labelsFile)).split('\n');
  const all = [...listed, ...lines].map((label) => label.trim()).filter((label) => label !== '');
  if (all.length === 0)
    throw new UsageError(
      'no labels are given',
      'add --labels "cat,dog,bird", or --labels-file with one label per line',
    );
  return all;
}

function rank(model: Siglip2, embedding: Float32Array, texts: Embeddings, labels: string[]): Classification[] {
  const image = { data: embedding, shape: [1, embedding.length] as [number, number], row: () => embedding };
  const { logits, probabilities } = model.similarity(image, texts);
  return labels
    .map((label, i) => ({ label, probability: probabilities[i] as number, logit: logits[i] as number }))
    .sort((a, b) => b.logit - a.logit);
}

function printImage(terminal: Terminal, path: string, best: Classification[]): void {
  const unicode = showsUnicode();
  const rows = best.map(({ label, probability, logit }) => [
    terminal.style(bar(probability, 20, unicode), 'cyan'),
    percent(probability),
    `logit ${logit.toFixed(2)}`,
    printable(label),
  ]);
  terminal.print(`${terminal.style(printable(path), 'bold')}\n${table(rows, '<>>')}\n`);
}
