/** Finds a checkpoint: a folder of this machine, or a repository of the hub by way of the cache. */
import { stat } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, requireString, throwIfAborted, wrongRange, wrongType } from '../arguments.js';
import { SiglipError } from '../errors.js';
import { configFile, RepositoryCache, type SnapshotState, smallFiles, weightsFile, weightsIndexFile } from './cache.js';
import { fetchFile } from './download.js';
import { hubDetails, hubError } from './http.js';
import { type FileMetadata, fetchMetadata } from './metadata.js';
import {
  type CheckpointOptions,
  checkOptions,
  type HubSettings,
  isCommit,
  isRepository,
  readSettings,
} from './settings.js';

/** Where a checkpoint lies. */
export interface ResolvedCheckpoint {
  /** Folder with config.json, the weights and the tokenizer. */
  folder: string;
  /** Commit of the repository; undefined for a local folder. */
  revision?: string;
  /** Hub id; undefined for a local folder. */
  repository?: string;
  /** Why the hub could not be asked, when the copy in the cache was used instead; it may not be the newest. */
  hubError?: SiglipError;
}

/** One file of a downloaded checkpoint. */
export interface CheckpointFile {
  /** Name in the repository. */
  file: string;
  /** Where it lies. */
  path: string;
  /** Size in bytes. */
  size: number;
  /** Whether it was there before, so that nothing was downloaded. */
  cached: boolean;
}

/** A checkpoint of the hub, with its files. */
export interface DownloadedCheckpoint extends ResolvedCheckpoint {
  revision: string;
  repository: string;
  files: CheckpointFile[];
}

/**
 * Finds the checkpoint that `source` names: an existing folder or `file:` URL as it is, else a hub id
 * `organisation/name`, of which missing files are downloaded into the cache shared with Python's huggingface_hub.
 *
 * @throws TypeError or RangeError for a wrong argument.
 * @throws SiglipError `ERR_SIGLIP_CHECKPOINT` when `source` is neither, or the weights are described wrongly;
 *   `ERR_SIGLIP_HUB` when the hub fails; `ERR_SIGLIP_OFFLINE` when a file would have to be downloaded but may not be;
 *   `ERR_SIGLIP_ABORTED`.
 */
export async function resolveCheckpoint(
  source: string | URL,
  options?: CheckpointOptions,
): Promise<ResolvedCheckpoint> {
  throwIfAborted(checkOptions(options).signal);
  const folder = folderName(source);
  const kind = folder === undefined ? 'absent' : await kindOf(folder);
  // Absolute, since files are read later, too, when the process may work elsewhere.
  if (folder !== undefined && kind === 'folder') return { folder: path.resolve(folder) };
  if (typeof source !== 'string' || !isRepository(source)) throw notFound(source, folder, kind);
  try {
    const { files: _, ...checkpoint } = await obtain(source, await readSettings(options));
    return checkpoint;
  } catch (error) {
    const details = hubDetails(error);
    if (details?.status !== 401 && details?.status !== 404) throw error;
    throw hubError(`${(error as Error).message} (nor is there a folder "${source}")`, details, error);
  }
}

/**
 * Downloads a checkpoint of the hub into the cache and says what it consists of.
 *
 * @param repository Hub id, `organisation/name`.
 * @throws RangeError for something that is no hub id; SiglipError `ERR_SIGLIP_HUB`, `ERR_SIGLIP_OFFLINE`,
 *   `ERR_SIGLIP_CHECKPOINT` (weight files whose index is hostile or damaged), `ERR_SIGLIP_ABORTED`.
 */
export async function downloadCheckpoint(
  repository: string,
  options?: CheckpointOptions,
): Promise<DownloadedCheckpoint> {
  if (!isRepository(requireString('repository', repository)))
    throw wrongRange('repository', 'a hub id organisation/name', repository);
  const settings = await readSettings(options);
  throwIfAborted(settings.signal);
  return obtain(repository, settings);
}

/** The path that the source would be if it was a folder; undefined for what can only be a hub id. */
function folderName(source: string | URL): string | undefined {
  if (source instanceof URL || (typeof source === 'string' && source.startsWith('file:'))) {
    try {
      return fileURLToPath(source);
    } catch {
      throw wrongRange('source', 'a file: URL of this machine', String(source));
    }
  }
  if (typeof source !== 'string') throw wrongType('source', 'a folder, file: URL or hub id', source);
  if (source === '' || source.includes('\0')) throw wrongRange('source', 'a folder, file: URL or hub id', source);
  return source;
}

async function kindOf(file: string): Promise<'folder' | 'file' | 'absent'> {
  try {
    return (await stat(file)).isDirectory() ? 'folder' : 'file';
  } catch {
    return 'absent';
  }
}

function notFound(source: string | URL, folder: string | undefined, kind: 'folder' | 'file' | 'absent'): SiglipError {
  const tried = [
    kind === 'file' ? `${describe(folder)} is a file, not a folder` : `there is no folder ${describe(folder)}`,
  ];
  if (folder === source) tried.push('it is not a hub id, which has the form organisation/name');
  return new SiglipError(
    'ERR_SIGLIP_CHECKPOINT',
    `no checkpoint at ${describe(String(source))}: ${tried.join(', and ')}`,
    {
      details: { source: String(source), tried },
    },
  );
}

