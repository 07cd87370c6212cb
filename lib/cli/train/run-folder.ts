/** The folder of a training: what is in it, and who may write there. */
import { mkdir, readdir, readFile, realpath, rename, rm, stat } from 'node:fs/promises';
import path from 'node:path';
import { SiglipError } from '../../errors.js';
import { type HeldLock, withLock } from '../../hub/lock.js';
import { StagedFiles } from '../../model/staged-files.js';
import { UsageError } from '../errors.js';
import { Progress } from '../progress.js';
import type { Terminal } from '../terminal.js';

/** Longer than a lock whose owner died on another machine is respected. */
const lockPatienceMs = 40_000;

const stateFile = 'training_state.safetensors';
/** A checkpoint's state while it is being saved: written before anything else is put in place, and put in place last. */
const unplacedState = /^\.training_state\.safetensors\.[0-9a-f]{12}\.new$/;

/** Temporary files of this package that were not put in place, and models that were not completed. */
const leftovers = /^\.(metrics\.jsonl|report\.html|config\.(yaml|json))\.[0-9a-f]{12}\.(new|old)$/;
const unfinished = '.unfinished';
const leftModel = /^average\.unfinished$/;
const leftSnapshot = /^step-\d+\.unfinished$/;

/** Where everything of a training is. */
export class RunFolder {
  #lock: HeldLock | undefined;

  constructor(
    /** As the user named it. */
    readonly name: string,
    readonly folder: string = path.resolve(name),
  ) {}

  /** The trainer's state and the model as it is. */
  get checkpoint(): string {
    return path.join(this.folder, 'checkpoint');
  }

  get metrics(): string {
    return path.join(this.folder, 'metrics.jsonl');
  }

  get report(): string {
    return path.join(this.folder, 'report.html');
  }

