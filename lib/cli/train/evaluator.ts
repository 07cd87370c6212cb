/** The evaluations that a configuration asks for. */
import { type Dirent, existsSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import path from 'node:path';
import type { Siglip2 } from '../../model/siglip2.js';
import { type DatasetSource, openDataset } from '../../training/data/index.js';
import {
  evaluateRetrieval,
  evaluateZeroShot,
  type LabelledImage,
  type LabelledImages,
} from '../../training/evaluate.js';
import { imageExtensions } from '../images.js';
import { Progress } from '../progress.js';
import type { Context } from '../run.js';
import type { EvaluationConfig, TrainConfig } from './config.js';
import type { EvaluationLine } from './metrics.js';

type Results = Pick<EvaluationLine, 'retrieval' | 'zeroShot' | 'evaluationSeconds'>;
type ZeroShotConfig = NonNullable<EvaluationConfig['zeroShot']>;

/** Evaluates a model in training. Its data are looked at beforehand, so that mistakes show before the first step. */
export class Evaluator {
  private constructor(
    private readonly config: TrainConfig,
    private readonly evaluation: EvaluationConfig,
  ) {}

  /** @throws SiglipError ERR_SIGLIP_CONFIG, ERR_SIGLIP_DATA when the data of an evaluation cannot be found or read */
  static async open(config: TrainConfig, naflex: boolean): Promise<Evaluator | undefined> {
    const { evaluation } = config.written;
    if (evaluation === undefined) return undefined;
    for (const kind of ['retrieval', 'zeroShot'] as const)
      if (!naflex && evaluation[kind]?.maxPatches !== undefined)
        throw config.mistake(
          ['evaluation', kind, 'maxPatches'],
          'is for NaFlex models; this one takes pictures of one size',
        );
    const evaluator = new Evaluator(config, evaluation);
    if (evaluation.retrieval !== undefined) await evaluator.retrievalData();
    if (evaluation.zeroShot !== undefined) await evaluator.labelledImages(evaluation.zeroShot);
    return evaluator;
  }

  get everySteps(): number {
    return this.evaluation.everySteps;
  }

  async run(model: Siglip2, { terminal, signal }: Context): Promise<Results> {
    const { retrieval, zeroShot } = this.evaluation;
    const started = performance.now();
    const progress = new Progress(terminal, 'evaluating …');
    const optionsOf = ({ maxPatches }: { maxPatches?: number }) => ({
      ...(maxPatches === undefined ? {} : { maxPatches }),
      signal,
    });
    try {
      return {
        ...(retrieval === undefined
          ? {}
          : {
              retrieval: await evaluateRetrieval(model, await this.retrievalData(), {
                ...optionsOf(retrieval),
                ...(retrieval.limit === undefined ? {} : { limit: retrieval.limit }),
              }),
            }),
        ...(zeroShot === undefined
          ? {}
          : {
              zeroShot: await evaluateZeroShot(model, await this.labelledImages(zeroShot), {
                ...optionsOf(zeroShot),
                ...(zeroShot.templates === undefined ? {} : { template: zeroShot.templates }),
              }),
            }),
        evaluationSeconds: (performance.now() - started) / 1000,
      };
    } finally {
      progress.stop();
    }
  }

  private retrievalData() {
    const { retrieval } = this.evaluation;
    return this.open(['evaluation', 'retrieval'], this.config.source(retrieval as NonNullable<typeof retrieval>));
  }

  private open(way: readonly string[], source: DatasetSource) {
    return this.config.naming({ source: way }, () => openDataset(source, { shuffle: false, epochs: 1 }));
  }

  private async labelledImages(zeroShot: ZeroShotConfig): Promise<LabelledImages> {
    const way = ['evaluation', 'zeroShot'];
    const folder = this.config.resolve(zeroShot.folder);
    if (!existsSync(folder)) throw this.config.mistake([...way, 'folder'], `there is no folder ${folder}`);
    const { labels, imageKey, labelKey = 'label', limit } = zeroShot;
    const found =
      labels === undefined ? await classFolders(folder) : await this.labelled(folder, labels, imageKey, labelKey);
    if (found.classes.length < 2)
      throw this.config.mistake(
        [...way, labels === undefined ? 'folder' : 'labels'],
        `expected pictures of at least two classes, found ${found.classes.length} in ${folder}`,
      );
    return { classes: found.classes, images: spread(found.images, limit) };
  }

  /** Pictures whose classes a file with rows of picture and label tells. */
  private async labelled(
    folder: string,
    labels: string,
    imageKey: string | undefined,
    labelKey: string,
  ): Promise<LabelledList> {
    const source = { folder, captions: labels, textKey: labelKey, ...(imageKey === undefined ? {} : { imageKey }) };
    const dataset = await this.config.naming(
      { source: ['evaluation', 'zeroShot'], 'source.captions': ['evaluation', 'zeroShot', 'labels'] },
      () => openDataset(source, { shuffle: false, epochs: 1 }),
    );
    const rows: { image: string | Uint8Array; text: string }[] = [];
    for await (const { image, text } of dataset.examples()) rows.push({ image, text });
    const classes = [...new Set(rows.map(({ text }) => text))].sort();
    const numbers = new Map(classes.map((name, label) => [name, label]));
    return { classes, images: rows.map(({ image, text }) => ({ image, label: numbers.get(text) as number })) };
  }
}

interface LabelledList extends LabelledImages {
  images: LabelledImage[];
}

/** At most so many of a list, from everywhere in it: lists are often sorted by class. */
function spread<T>(items: readonly T[], limit = items.length): T[] {
  const count = Math.min(limit, items.length);
  return Array.from({ length: count }, (_, i) => items[Math.floor((i * items.length) / count)] as T);
}

/** Pictures in one folder a class. Underscores in its name stand for spaces. */
async function classFolders(folder: string): Promise<LabelledList> {
  const byName = (entries: Dirent[]): Dirent[] =>
    entries.filter(({ name }) => !name.startsWith('.')).sort((a, b) => (a.name < b.name ? -1 : 1));
  const classes: string[] = [];
  const images: LabelledImage[] = [];
  for (const entry of byName(await readdir(folder, { withFileTypes: true }))) {
    if (!entry.isDirectory()) continue;
    const files = byName(await readdir(path.join(folder, entry.name), { withFileTypes: true }))
      .map(({ name }) => name)
      .filter((name) => imageExtensions.includes(path.extname(name).slice(1).toLowerCase()));
    for (const file of files) images.push({ image: path.join(folder, entry.name, file), label: classes.length });
    if (files.length > 0) classes.push(entry.name.replaceAll('_', ' '));
  }
  return { classes, images };
}
