/** Brings one blob into the cache: continued where it stopped, verified, and put in place by a rename. */
import { createHash } from 'node:crypto';
import { type FileHandle, mkdir, open, rename, rm, stat, statfs } from 'node:fs/promises';
import path from 'node:path';
import { throwIfAborted } from '../arguments.js';
import { SiglipError } from '../errors.js';
import { fileSize, type RepositoryCache } from './cache.js';
import {
  type Answer,
  hubError,
  type RemoteFile,
  resolveUrl,
  send,
  statusError,
  Watchdog,
  withRetries,
} from './http.js';
import { withLock } from './lock.js';
import { type FileMetadata, isWeights, maximumTextBytes } from './metadata.js';
import type { HubSettings } from './settings.js';

/** New bytes that make an attempt count as progress; a server that drips single bytes still runs out of attempts. */
const worthwhile = 2 ** 20;

/**
 * Downloads a file unless its blob is there, and makes it appear in the snapshot of its commit.
 * @returns whether the blob was already there.
 */
export async function fetchFile(
  cache: RepositoryCache,
  remote: RemoteFile,
  metadata: FileMetadata,
  settings: HubSettings,
): Promise<boolean> {
  const { etag, commit } = metadata;
  try {
    return await withLock(cache.lock(etag), settings.signal, async () => {
      // Another process may have finished it while this one waited.
      if ((await cache.size(commit, remote.file)) !== undefined) return true;
      const size = await fileSize(cache.blob(etag));
      const there = size !== undefined && (metadata.size === undefined || size === metadata.size);
      if (!there) await new Download(cache.blob(etag), remote, metadata, settings).run();
      await cache.link(etag, commit, remote.file, !there);
      return there;
    });
  } catch (error) {
    throw await diskError(error, cache.folder, remote);
  }
}

class Download {
  readonly #partial: string;
  /** Size of the file; from the answer to the download itself when the description had none. */
  #size: number | undefined;
  /** Bytes of the file that are on disk. */
  #loaded = 0;
  /** Largest number of bytes reported, so that progress never falls. */
  #reported = -1;
  /** Whether the server can be asked for a part of the file. */
  #ranges = true;

  constructor(
    private readonly blob: string,
    private readonly remote: RemoteFile,
    private readonly metadata: FileMetadata,
    private readonly settings: HubSettings,
  ) {
    this.#partial = `${blob}.incomplete`;
    this.#size = metadata.size;
  }

