import type { Command } from 'commander';
import { SiglipError } from '../../errors.js';
import type { Siglip2 } from '../../model/siglip2.js';
import { originOf } from '../embedding-origin.js';
import { exitCodes, UsageError } from '../errors.js';
import { embedFiles, findImages, type ImageFile, imageExtensions, requireFinite } from '../images.js';
import { imageLimits, loadModel } from '../model.js';
import { type AddRows, checkOutput, type EmbeddingOutput, writeEmbeddings } from '../npy.js';
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
import { count, duration, plural } from '../table.js';
import { printable, type Terminal } from '../terminal.js';
import { readTextFile } from '../text-file.js';

interface EmbedOptions extends CommonOptions, ImageOptions {
  out: string;
  recursive?: boolean;
  text?: string[];
  texts?: string;
  normalize: boolean;
  batchSize?: number;
}

/** What is embedded: images or texts. */
type Input = { kind: 'images'; items: ImageFile[] } | { kind: 'texts'; items: string[] };

/** An input that has no embedding, and why. */
interface Skipped {
  path?: string;
  text?: string;
  code: string;
  message: string;
}

/** Adds `siglip2 embed`. */
export function addEmbed(program: Command): void {
  const command = program
    .command('embed')
    .summary('write the embeddings of images or texts to a file')
    .description(
      'Writes one embedding per image or text. FILE.npy is a float32 matrix (numpy.load reads it) with FILE.items.jsonl ' +
        'beside it, which says what each row belongs to; FILE.jsonl has one {"path", "embedding"} per line. siglip2 search takes ' +
        'either; beside it is FILE.npy.origin.json or FILE.jsonl.origin.json, which names the model.',
    )
    .argument('[images...]', `files, URLs or folders (searched for ${imageExtensions.join(', ')})`)
    .requiredOption('--out <file>', 'file to write: .npy or .jsonl; replaced when the work is complete')
    .option('--recursive', 'also search the folders in folders')
    .option('--text <text>', 'embed a text instead of images, may be repeated', collect)
    .option('--texts <file>', 'embed the lines of a file instead of images')
    .option('--batch-size <n>', 'inputs that go through the model together (default: 8 images, 32 texts)', integer(1))
    .option('--no-normalize', 'keep the length of embeddings instead of scaling them to 1');
  addCommonOptions(addImageOptions(command)).addHelpText(
    'after',
    `
Examples:
  siglip2 embed photos --recursive --out photos.npy --model ${exampleModel}
  siglip2 embed a.jpg b.png https://example.org/c.webp --out three.jsonl --model ./checkpoint
  siglip2 embed --texts captions.txt --out captions.npy --model ./checkpoint

Images that cannot be read are reported and skipped; the command then exits with 1.
Nothing is written when all of them fail or the command is interrupted.`,
  );
  runs(command, embedCommand);
}

async function embedCommand(context: Context, options: EmbedOptions, operands: string[]): Promise<number> {
  const { terminal } = context;
  const output = await checkOutput(options.out);
  const input = await readInput(options, operands);
  const { model, folder, summary } = await loadModel(context, [input.kind === 'images' ? 'vision' : 'text']);
  const dim = input.kind === 'images' ? model.config.vision.hiddenSize : model.config.text.projectionSize;
  const skipped: Skipped[] = [];
  const started = performance.now();
  const progress = new Progress(terminal, 'embedding', { total: input.items.length, unit: input.kind });
  const skip = (entry: Skipped): void => {
    skipped.push(entry);
    terminal.skipped(entry.path ?? JSON.stringify(entry.text), entry.message);
  };
  const origin = await originOf(summary, folder, model.dtype, input.kind);
  const rows = await writeEmbeddings(output, { dim, origin }, (add) =>
    input.kind === 'images'
      ? embedImages(model, input.items, { options, signal: context.signal, add, skip, progress })
      : embedTexts(model, input.items, { options, signal: context.signal, add, skip, progress }),
  );
  progress.stop();
  model.dispose();
  if (rows === 0)
    throw new SiglipError(
      skipped[0]?.code === 'ERR_SIGLIP_CHECKPOINT' ? 'ERR_SIGLIP_CHECKPOINT' : 'ERR_SIGLIP_IMAGE',
      `0 of ${plural(input.items.length, input.kind.slice(0, -1))} could be embedded, so ${options.out} was not written`,
      { details: { skipped } },
    );
  const seconds = (performance.now() - started) / 1000;
  report(terminal, { output, kind: input.kind, rows, dim, skipped, seconds });
  if (terminal.settings.json)
    terminal.document({ ...summary, ...filesOf(output), kind: input.kind, shape: [rows, dim], seconds, skipped });
  return skipped.length === 0 ? exitCodes.success : exitCodes.failure;
}

