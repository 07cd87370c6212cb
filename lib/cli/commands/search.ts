import type { Command } from 'commander';
import { SiglipError } from '../../errors.js';
import { type Embeddings, joinEmbeddings } from '../../model/embeddings.js';
import { fingerprint } from '../../model/fingerprint.js';
import { averageGroups, checkTemplates, labelTexts } from '../../model/prompts.js';
import type { Siglip2 } from '../../model/siglip2.js';
import { native } from '../../native.js';
import { Best } from '../best.js';
import { type EmbeddingIndex, isIndexName, openIndex, requireOrigin } from '../embedding-index.js';
import { originFileOf } from '../embedding-origin.js';
import { exitCodes, UsageError } from '../errors.js';
import { embedFiles, findImages, type ImageFile, imageFile, requireFinite } from '../images.js';
import { imageLimits, loadModel, type ReadyModel } from '../model.js';
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
import { bar, duration, percent, plural, table } from '../table.js';
import { printable, showsUnicode, type Terminal } from '../terminal.js';

interface SearchOptions extends CommonOptions, ImageOptions {
  in: string[];
  image?: string[];
  template?: string[];
  top: number;
  recursive?: boolean;
  batchSize?: number;
}

/** An image that was found. */
interface Found {
  path: string;
  /** What decides the order: the logit for texts, the cosine for images. */
  score: number;
  /** Of texts: σ(logit). */
  probability?: number;
}

/** What is looked for, and the best that was found so far. */
interface Query {
  kind: 'text' | 'image';
  /** The text, or the path of the image. */
  name: string;
  best: Best<Found>;
}

/** Queries of one kind with their embeddings, one row each. */
interface QueryGroup {
  kind: Query['kind'];
  queries: Query[];
  embeddings: Embeddings;
}

/** Where is searched: images that must be embedded first, and files of embeddings. */
interface Places {
  files: ImageFile[];
  indexes: EmbeddingIndex[];
}

/** An image that could not be searched, and why. */
interface Skipped {
  path: string;
  code: string;
  message: string;
}

/** Adds `siglip2 search`. */
export function addSearch(program: Command): void {
  const command = program
    .command('search')
    .summary('find the images that fit a text, or resemble an image')
    .description(
      'Finds images by texts, in any language that the model knows, or by images that they resemble. For a text, shows how ' +
        'probable it is that it belongs to an image; for an image, the cosine of the angle between the embeddings.',
    )
    .argument('[queries...]', 'texts to look for, each by itself')
    .requiredOption('--in <place>', 'folder, image, or index made by siglip2 embed; may be repeated', collect)
    .option('--image <file>', 'look for images that resemble this one, may be repeated', collect)
    .option('--top <n>', 'show the best n images', integer(1), 5)
    .option('--recursive', 'also search the folders in folders')
    .option(
      '--template <text>',
      'text with {} for the query, may be repeated: embeddings are averaged (default: "{}")',
      collect,
    )
    .option('--batch-size <n>', 'images that go through the model together (default: 8)', integer(1));
  addCommonOptions(addImageOptions(command)).addHelpText(
    'after',
    `
Examples:
  siglip2 search "angry face" "rocket" --in emoji
  siglip2 embed photos --recursive --out photos.npy --model ${exampleModel}
  siglip2 search "a dog on a beach" --in photos.npy --model ${exampleModel}
  siglip2 search --image holiday.jpg --in photos.npy --top 10 --model ${exampleModel}

An index answers at once; a folder is embedded for every search.
Images that cannot be read are reported and skipped; the command then exits with 1.`,
  );
  runs(command, searchCommand);
}