  async run(): Promise<void> {
    await mkdir(path.dirname(this.#partial), { recursive: true });
    const found = await fileSize(this.#partial);
    this.#loaded = found ?? 0;
    if (this.#size !== undefined && this.#loaded > this.#size) await this.#discard();
    const resumed = this.#loaded > 0;
    await this.#fill();
    if (!(await this.#matches())) {
      await this.#discard();
      // What an earlier run left behind may be at fault, which is no reason to fail: once more, all of it fresh.
      if (resumed) await this.#fill();
      if (!resumed || !(await this.#matches())) {
        await this.#discard();
        throw this.#error(`${this.remote.file} of ${this.remote.repository} arrived damaged: its hash is wrong`, {
          expected: this.metadata.etag,
        });
      }
    }
    const handle = await open(this.#partial, 'r+');
    try {
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(this.#partial, this.blob);
  }

  async #discard(): Promise<void> {
    await rm(this.#partial, { force: true });
    this.#loaded = 0;
  }

  /** Requests what is missing until the file has its size. */
  async #fill(): Promise<void> {
    await this.#requireSpace();
    this.#report();
    let milestone = this.#loaded;
    const progressed = () => {
      const enough = this.#loaded - milestone >= worthwhile;
      if (enough) milestone = this.#loaded;
      return enough;
    };
    // A size of zero is complete from the start, and so is a whole file that was never renamed.
    const handle = await open(this.#partial, await openMode(this.#partial));
    try {
      let complete = this.#size === this.#loaded;
      // Turns more than once only when the server refuses a range, which is asked for no second time.
      while (!complete) complete = await withRetries(this.settings, () => this.#request(handle), progressed);
    } finally {
      await handle.close();
    }
  }

  /** One request from where the file stops. Returns false when the server wants it asked for from the start. */
  async #request(handle: FileHandle): Promise<boolean> {
    const { remote, settings } = this;
    const watchdog = new Watchdog(settings.signal, settings.retry.stallTimeout);
    const url = resolveUrl(settings, { ...remote, revision: this.metadata.commit });
    try {
      const range = this.#ranges && this.#loaded > 0 ? `bytes=${this.#loaded}-` : undefined;
      const answer = await send('GET', url, remote, settings, watchdog, range === undefined ? {} : { range });
      const { status } = answer.response;
      if (range !== undefined && (status === 416 || (status === 206 && !this.#continues(answer)))) {
        await handle.truncate(0);
        this.#loaded = 0;
        this.#ranges = false;
        return false;
      }
      if (status !== 200 && !(status === 206 && range !== undefined)) throw statusError(answer, remote, settings);
      // 200 to a range: the server has none and sends everything. The same bytes are then written over themselves.
      await this.#receive(answer, status === 206 ? this.#loaded : 0, handle, watchdog);
      return true;
    } finally {
      watchdog.dispose();
    }
  }

  /** Whether a partial answer starts where the file stops. */
  #continues({ response }: Answer): boolean {
    const [, start] = /^bytes (\d+)-/.exec(response.headers.get('Content-Range') ?? '') ?? [];
    return Number(start) === this.#loaded && !isEncoded(response);
  }

  async #receive({ response, url }: Answer, from: number, handle: FileHandle, watchdog: Watchdog): Promise<void> {
    const { remote } = this;
    const announced = announcedSize(response);
    this.#size ??= announced;
    if (announced !== undefined && announced !== this.#size)
      throw this.#error(`the storage offers ${announced} bytes of ${remote.file}, the hub says ${this.#size}`, {
        expected: this.#size,
        received: announced,
        retryable: true,
      });
    const limit = this.#size ?? (isWeights(remote.file) ? Number.MAX_SAFE_INTEGER : maximumTextBytes);
    let position = from;
    const reader = (response.body ?? new Blob([]).stream()).getReader();
    for (;;) {
      watchdog.touch();
      const { done, value } = await reader.read().catch((error: unknown) => {
        throw watchdog.translate(error, remote, url);
      });
      if (done) break;
      const chunk = value as Uint8Array;
      if (position + chunk.length > limit) {
        await this.#discard();
        throw this.#error(`the server sent more of ${remote.file} than its ${limit} bytes`, { expected: limit });
      }
      for (let written = 0; written < chunk.length; ) {
        const { bytesWritten } = await handle.write(chunk, written, chunk.length - written, position + written);
        written += bytesWritten;
      }
      position += chunk.length;
      this.#loaded = Math.max(this.#loaded, position);
      this.#report();
    }
    if (this.#size !== undefined && position < this.#size)
      throw this.#error(`the connection ended after ${position} of ${this.#size} bytes of ${remote.file}`, {
        retryable: true,
      });
    this.#size ??= position;
  }

  /** A file with a hash for a name must have that hash; other names of contents leave the size as the only check. */
  async #matches(): Promise<boolean> {
    const { etag } = this.metadata;
    const size = (await stat(this.#partial)).size;
    if (size !== this.#size) return false;
    if (verification(etag) === 'size') return true;
    const hash = createHash(verification(etag) === 'sha256' ? 'sha256' : 'sha1');
    if (verification(etag) === 'git-sha1') hash.update(`blob ${size}\0`);
    // Read back from the disk: this also covers what an earlier run wrote.
    const handle = await open(this.#partial, 'r');
    try {
      for await (const chunk of handle.createReadStream({ autoClose: false, highWaterMark: 2 ** 20 })) {
        throwIfAborted(this.settings.signal);
        hash.update(chunk);
      }
    } finally {
      await handle.close();
    }
    return hash.digest('hex') === etag;
  }

  #report(): void {
    const loaded = this.#loaded;
    if (loaded <= this.#reported) return;
    this.#reported = loaded;
    this.settings.onProgress?.({ file: this.remote.file, loaded, total: this.#size ?? loaded });
  }

  /** Better to say so now than after an hour. */
  async #requireSpace(): Promise<void> {
    const folder = path.dirname(this.#partial);
    const free = await freeBytes(folder);
    const required = (this.#size ?? 0) - this.#loaded;
    if (free !== undefined && required > free)
      throw this.#error(`${this.remote.file} needs ${required} more bytes and the disk of ${folder} has ${free} free`, {
        folder,
        requiredBytes: required,
        freeBytes: free,
      });
  }

  #error(message: string, details: Record<string, unknown>): SiglipError {
    return hubError(message, { ...this.remote, retryable: false, ...details });
  }
}

/** How the content of a blob is checked, which its name decides. */
export function verification(etag: string): 'sha256' | 'git-sha1' | 'size' {
  if (/^[0-9a-f]{64}$/.test(etag)) return 'sha256';
  return /^[0-9a-f]{40}$/.test(etag) ? 'git-sha1' : 'size';
}

/** `r+` keeps what is there; only it can write at a position in the middle. */
async function openMode(file: string): Promise<string> {
  return (await fileSize(file)) === undefined ? 'w+' : 'r+';
}

function isEncoded(response: Response): boolean {
  return (response.headers.get('Content-Encoding') ?? 'identity') !== 'identity';
}

/** Size of the whole file by the headers of a download. */
function announcedSize(response: Response): number | undefined {
  if (isEncoded(response)) return undefined;
  const range = /\/(\d+)$/.exec(response.headers.get('Content-Range') ?? '')?.[1];
  const length = response.status === 206 ? range : response.headers.get('Content-Length');
  return length === null || length === undefined || !/^\d+$/.test(length) ? undefined : Number(length);
}

async function freeBytes(folder: string): Promise<number | undefined> {
  try {
    const { bavail, bsize, blocks } = await statfs(folder);
    // Some network file systems report nothing at all.
    return blocks === 0 ? undefined : bavail * bsize;
  } catch {
    return undefined;
  }
}

/** Errors of the file system in terms of what the caller was doing; others as they are. */
async function diskError(error: unknown, folder: string, remote: RemoteFile): Promise<unknown> {
  const { code, message } = error as NodeJS.ErrnoException;
  if (
    error instanceof SiglipError ||
    typeof code !== 'string' ||
    (error as NodeJS.ErrnoException).syscall === undefined
  )
    return error;
  const full = code === 'ENOSPC' || code === 'EDQUOT';
  const details = { ...remote, folder, reason: code, freeBytes: full ? await freeBytes(folder) : undefined };
  return hubError(
    full
      ? `the disk of ${folder} is full; what has arrived of ${remote.file} is kept, and continued once there is space`
      : `cannot write ${remote.file} to the cache at ${folder}: ${message}`,
    details,
    error,
  );
}