  /**
   * Runs work while no other process writes to the folder.
   * @param work what it is given fires when it should end, also because another process has taken the folder over: that
   *   of another machine does when this one stands still for long
   * @throws SiglipError ERR_SIGLIP_CHECKPOINT when the folder was taken over
   */
  async alone<T>(terminal: Terminal, signal: AbortSignal, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    await mkdir(this.folder, { recursive: true });
    const waiting = AbortSignal.any([signal, AbortSignal.timeout(lockPatienceMs)]);
    let progress: Progress | undefined;
    const timer = setTimeout(() => {
      progress = new Progress(terminal, `waiting for another process that trains into ${this.name} …`);
    }, 500);
    const settle = (): void => {
      clearTimeout(timer);
      progress?.stop();
      progress = undefined;
    };
    const file = path.join(this.folder, '.lock');
    try {
      return await withLock(
        file,
        waiting,
        (lock) => {
          this.#lock = lock;
          settle();
          return work(AbortSignal.any([signal, lock.lost]));
        },
        { respectLiving: true },
      );
    } catch (error) {
      settle();
      if (this.wasLost) throw this.#lostError(error);
      if (this.#lock !== undefined || signal.aborted || !waiting.aborted) throw error;
      throw new UsageError(
        `another process is training into ${this.name}`,
        `wait for it, end it, or name another folder with --out; if there is none, remove ${file}`,
      );
    }
  }

  /** Whether another process was found to have taken the folder over. */
  get wasLost(): boolean {
    return this.#lock?.lost.aborted ?? false;
  }

  /**
   * Requires, before something is written, that no other process has taken the folder over.
   * @throws SiglipError ERR_SIGLIP_CHECKPOINT when one has
   */
  async requireOwn(): Promise<void> {
    if (await this.#lock?.isLost()) throw this.#lostError(undefined);
  }

  #lostError(cause: unknown): SiglipError {
    return new SiglipError(
      'ERR_SIGLIP_CHECKPOINT',
      `${this.folder} cannot be written: another process took it over while this one stood still`,
      { details: { folder: this.folder }, ...(cause === undefined ? {} : { cause }) },
    );
  }

  /** Whether something of a name is here. */
  async holds(name: string): Promise<boolean> {
    return exists(path.join(this.folder, name));
  }

  /** Whether a training was saved here. */
  async holdsTraining(): Promise<boolean> {
    return exists(path.join(this.checkpoint, stateFile));
  }

  /**
   * Requires a folder in which nothing would be overwritten.
   * @param config the configuration file, which may lie there itself
   * @param resume what to type to continue a training
   */
  async requireFree(config: string, resume: string): Promise<void> {
    if (await this.holdsTraining())
      throw new UsageError(
        `${this.name} already holds a training`,
        `continue it with: ${resume}; or name another folder with --out`,
      );
    const own = await this.ownCopy(config);
    for (const name of ['metrics.jsonl', 'report.html', 'snapshots', 'average', path.basename(own.copy)])
      if ((own.same === false || name !== path.basename(own.copy)) && (await exists(path.join(this.folder, name))))
        throw new UsageError(`${this.name} already holds ${name}`, 'name another folder with --out');
    // A model of the user's would be overwritten. What a start that was ended during its first save has left is not one.
    const saved = await readdir(this.checkpoint).catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return [];
      throw error;
    });
    if (saved.length > 0 && !saved.some((name) => unplacedState.test(name)))
      throw new UsageError(
        `${this.name} already holds checkpoint, which is not of a training`,
        'name another folder with --out',
      );
  }

  /** Requires a saved training. */
  async requireTraining(): Promise<void> {
    if (!(await this.holdsTraining()))
      throw new UsageError(`${this.name} holds no training to continue`, 'leave out --resume to start one');
  }

  /** Removes what an interrupted run has left half done. */
  async tidy(): Promise<void> {
    for (const name of await readdir(this.folder))
      if (leftovers.test(name) || leftModel.test(name))
        await rm(path.join(this.folder, name), { recursive: true, force: true });
    const snapshots = path.join(this.folder, 'snapshots');
    for (const name of await readdir(snapshots).catch(() => []))
      if (leftSnapshot.test(name)) await rm(path.join(snapshots, name), { recursive: true, force: true });
  }

  /** Puts a copy of the configuration beside what comes of it, unless it lies there already. */
  async copyConfig(config: string): Promise<void> {
    const { copy, same } = await this.ownCopy(config);
    const content = await readFile(config);
    if (!same) await this.replace(path.basename(copy), content);
  }

  /** Writes a file that is, at any time, the old one or the new one as a whole. */
  async replace(name: string, content: string | Uint8Array): Promise<void> {
    await this.requireOwn();
    const staged = new StagedFiles(this.folder);
    try {
      await staged.write(name, (handle) => handle.writeFile(content));
      await staged.place(name, name);
      await staged.sync();
    } catch (cause) {
      await staged.undo();
      throw writeError(path.join(this.folder, name), cause);
    }
  }

  /** Writes a folder that exists only when it is complete. One of the name that is there is replaced. */
  async replaceFolder(name: string, write: (folder: string) => Promise<void>): Promise<void> {
    const target = path.join(this.folder, name);
    const temporary = `${target}${unfinished}`;
    await this.requireOwn();
    await rm(temporary, { recursive: true, force: true });
    try {
      await mkdir(path.dirname(target), { recursive: true });
      await write(temporary);
      await rm(target, { recursive: true, force: true });
      await rename(temporary, target);
    } catch (cause) {
      await rm(temporary, { recursive: true, force: true }).catch(() => undefined);
      throw cause instanceof SiglipError ? cause : writeError(target, cause);
    }
  }

  /** Where the copy of a configuration goes, and whether that is the file itself. */
  private async ownCopy(config: string): Promise<{ copy: string; same: boolean }> {
    const copy = path.join(this.folder, path.extname(config).toLowerCase() === '.json' ? 'config.json' : 'config.yaml');
    const [from, to] = await Promise.all([config, copy].map((file) => realpath(file).catch(() => undefined)));
    return { copy, same: from !== undefined && from === to };
  }
}

/** A file that could not be written, as the error that the trainer's own saving throws. */
export function writeError(file: string, cause: unknown): SiglipError {
  return new SiglipError('ERR_SIGLIP_CHECKPOINT', `${file} cannot be written: ${(cause as Error).message}`, {
    details: { file },
    cause,
  });
}

async function exists(file: string): Promise<boolean> {
  return stat(file).then(
    () => true,
    () => false,
  );
}