/** The whole way of a hub id: cache, hub, download. */
async function obtain(repository: string, settings: HubSettings): Promise<DownloadedCheckpoint> {
  const { revision, offline } = settings;
  const cache = new RepositoryCache(settings.cacheDir, repository, settings.symlinks);
  const cached = await cache.readReference(revision);
  let state: SnapshotState | undefined;
  try {
    state = cached === undefined ? undefined : await cache.inspect(cached, settings);
  } catch (error) {
    // A damaged index in the cache may be mended by a newer commit.
    if (offline) throw error;
  }
  const copy = cached !== undefined && state?.missing.length === 0 ? { commit: cached, ...state } : undefined;
  if (offline && copy === undefined) throw offlineError(cache, settings, state);
  // A commit never changes, so what is complete needs no question to the hub.
  if (copy !== undefined && (offline || (isCommit(revision) && copy.unknown.length === 0)))
    return fromCache(cache, copy.commit, copy.present);

  let described: FileMetadata;
  try {
    described = await fetchMetadata(
      { repository, revision, file: configFile },
      // With a copy to fall back on, nobody should wait long for a hub that does not answer.
      copy === undefined
        ? settings
        : { ...settings, retry: { ...settings.retry, attempts: 1, stallTimeout: shortTimeout(settings) } },
    );
  } catch (error) {
    const details = hubDetails(error);
    const certain = details === undefined || details.notFound === 'file' || details.notFound === 'revision';
    if (certain || copy === undefined) throw error;
    return { ...(await fromCache(cache, copy.commit, copy.present)), hubError: error as SiglipError };
  }
  const files = await new Collection(cache, described, settings).collect();
  // Last, so that the revision never stands for a checkpoint that is only half there.
  await cache.writeReference(revision, described.commit);
  return { folder: cache.snapshot(described.commit), revision: described.commit, repository, files };
}

function shortTimeout({ retry }: HubSettings): number {
  return Math.min(retry.stallTimeout, 10_000);
}

/** Gathers the files of one commit. */
class Collection {
  readonly #files: CheckpointFile[] = [];
  readonly #commit: string;

  constructor(
    private readonly cache: RepositoryCache,
    private readonly config: FileMetadata,
    private readonly settings: HubSettings,
  ) {
    this.#commit = config.commit;
  }

  async collect(): Promise<CheckpointFile[]> {
    for (const { file, optional } of smallFiles(this.settings)) await this.#add(file, optional);
    if (this.settings.weights) await this.#addWeights();
    return this.#files;
  }

  async #addWeights(): Promise<void> {
    const { cache } = this;
    const sharded =
      (await cache.size(this.#commit, weightsFile)) === undefined &&
      (await cache.size(this.#commit, weightsIndexFile)) !== undefined;
    if (!sharded && (await this.#add(weightsFile, true))) return;
    if (!(await this.#add(weightsIndexFile, true)))
      throw hubError(
        `${cache.repository} has no weights in safetensors form: looked for ${weightsFile} and ${weightsIndexFile} ` +
          `in revision ${this.#commit}`,
        { repository: cache.repository, revision: this.#commit, file: weightsFile, notFound: 'file', retryable: false },
      );
    for (const shard of await cache.readShards(this.#commit)) await this.#add(shard, false);
  }

  /** Returns whether the file exists; one that must exist and does not is an error. */
  async #add(file: string, optional: boolean): Promise<boolean> {
    const { cache, settings } = this;
    throwIfAborted(settings.signal);
    let cached = (await cache.size(this.#commit, file)) !== undefined;
    if (!cached) {
      if (optional && (await cache.isAbsent(this.#commit, file))) return false;
      const remote = { repository: cache.repository, revision: this.#commit, file };
      let metadata: FileMetadata;
      try {
        metadata = file === configFile ? this.config : await fetchMetadata(remote, settings);
      } catch (error) {
        if (hubDetails(error)?.notFound !== 'file') throw error;
        await cache.markAbsent(this.#commit, file);
        if (optional) return false;
        throw error;
      }
      cached = await fetchFile(cache, remote, metadata, settings);
    }
    this.#files.push(await describeFile(cache, this.#commit, file, cached));
    return true;
  }
}

async function fromCache(cache: RepositoryCache, commit: string, present: string[]): Promise<DownloadedCheckpoint> {
  const files = await Promise.all(present.map((file) => describeFile(cache, commit, file, true)));
  return { folder: cache.snapshot(commit), revision: commit, repository: cache.repository, files };
}

async function describeFile(
  cache: RepositoryCache,
  commit: string,
  file: string,
  cached: boolean,
): Promise<CheckpointFile> {
  return { file, path: cache.pointer(commit, file), size: (await cache.size(commit, file)) ?? 0, cached };
}

function offlineError(cache: RepositoryCache, settings: HubSettings, state: SnapshotState | undefined): SiglipError {
  const { repository, cacheDir } = cache;
  const file = state?.missing[0] ?? configFile;
  return new SiglipError(
    'ERR_SIGLIP_OFFLINE',
    `${file} of ${repository} (revision ${settings.revision}) is not in the cache at ${cacheDir}, and offline is set: ` +
      'download it once with the network, or point cacheDir or HF_HUB_CACHE at a cache that has it',
    {
      details: { repository, revision: settings.revision, file, missing: state?.missing ?? [configFile], cacheDir },
    },
  );
}
