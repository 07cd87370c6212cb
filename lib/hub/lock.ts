/**
 * A lock between processes, so that several that need one file download it once.
 *
 * Node has no `flock`, so the lock is a file created exclusively, which also holds on network file systems. Its owner
 * touches it while it works. Whoever waits takes it over when the owner is a dead process of this machine, or when it has
 * not been touched for a while by the waiter's own clock. So an owner that stood still can find its lock taken over.
 * Downloads need not care: contents are named by their hash, two writers put the same bytes at the same places, and the
 * result is verified before it counts. Work that two must not do asks the {@link HeldLock} before it writes.
 */
import { randomBytes } from 'node:crypto';
import { mkdir, open, readFile, readlink, rename, rm, stat, utimes } from 'node:fs/promises';
import { hostname } from 'node:os';
import path from 'node:path';
import { pause } from './http.js';

/** In milliseconds. */
interface LockTimes {
  /** How often the owner touches the lock. */
  heartbeat: number;
  /** How long it may stay untouched before it is taken over: several heartbeats. */
  patience: number;
  /** How often a waiter looks. */
  poll: number;
}

/** How a lock is taken. */
interface LockOptions extends Partial<LockTimes> {
  /** Never take it over from a living process of this machine, however long that has stood still. */
  respectLiving?: boolean;
}

/** What an owner can know of its lock. */
export interface HeldLock {
  /** Fires when another owner is found in the lock, which is looked at with every heartbeat. */
  readonly lost: AbortSignal;
  /** Looks at once whether there is another owner in the lock. */
  isLost(): Promise<boolean>;
}

const usualTimes: LockTimes = { heartbeat: 5_000, patience: 30_000, poll: 100 };

/** Locks that this process holds. A lock with this process's number that is not among them is of an earlier life. */
const held = new Set<string>();

interface Owner {
  host: string;
  pid: number;
  nonce: string;
}

/** Runs `work` while holding the lock; waits for another owner first. */
export async function withLock<T>(
  file: string,
  signal: AbortSignal | undefined,
  work: (lock: HeldLock) => Promise<T>,
  options: LockOptions = {},
): Promise<T> {
  const settings = { ...usualTimes, respectLiving: false, ...options };
  await mkdir(path.dirname(file), { recursive: true });
  const owner: Owner = { host: await machine(), pid: process.pid, nonce: randomBytes(8).toString('hex') };
  held.add(owner.nonce);
  try {
    await acquire(file, owner, signal, settings);
    const lost = new AbortController();
    const isLost = async (): Promise<boolean> => {
      // A lock that is gone, or cannot be read just now, has no other owner.
      const nonce = (await readOwner(file))?.nonce ?? owner.nonce;
      if (nonce !== owner.nonce && !lost.signal.aborted)
        lost.abort(new Error(`${file} was taken over by another process`));
      return lost.signal.aborted;
    };
    const timer = setInterval(async () => {
      // The heartbeat of a lock that was lost would speak for its new owner.
      if (await isLost()) return;
      const now = new Date();
      await utimes(file, now, now).catch(() => {});
    }, settings.heartbeat).unref();
    try {
      return await work({ lost: lost.signal, isLost });
    } finally {
      clearInterval(timer);
      // Only if nobody has taken it over in the meantime.
      if ((await readOwner(file))?.nonce === owner.nonce) await rm(file, { force: true });
    }
  } finally {
    held.delete(owner.nonce);
  }
}

async function acquire(
  file: string,
  owner: Owner,
  signal: AbortSignal | undefined,
  { patience, poll, respectLiving }: Required<LockOptions>,
): Promise<void> {
  let seen: string | undefined;
  let since = 0;
  while (!(await create(file, owner))) {
    const current = await readOwner(file);
    const modified = await stat(file).then(
      ({ mtimeMs }) => mtimeMs,
      () => undefined,
    );
    const state = `${current?.nonce} ${modified}`;
    if (state !== seen) {
      seen = state;
      since = performance.now();
    }
    const dead = isDead(current, owner);
    const living = !dead && current?.host === owner.host;
    const silent = performance.now() - since > patience;
    if (dead || (silent && !(living && respectLiving))) await remove(file, current);
    else await pause(poll, signal);
  }
}

async function create(file: string, owner: Owner): Promise<boolean> {
  try {
    const handle = await open(file, 'wx');
    try {
      await handle.writeFile(JSON.stringify(owner));
    } finally {
      await handle.close();
    }
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  }
}

async function readOwner(file: string): Promise<Owner | undefined> {
  try {
    return JSON.parse(await readFile(file, 'utf8')) as Owner;
  } catch {
    // Gone, or just being written.
    return undefined;
  }
}

function isDead(current: Owner | undefined, self: Owner): boolean {
  if (current === undefined || current.host !== self.host) return false;
  if (current.pid === self.pid) return !held.has(current.nonce);
  try {
    process.kill(current.pid, 0);
    return false;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ESRCH';
  }
}

/** Removes a stale lock. It is renamed first, so that of several waiters one removes it and none a newer one. */
async function remove(file: string, stale: Owner | undefined): Promise<void> {
  const aside = `${file}.${randomBytes(4).toString('hex')}`;
  try {
    await rename(file, aside);
  } catch {
    return;
  }
  const taken = await readOwner(aside);
  if (taken?.nonce !== stale?.nonce) await rename(aside, file).catch(() => {});
  await rm(aside, { force: true });
}

/** Process numbers mean something on one machine until it starts anew and, in containers, in one process namespace. */
async function machine(): Promise<string> {
  const namespace = await readlink('/proc/self/ns/pid').catch(() => '');
  const boot = await readFile('/proc/sys/kernel/random/boot_id', 'utf8').catch(() => '');
  return `${hostname()} ${namespace} ${boot.trim()}`;
}
