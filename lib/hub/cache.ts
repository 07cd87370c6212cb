/**
 * The part of the hub cache that belongs to one repository, in the layout that Python's huggingface_hub reads and writes:
 *
 *     models--organisation--name/
 *       blobs/<etag>                 contents, named by their hash; <etag>.incomplete while they are downloaded
 *       refs/<branch or tag>         the commit it stood for when it was last asked
 *       snapshots/<commit>/<file>    relative links into blobs
 *       .no_exist/<commit>/<file>    empty: the commit is known not to have this file
 */
import { randomBytes } from 'node:crypto';
import { copyFile, mkdir, open, readFile, rename, rm, stat, symlink, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { SiglipError } from '../errors.js';
import { maximumTextBytes } from './metadata.js';
import { isCommit } from './settings.js';

/** Names that files of a checkpoint have. */
export const configFile = 'config.json';
export const weightsFile = 'model.safetensors';
export const weightsIndexFile = 'model.safetensors.index.json';
export const tokenizerFile = 'tokenizer.json';
/** Files that have good defaults when a checkpoint lacks them. */
const optionalFiles = {
  preprocessor: 'preprocessor_config.json',
  /** Where transformers 5 keeps preprocessing settings, which precede those of the other file. */
  processor: 'processor_config.json',
  tokenizer: 'tokenizer_config.json',
};

/** More than any checkpoint has; a repository that names more is asking for something else. */
const maximumShards = 1000;

/** Which files a caller wants. */
export interface Wanted {
  weights: boolean;
  tokenizer: boolean;
}

/** What one snapshot holds of what is wanted. */
export interface SnapshotState {
  /** Files that are there. */
  present: string[];
  /** Files without which the snapshot is of no use. */
  missing: string[];
  /** Optional files that are not there, where only the hub knows whether they exist. */
  unknown: string[];
}

/** The small files of a checkpoint that are wanted, with whether the checkpoint may lack them. */
export function smallFiles(wanted: Wanted): { file: string; optional: boolean }[] {
  const files = [
    { file: configFile, optional: false },
    { file: optionalFiles.preprocessor, optional: true },
    { file: optionalFiles.processor, optional: true },
  ];
  if (wanted.tokenizer)
    files.push({ file: tokenizerFile, optional: true }, { file: optionalFiles.tokenizer, optional: true });
  return files;
}

/** Reads and writes the cache of one repository; knows nothing of the network. */
export class RepositoryCache {
  /** Folder of the repository. */
  readonly folder: string;

  constructor(
    readonly cacheDir: string,
    readonly repository: string,
    private readonly symlinks: boolean,
  ) {
    this.folder = path.join(cacheDir, this.#name());
  }

  #name(): string {
    return ['models', ...this.repository.split('/')].join('--');
  }

  /** Path of a content. */
  blob(etag: string): string {
    return path.join(this.folder, 'blobs', etag);
  }

  /** Path of the lock on a content while it is downloaded. */
  lock(etag: string): string {
    return path.join(this.cacheDir, '.locks', this.#name(), `${etag}.siglip2.lock`);
  }

  /** Folder of a commit: what a model is loaded from. */
  snapshot(commit: string): string {
    return path.join(this.folder, 'snapshots', commit);
  }

  /** Path of a file in a snapshot, whether or not it is there. */
  pointer(commit: string, file: string): string {
    return path.join(this.snapshot(commit), ...file.split('/'));
  }

  /** The commit a revision stood for when the hub was last asked; undefined when it never was. */
  async readReference(revision: string): Promise<string | undefined> {
    if (isCommit(revision)) return revision;
    try {
      const commit = (await readFile(path.join(this.folder, 'refs', ...revision.split('/')), 'utf8')).trim();
      return isCommit(commit) ? commit : undefined;
    } catch {
      return undefined;
    }
  }

  /** Remembers what a revision stands for. A cache that cannot be written to is still good for reading. */
  async writeReference(revision: string, commit: string): Promise<void> {
    if (revision === commit || (await this.readReference(revision)) === commit) return;
    const reference = path.join(this.folder, 'refs', ...revision.split('/'));
    try {
      await mkdir(path.dirname(reference), { recursive: true });
      await replace(reference, (temporary) => writeDurably(temporary, commit));
    } catch {
      // Without it the next offline use finds the revision it found before.
    }
  }

  /** Size of a file in a snapshot, undefined when it is not there. */
  async size(commit: string, file: string): Promise<number | undefined> {
    return fileSize(this.pointer(commit, file));
  }

  /** Whether the commit is known not to have this file. */
  async isAbsent(commit: string, file: string): Promise<boolean> {
    return (await fileSize(this.#absence(commit, file))) !== undefined;
  }

  /** Remembers that the commit does not have this file: one request less the next time. */
  async markAbsent(commit: string, file: string): Promise<void> {
    try {
      await mkdir(path.dirname(this.#absence(commit, file)), { recursive: true });
      await writeFile(this.#absence(commit, file), '');
    } catch {
      // The hub is asked again instead.
    }
  }

  #absence(commit: string, file: string): string {
    return path.join(this.folder, '.no_exist', commit, ...file.split('/'));
  }

  /**
   * Makes a blob appear in a snapshot: as a relative link, or where the file system has none by moving it there
   * (`fresh`: nothing else can refer to it yet) or copying it.
   */
  async link(etag: string, commit: string, file: string, fresh: boolean): Promise<void> {
    const blob = this.blob(etag);
    const pointer = this.pointer(commit, file);
    await mkdir(path.dirname(pointer), { recursive: true });
    const target = path.relative(path.dirname(pointer), blob);
    const linked =
      this.symlinks &&
      (await replace(pointer, (temporary) => symlink(target, temporary, 'file')).then(
        () => true,
        () => false,
      ));
    if (linked) return;
    if (fresh) await rename(blob, pointer);
    else await replace(pointer, (temporary) => copyFile(blob, temporary));
  }

  /** Compares a snapshot with what is wanted, without the network. */
  async inspect(commit: string, wanted: Wanted): Promise<SnapshotState> {
    const state: SnapshotState = { present: [], missing: [], unknown: [] };
    const has = async (file: string) => (await this.size(commit, file)) !== undefined;
    for (const { file, optional } of smallFiles(wanted)) {
      if (await has(file)) state.present.push(file);
      // Python asks for one of the two at most, and a cache that it filled is as good without the other.
      else if (file === optionalFiles.processor && state.present.includes(optionalFiles.preprocessor)) continue;
      else if (!(optional && (await this.isAbsent(commit, file))))
        // A model may be built without a tokenizer, but one that was asked for has no default to stand in for it.
        (optional && file !== tokenizerFile ? state.unknown : state.missing).push(file);
    }
    if (!wanted.weights) return state;
    if (await has(weightsFile)) state.present.push(weightsFile);
    else if (await has(weightsIndexFile)) {
      state.present.push(weightsIndexFile);
      for (const shard of await this.readShards(commit))
        ((await has(shard)) ? state.present : state.missing).push(shard);
    } else state.missing.push((await this.isAbsent(commit, weightsFile)) ? weightsIndexFile : weightsFile);
    return state;
  }

  /**
   * The names of the weight files in the index of a snapshot, sorted. They become paths, so anything but a plain file
   * name is refused.
   * @throws SiglipError `ERR_SIGLIP_CHECKPOINT` when the index is damaged or names something else.
   */
  async readShards(commit: string): Promise<string[]> {
    const file = this.pointer(commit, weightsIndexFile);
    const damaged = (why: string, cause?: unknown) =>
      new SiglipError('ERR_SIGLIP_CHECKPOINT', `${weightsIndexFile} of ${this.repository} ${why}`, {
        details: { file, repository: this.repository, revision: commit },
        cause,
      });
    if (((await fileSize(file)) ?? 0) > maximumTextBytes) throw damaged(`is larger than ${maximumTextBytes} bytes`);
    let index: unknown;
    try {
      index = JSON.parse(await readFile(file, 'utf8'));
    } catch (error) {
      throw damaged('is not JSON', error);
    }
    const map = (index as { weight_map?: unknown } | null)?.weight_map;
    if (typeof map !== 'object' || map === null || Array.isArray(map)) throw damaged('has no weight_map');
    const shards = [...new Set<unknown>(Object.values(map))];
    if (shards.length === 0 || shards.length > maximumShards)
      throw damaged(`names ${shards.length} files, expected 1 to ${maximumShards}`);
    for (const shard of shards)
      if (typeof shard !== 'string' || !/^[A-Za-z0-9_][A-Za-z0-9._-]{0,199}\.safetensors$/.test(shard))
        throw damaged(`names a file that is not a plain *.safetensors name: ${JSON.stringify(shard)?.slice(0, 100)}`);
    return (shards as string[]).sort();
  }
}

/** Size of a file that a path leads to, links followed; undefined when there is none. */
export async function fileSize(file: string): Promise<number | undefined> {
  try {
    const found = await stat(file);
    return found.isFile() ? found.size : undefined;
  } catch {
    return undefined;
  }
}

/**
 * Makes a file or link under a temporary name, `destination` and more up to `.tmp`, and renames it into place, so that
 * readers never see half of it.
 */
export async function replace(destination: string, make: (temporary: string) => Promise<void>): Promise<void> {
  const temporary = `${destination}.${randomBytes(4).toString('hex')}.tmp`;
  try {
    await make(temporary);
    await rename(temporary, destination);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}

/** Writes a new file, down to the disk. */
export async function writeDurably(file: string, content: string | Uint8Array): Promise<void> {
  const handle = await open(file, 'wx');
  try {
    await handle.writeFile(content);
    await handle.sync();
  } finally {
    await handle.close();
  }
}