async function readInput(options: EmbedOptions, operands: string[]): Promise<Input> {
  const { text = [], texts } = options;
  if (text.length === 0 && texts === undefined) {
    if (operands.length === 0)
      throw new UsageError('nothing to embed', 'name images or folders, or give --text or --texts');
    return { kind: 'images', items: await findImages(operands, options.recursive ?? false) };
  }
  if (operands.length > 0)
    throw new UsageError('images and texts cannot be embedded into one file', 'run the command once for each');
  const lines = texts === undefined ? [] : await readLines(texts);
  const items = [...text, ...lines];
  if (items.length === 0) throw new UsageError(`--texts: "${texts}" is empty`, 'write one text per line into it');
  return { kind: 'texts', items };
}

/** The lines of a file, empty ones included, so that row numbers are line numbers. */
async function readLines(file: string): Promise<string[]> {
  const content = (await readTextFile('--texts', file)).replace(/\r?\n$/, '');
  return content === '' ? [] : content.split(/\r?\n/);
}

interface Work {
  options: EmbedOptions;
  signal: AbortSignal;
  add: AddRows;
  skip: (entry: Skipped) => void;
  progress: Progress;
}

async function embedImages(model: Siglip2, files: ImageFile[], work: Work): Promise<void> {
  const { options, signal, add, skip, progress } = work;
  const { normalize, batchSize = 8 } = options;
  const settings = { batchSize, normalize, signal, ...imageLimits(model.config, options) };
  let done = 0;
  for await (const batch of embedFiles(model, files, settings)) {
    await add(
      batch.flatMap(({ path, ...result }) => {
        if (result.error === undefined) return [{ item: { path }, embedding: result.embedding }];
        skip({ path, ...result.error });
        return [];
      }),
    );
    done += batch.length;
    progress.update(done);
  }
}

async function embedTexts(model: Siglip2, texts: string[], work: Work): Promise<void> {
  const { options, signal, add, skip, progress } = work;
  const { normalize, batchSize = 32 } = options;
  for (let start = 0; start < texts.length; start += batchSize) {
    const batch = texts.slice(start, start + batchSize);
    const embeddings = await model.embedTexts(batch, { normalize, batchSize, signal });
    await add(
      batch.flatMap((text, row) => {
        const result = requireFinite(embeddings.row(row));
        if ('embedding' in result) return [{ item: { text }, embedding: result.embedding }];
        skip({ text, ...result.error });
        return [];
      }),
    );
    progress.update(start + batch.length);
  }
}

function filesOf({ file, items, origin }: EmbeddingOutput): { file: string; items?: string; origin: string } {
  return { file, ...(items === undefined ? {} : { items }), origin };
}

interface Outcome {
  output: EmbeddingOutput;
  kind: Input['kind'];
  rows: number;
  dim: number;
  skipped: Skipped[];
  seconds: number;
}

function report(terminal: Terminal, { output, kind, rows, dim, skipped, seconds }: Outcome): void {
  if (terminal.settings.quiet) return;
  const what = output.kind === 'npy' ? `float32 [${rows}, ${dim}]` : `${plural(rows, 'line')} of ${dim} numbers`;
  const beside = output.items === undefined ? '' : `; ${printable(output.items)} says what each row belongs to`;
  const left = skipped.length === 0 ? '' : `, ${count(skipped.length)} skipped`;
  terminal.print(`${printable(output.file)}: ${what}${beside}`);
  terminal.print(`${plural(rows, kind.slice(0, -1))} embedded in ${duration(seconds)}${left}`);
}
