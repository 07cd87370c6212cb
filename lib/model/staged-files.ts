/** Replacing files of a folder so that a failure at any point can be taken back. */
import { randomBytes } from 'node:crypto';
import { copyFile, type FileHandle, open, rename, rm } from 'node:fs/promises';
import path from 'node:path';

/**
 * New files of a folder, first written completely under temporary names in it, then put in place one by one. Until
 * {@link finish}, {@link undo} restores what was there.
 */
export class StagedFiles {
  /** Tells the files of this run from those of any other. */
  readonly token = randomBytes(6).toString('hex');
  private readonly temporary = new Set<string>();
  private readonly undoSteps: (() => Promise<void>)[] = [];

  constructor(readonly folder: string) {}

  /** The temporary path of a file. */
  private hidden(name: string, purpose: 'new' | 'old'): string {
    return path.join(this.folder, `.${name}.${this.token}.${purpose}`);
  }

  /** Writes a file under its temporary name, down to the disk. */
  async write(name: string, fill: (handle: FileHandle) => Promise<void>): Promise<void> {
    const file = this.hidden(name, 'new');
    const handle = await open(file, 'wx');
    this.temporary.add(file);
    try {
      await fill(handle);
      await handle.sync();
    } finally {
      await handle.close();
    }
  }

  /** Puts a written file in place of the one of its name, if any; of small files, since the old one is copied first. */
  async replace(name: string): Promise<void> {
    const target = path.join(this.folder, name);
    const old = this.hidden(name, 'old');
    const existed = await copyIfThere(target, old);
    if (existed) this.temporary.add(old);
    await this.place(name, name);
    this.undoSteps.push(() => (existed ? rename(old, target) : rm(target)));
  }

  /** Puts a written file in place under a name that nothing has yet. */
  async add(name: string, finalName: string): Promise<void> {
    await this.place(name, finalName);
    this.undoSteps.push(() => rm(path.join(this.folder, finalName)));
  }

  /** Puts a written file in place, over any other, for good. */
  async place(name: string, finalName: string): Promise<void> {
    const file = this.hidden(name, 'new');
    await rename(file, path.join(this.folder, finalName));
    this.temporary.delete(file);
  }

  /** Makes the names of the folder durable, where the system can do that for a folder. */
  async sync(): Promise<void> {
    const handle = await open(this.folder, 'r').catch(() => undefined);
    await handle?.sync().catch(() => undefined);
    await handle?.close();
  }

  /** Restores what was there and removes everything temporary, as far as possible. */
  async undo(): Promise<void> {
    for (const step of this.undoSteps.splice(0).reverse()) await step().catch(() => undefined);
    await this.finish();
  }

  /** Removes everything temporary. What was put in place stays. */
  async finish(): Promise<void> {
    this.undoSteps.length = 0;
    for (const file of this.temporary) await rm(file, { force: true }).catch(() => undefined);
    this.temporary.clear();
  }
}

async function copyIfThere(from: string, to: string): Promise<boolean> {
  try {
    await copyFile(from, to);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw error;
  }
}