async function searchCommand(context: Context, options: SearchOptions, texts: string[]): Promise<number> {
  const { terminal } = context;
  const templates = checkTemplates(options.template ?? '{}');
  const pictures = options.image ?? [];
  if (texts.length + pictures.length === 0)
    throw new UsageError('nothing to search for', 'name a text, or an image with --image');
  const places = await openPlaces(options);
  const ready = await loadModel(context, [
    ...(places.files.length + pictures.length > 0 ? (['vision'] as const) : []),
    ...(texts.length > 0 ? (['text'] as const) : []),
  ]);
  const { model, summary } = ready;
  await requireOrigins(terminal, places.indexes, ready);
  const started = performance.now();
  const groups = [
    ...(await embedTextQueries(context, model, texts, templates, options.top)),
    ...(await embedImageQueries(context, model, pictures, options)),
  ];
  const skipped: Skipped[] = [];
  const searched =
    (await searchFiles(context, model, places.files, { groups, options, skipped })) +
    (await searchIndexes(context, model, places.indexes, groups));
  model.dispose();
  if (searched === 0)
    throw new SiglipError(
      skipped[0]?.code === 'ERR_SIGLIP_CHECKPOINT' ? 'ERR_SIGLIP_CHECKPOINT' : 'ERR_SIGLIP_IMAGE',
      `there is no image to search in ${options.in.join(', ')}${skipped.length === 0 ? '' : ': none could be read'}`,
      { details: { skipped } },
    );
  const seconds = (performance.now() - started) / 1000;
  const queries = groups.flatMap((group) => group.queries);
  for (const query of queries) printQuery(terminal, query);
  if (terminal.settings.json)
    terminal.document({ ...summary, templates, searched, seconds, skipped, queries: queries.map(documentOf) });
  else terminal.notice(`${plural(searched, 'image')} searched in ${duration(seconds)}`);
  return skipped.length === 0 ? exitCodes.success : exitCodes.failure;
}

async function openPlaces(options: SearchOptions): Promise<Places> {
  const indexes: EmbeddingIndex[] = [];
  for (const file of options.in.filter(isIndexName)) indexes.push(await openIndex(file));
  const locations = options.in.filter((location) => !isIndexName(location));
  const files = locations.length === 0 ? [] : await findImages(locations, options.recursive ?? false);
  return { files, indexes };
}

/** Refuses indexes of other models; says of which ones that cannot be known. */
async function requireOrigins(terminal: Terminal, indexes: EmbeddingIndex[], ready: ReadyModel): Promise<void> {
  if (indexes.length === 0) return;
  const own = await fingerprint(ready.folder);
  for (const index of indexes) {
    requireOrigin(index, ready.summary.model, own);
    if (index.origin === undefined)
      terminal.notice(
        printable(`${originFileOf(index.file)} is missing, so nobody knows whether this model made ${index.file}`),
      );
  }
}

async function embedTextQueries(
  { signal }: Context,
  model: Siglip2,
  texts: string[],
  templates: string[],
  top: number,
): Promise<QueryGroup[]> {
  if (texts.length === 0) return [];
  const embeddings = averageGroups(await model.embedTexts(labelTexts(texts, templates), { signal }), templates.length);
  const problem = requireFinite(embeddings.data);
  if (problem.error !== undefined)
    throw new SiglipError('ERR_SIGLIP_CHECKPOINT', `the texts cannot be used: ${problem.error.message}`);
  return [{ kind: 'text', queries: texts.map((name) => ({ kind: 'text', name, best: new Best(top) })), embeddings }];
}

async function embedImageQueries(
  { signal }: Context,
  model: Siglip2,
  pictures: string[],
  options: SearchOptions,
): Promise<QueryGroup[]> {
  if (pictures.length === 0) return [];
  const rows: Float32Array[] = [];
  const settings = { batchSize: 8, signal, ...imageLimits(model.config, options) };
  for await (const batch of embedFiles(model, pictures.map(imageFile), settings))
    for (const { path, ...result } of batch) {
      if (result.error !== undefined)
        throw new SiglipError(
          result.error.code === 'ERR_SIGLIP_CHECKPOINT' ? 'ERR_SIGLIP_CHECKPOINT' : 'ERR_SIGLIP_IMAGE',
          `--image: ${path}: ${result.error.message}`,
          { details: { source: path } },
        );
      rows.push(result.embedding);
    }
  const queries = pictures.map((name) => ({ kind: 'image' as const, name, best: new Best<Found>(options.top) }));
  return [{ kind: 'image', queries, embeddings: joinEmbeddings(rows, model.config.vision.hiddenSize) }];
}

