import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { withLock } from '../../lib/hub/lock.js';

let folder: string;
let file: string;
beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'siglip2-lock-'));
  file = path.join(folder, 'a.lock');
});
afterEach(() => {
  rmSync(folder, { recursive: true });
});

const times = { heartbeat: 20, patience: 400, poll: 10 };
const stranger = JSON.stringify({ host: 'another machine', pid: process.pid, nonce: 'stranger' });
const wait = (milliseconds: number) => new Promise((resolve) => setTimeout(resolve, milliseconds));

it('lets one in at a time, and passes results and errors on', async () => {
  let inside = 0;
  const enter = (index: number) =>
    withLock(
      file,
      undefined,
      async () => {
        expect(++inside).toBe(1);
        await wait(15);
        inside--;
        if (index === 1) throw new Error('failed inside');
        return index;
      },
      times,
    );
  const results = await Promise.allSettled([0, 1, 2, 3].map(enter));
  expect(results.map((result) => (result.status === 'fulfilled' ? result.value : String(result.reason)))).toEqual([
    0,
    'Error: failed inside',
    2,
    3,
  ]);
  expect(readdirSync(folder)).toEqual([]);
});

it.each([
  ['an owner elsewhere that has gone silent', stranger],
  ['an owner that died before it wrote its name', ''],
])('is taken over from %s, after patience', async (_, content) => {
  writeFileSync(file, content);
  const start = performance.now();
  await withLock(file, undefined, async () => {}, times);
  expect(performance.now() - start).toBeGreaterThan(390);
  expect(readdirSync(folder)).toEqual([]);
});

it('is taken over at once from an earlier life of this process number', async () => {
  // The name of this machine is not exported: a lock taken here shows it.
  const owner = await withLock(file, undefined, async () => JSON.parse(readFileSync(file, 'utf8')), times);
  writeFileSync(file, JSON.stringify({ ...owner, nonce: 'earlier' }));
  const start = performance.now();
  await withLock(file, undefined, async () => {}, times);
  expect(performance.now() - start).toBeLessThan(350);
});

it('is not taken from an owner elsewhere that is at work', async () => {
  writeFileSync(file, stranger);
  const timer = setInterval(() => utimesSync(file, new Date(), new Date()), 20);
  let entered = false;
  const pending = withLock(
    file,
    undefined,
    async () => {
      entered = true;
    },
    times,
  );
  await wait(800);
  expect(entered).toBe(false);
  clearInterval(timer);
  rmSync(file);
  await pending;
});

it('shows that its owner is at work', async () => {
  let entered = false;
  const first = withLock(file, undefined, () => wait(1_000), times);
  await wait(20);
  // The owner as a waiter on another machine sees it: only the touches speak for it.
  const owner = JSON.parse(readFileSync(file, 'utf8'));
  writeFileSync(file, JSON.stringify({ ...owner, host: 'another machine' }));
  const second = withLock(
    file,
    undefined,
    async () => {
      entered = true;
    },
    times,
  );
  await wait(800);
  expect(entered).toBe(false);
  await first;
  await second;
});

it('tells its owner when another has taken it over, and speaks and tidies up for that one no more', async () => {
  await withLock(
    file,
    undefined,
    async ({ lost, isLost }) => {
      expect(await isLost()).toBe(false);
      writeFileSync(file, stranger);
      const long = new Date(0);
      utimesSync(file, long, long);
      await wait(200);
      expect(lost.aborted).toBe(true);
      expect(await isLost()).toBe(true);
      expect(statSync(file).mtimeMs).toBe(0);
    },
    times,
  );
  expect(readFileSync(file, 'utf8')).toBe(stranger);
});

it('is told at once, without a heartbeat', async () => {
  await withLock(file, undefined, async ({ lost, isLost }) => {
    writeFileSync(file, stranger);
    expect(await isLost()).toBe(true);
    expect(lost.aborted).toBe(true);
  });
});

it('is not taken from a living process of this machine that stands still, where that is asked for', async () => {
  const owner = await withLock(file, undefined, async () => JSON.parse(readFileSync(file, 'utf8')), times);
  writeFileSync(file, JSON.stringify({ ...owner, pid: process.ppid, nonce: 'paused' }));
  const waiting = withLock(file, AbortSignal.timeout(800), async () => {}, { ...times, respectLiving: true });
  await expect(waiting).rejects.toThrow();
  expect(JSON.parse(readFileSync(file, 'utf8'))).toMatchObject({ nonce: 'paused' });
  await withLock(file, undefined, async () => {}, times);
  expect(existsSync(file)).toBe(false);
});
