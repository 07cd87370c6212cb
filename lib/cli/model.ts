/** From --model to a checkpoint or a loaded model, with what the user should know about it. */
import { existsSync } from 'node:fs';
import { open, realpath } from 'node:fs/promises';
import path from 'node:path';
import { resolveDevice, resolveDType } from '../device.js';
import { SiglipError } from '../errors.js';
import { type CheckpointOptions, type ResolvedCheckpoint, resolveCheckpoint } from '../hub/index.js';
import type { Siglip2Config, Tower } from '../model/config.js';
import { defaultModel } from '../model/default-model.js';
import { Siglip2 } from '../model/siglip2.js';
import { type CommonOptions, exampleModel, type ImageOptions } from './options.js';
import { Progress } from './progress.js';
import type { Context } from './run.js';
import { printable, printableLines, type Terminal } from './terminal.js';

/** A file that says, in one line, that a checkpoint's weights mean nothing. */
const randomWeightsFile = 'RANDOM_WEIGHTS';

/** What JSON documents say about the model. */
export interface ModelSummary {
  model: string;
  revision?: string;
  /** What the checkpoint says about its weights when they are random. */
  notice?: string;
  /** Why the hub could not be asked, when files from the cache were used instead. */
  hubError?: { code: string; message: string };
}

/** A checkpoint on this machine. */
export interface FoundCheckpoint {
  folder: string;
  summary: ModelSummary;
}

/**
 * Finds the checkpoint of --model, downloading what is missing, and announces what should be known about it. Without
 * --model it is the one that comes with the package.
 */
export async function findCheckpoint(
  { terminal, options, signal }: Context,
  files: { tokenizer: boolean },
): Promise<FoundCheckpoint> {
  const source = options.model ?? packagedModel(terminal);
  const resolved = await withDownloads(terminal, (onProgress) =>
    resolveCheckpoint(source, { ...hubOptions(options), ...files, onProgress, signal }),
  );
  const notice = await randomWeightsNotice(resolved.folder);
  if (notice !== undefined) terminal.notice(notice);
  return {
    folder: resolved.folder,
    summary: {
      model: source,
      ...(resolved.revision === undefined ? {} : { revision: resolved.revision }),
      ...(notice === undefined ? {} : { notice }),
      ...hubErrorSummary(terminal, resolved),
    },
  };
}

/** The model that is used when none is named. */
function packagedModel(terminal: Terminal): string {
  if (!existsSync(path.join(defaultModel, 'config.json')))
    throw new SiglipError(
      'ERR_SIGLIP_CHECKPOINT',
      `the model that comes with the package is not at ${JSON.stringify(defaultModel)}: install the package again, or name a model`,
      { details: { folder: defaultModel } },
    );
  terminal.notice(`using the packaged emoji model; for photographs: --model ${exampleModel}`);
  return defaultModel;
}

/** Whether the checkpoint in a folder is the packaged model, by whatever way the folder was named. */
export async function isPackagedModel(folder: string): Promise<boolean> {
  const [found, packaged] = await Promise.all(
    [folder, defaultModel].map((each) => realpath(each).catch(() => undefined)),
  );
  return found !== undefined && found === packaged;
}

/**
 * The limits on images in the form of library calls. The number of patches is what was asked for, else for NaFlex models
 * the model's own: `num_patches` of its configuration, 256 in every released checkpoint.
 */
export function imageLimits(
  { architecture, vision }: Siglip2Config,
  { maxPatches, maxPixels }: ImageOptions,
): { maxPatches?: number; maxPixels?: number } {
  const patches = maxPatches ?? (architecture === 'naflex' ? vision.numPatches : undefined);
  return {
    ...(patches === undefined ? {} : { maxPatches: patches }),
    ...(maxPixels === undefined ? {} : { maxPixels }),
  };
}

/** A model that is ready, and where it came from. */
export interface ReadyModel {
  model: Siglip2;
  folder: string;
  summary: ModelSummary & { device: string; dtype: string };
}

/** Loads the towers that a command needs. */
export async function loadModel(context: Context, towers: Tower[]): Promise<ReadyModel> {
  const { terminal, options, signal } = context;
  const { device, dtype, threads } = options;
  // Mistakes that need no checkpoint to be found are reported before anything is downloaded.
  resolveDType('options.dtype', dtype, resolveDevice('options.device', device), 'compute');
  const { folder, summary } = await findCheckpoint(context, { tokenizer: towers.includes('text') });
  const progress = new Progress(terminal, `loading ${summary.model} …`);
  try {
    const model = await Siglip2.load(folder, {
      towers,
      signal,
      ...(device === undefined ? {} : { device }),
      ...(dtype === undefined ? {} : { dtype }),
      ...(threads === undefined ? {} : { threads }),
    });
    return { model, folder, summary: { ...summary, device: model.device, dtype: model.dtype } };
  } finally {
    progress.stop();
  }
}

/** The options of the command line that concern the hub. */
export function hubOptions({ revision, cacheDir, token, offline }: CommonOptions): CheckpointOptions {
  return {
    ...(revision === undefined ? {} : { revision }),
    ...(cacheDir === undefined ? {} : { cacheDir }),
    ...(token === undefined ? {} : { token }),
    ...(offline === undefined ? {} : { offline }),
  };
}

/** Runs work that downloads, with a progress display for each file. */
export async function withDownloads<T>(
  terminal: Terminal,
  work: (onProgress: NonNullable<CheckpointOptions['onProgress']>) => Promise<T>,
): Promise<T> {
  let current: { file: string; progress: Progress } | undefined;
  try {
    return await work(({ file, loaded, total }) => {
      if (current?.file !== file) {
        current?.progress.stop();
        current = { file, progress: new Progress(terminal, file, { total, unit: 'bytes', start: loaded }) };
      }
      current.progress.update(loaded);
    });
  } finally {
    current?.progress.stop();
  }
}

/** Announces that the hub could not be asked, and puts it in the form of JSON documents. */
export function hubErrorSummary(terminal: Terminal, resolved: ResolvedCheckpoint): Pick<ModelSummary, 'hubError'> {
  const error: SiglipError | undefined = resolved.hubError;
  if (error === undefined) return {};
  terminal.notice(
    `the hub could not be asked, so the copy in the cache is used, which may not be the newest (${printableLines(error.message)})`,
  );
  return { hubError: { code: error.code, message: error.message } };
}

/** The first line of the checkpoint's file RANDOM_WEIGHTS, if it has one. */
async function randomWeightsNotice(folder: string): Promise<string | undefined> {
  const handle = await open(path.join(folder, randomWeightsFile)).catch(() => undefined);
  if (handle === undefined) return undefined;
  try {
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(500), 0, 500, 0);
    const [line = ''] = buffer.toString('utf8', 0, bytesRead).split(/\r?\n/);
    return printable(line.trim()) || 'The weights of this checkpoint are random.';
  } finally {
    await handle.close();
  }
}