/** Embeds and searches images; returns how many. */
async function searchFiles(
  { terminal, signal }: Context,
  model: Siglip2,
  files: ImageFile[],
  { groups, options, skipped }: { groups: QueryGroup[]; options: SearchOptions; skipped: Skipped[] },
): Promise<number> {
  if (files.length === 0) return 0;
  const progress = new Progress(terminal, 'embedding', { total: files.length, unit: 'images' });
  const settings = { batchSize: options.batchSize ?? 8, signal, ...imageLimits(model.config, options) };
  let searched = 0;
  let done = 0;
  for await (const batch of embedFiles(model, files, settings)) {
    const paths: string[] = [];
    const rows: Float32Array[] = [];
    for (const { path, ...result } of batch) {
      if (result.error === undefined) {
        paths.push(path);
        rows.push(result.embedding);
      } else {
        skipped.push({ path, ...result.error });
        terminal.skipped(path, result.error.message);
      }
    }
    rank(model, groups, paths, joinEmbeddings(rows, model.config.vision.hiddenSize));
    searched += rows.length;
    done += batch.length;
    progress.update(done);
  }
  progress.stop();
  return searched;
}

/** Searches files of embeddings; returns how many there are in them. */
async function searchIndexes(
  { terminal, signal }: Context,
  model: Siglip2,
  indexes: EmbeddingIndex[],
  groups: QueryGroup[],
): Promise<number> {
  let searched = 0;
  for (const index of indexes) {
    const progress = new Progress(terminal, `searching ${index.file}`, { total: index.rows, unit: 'images' });
    let done = 0;
    for await (const { paths, embeddings } of index.blocks(model.config.vision.hiddenSize)) {
      if (signal.aborted) throw new SiglipError('ERR_SIGLIP_ABORTED', 'the search was interrupted');
      rank(model, groups, paths, embeddings);
      done += paths.length;
      progress.update(done);
    }
    progress.stop();
    searched += done;
  }
  return searched;
}

/** Offers images to every query. */
function rank(model: Siglip2, groups: QueryGroup[], paths: string[], images: Embeddings): void {
  if (paths.length === 0) return;
  for (const { kind, queries, embeddings } of groups) {
    const [scores, probabilities] = compare(model, kind, images, embeddings);
    paths.forEach((path, image) => {
      queries.forEach(({ best }, query) => {
        const at = image * queries.length + query;
        const score = scores[at] as number;
        best.add({ path, score, ...(probabilities === undefined ? {} : { probability: probabilities[at] as number }) });
      });
    });
  }
}

/** Scores, [images, queries]: logits with their probabilities for texts; cosines for images, to which scale and bias mean nothing. */
function compare(
  model: Siglip2,
  kind: Query['kind'],
  images: Embeddings,
  queries: Embeddings,
): [scores: Float32Array, probabilities?: Float32Array] {
  if (kind === 'image') return [native().similarity(images.data, queries.data, images.shape[1], 0, 0).logits];
  const { logits, probabilities } = model.similarity(images, queries);
  return [logits, probabilities];
}

function documentOf({ kind, name, best }: Query): unknown {
  const results = best.entries.map(({ path, score, probability }) =>
    probability === undefined ? { path, similarity: score } : { path, probability, logit: score },
  );
  return { [kind]: name, results };
}

function printQuery(terminal: Terminal, { kind, name, best }: Query): void {
  const unicode = showsUnicode();
  const rows = best.entries.map(({ path, score, probability }, place) => [
    `${place + 1}`,
    terminal.style(bar(probability ?? score, 20, unicode), 'cyan'),
    ...(probability === undefined
      ? [`cosine ${score.toFixed(3)}`]
      : [percent(probability), `logit ${score.toFixed(2)}`]),
    printable(path),
  ]);
  const title = terminal.style(printable(kind === 'image' ? `like ${name}` : name), 'bold');
  terminal.print(`${title}\n${table(rows, kind === 'image' ? '><>' : '><>>')}\n`);
}
