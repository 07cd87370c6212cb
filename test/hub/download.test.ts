import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { type CheckpointOptions, type DownloadProgress, downloadCheckpoint } from '../../lib/hub/index.js';
import { checkpointFiles, commit, noise, quick, repositoryName, useHub, weights } from '../support/hub-checkpoints.js';
import { type Fault, sha256 } from '../support/hub-server.js';

const hub = useHub();
const weightsFile = 'model.safetensors';
let progress: DownloadProgress[];
beforeEach(() => {
  progress = [];
});

const blobs = () => path.join(hub.storage, 'blobs');
const partial = () => path.join(blobs(), `${sha256(weights)}.incomplete`);
const fault = (given: Fault) => hub.server.faults.push({ file: weightsFile, method: 'GET', ...given });
const ranges = () =>
  hub.server.requests.filter(({ host, file }) => host === 'storage' && file === weightsFile).map(({ range }) => range);

function download(options: CheckpointOptions = {}) {
  return downloadCheckpoint(repositoryName, { ...quick, onProgress: (report) => progress.push(report), ...options });
}

function leavePartial(content: Buffer): void {
  mkdirSync(blobs(), { recursive: true });
  writeFileSync(partial(), content);
}

async function failure(options?: CheckpointOptions) {
  const error = await download(options).then(
    () => undefined,
    (e) => e,
  );
  expect(error).toMatchObject({ name: 'SiglipError' });
  return error;
}

/** The weights are whole, verified by their name, and nothing unfinished is left. */
function expectWhole(): void {
  expect(readFileSync(path.join(hub.storage, 'snapshots', commit, weightsFile)).equals(weights)).toBe(true);
  expect(readdirSync(blobs()).filter((name) => name.includes('incomplete'))).toEqual([]);
  const reports = progress.filter(({ file }) => file === weightsFile);
  expect(reports.every(({ loaded }, i) => i === 0 || loaded > reports[i - 1]!.loaded)).toBe(true);
  expect(reports.every(({ total }) => total === weights.length)).toBe(true);
  expect(reports.at(-1)?.loaded).toBe(weights.length);
}

describe('progress', () => {
  it('rises from zero to the size of every file that is downloaded, and is silent about others', async () => {
    await download();
    expectWhole();
    for (const [file, content] of Object.entries(checkpointFiles())) {
      const reports = progress.filter((report) => report.file === file);
      expect(reports[0]).toEqual({ file, loaded: 0, total: content.length });
      expect(reports.at(-1)).toEqual({ file, loaded: content.length, total: content.length });
    }
    progress = [];
    await download();
    expect(progress).toEqual([]);
  });

  it('is reported for an empty file', async () => {
    hub.repository.commits[commit]!['tokenizer_config.json'] = Buffer.alloc(0);
    await download();
    expect(progress.filter(({ file }) => file === 'tokenizer_config.json')).toEqual([
      { file: 'tokenizer_config.json', loaded: 0, total: 0 },
    ]);
  });

  it('that throws ends the download with that error, and what has arrived is kept', async () => {
    const mistake = new Error('a mistake of the caller');
    const onProgress = ({ file, loaded }: DownloadProgress) => {
      if (file === weightsFile && loaded > 0) throw mistake;
    };
    await expect(download({ onProgress })).rejects.toBe(mistake);
    expect(ranges()).toHaveLength(1);
    expect(existsSync(partial())).toBe(true);
  });
});

describe('continuing', () => {
  it('asks only for what is missing', async () => {
    leavePartial(weights.subarray(0, 100_000));
    await download();
    expectWhole();
    expect(ranges()).toEqual(['bytes=100000-']);
    expect(progress.find(({ file }) => file === weightsFile)?.loaded).toBe(100_000);
  });

  it('takes a file that was complete and only not renamed', async () => {
    leavePartial(weights);
    await download();
    expectWhole();
    expect(ranges()).toEqual([]);
  });

  it.each<[string, Fault, (string | undefined)[]]>([
    ['ignores ranges', { host: 'storage', ignoreRange: true }, ['bytes=100000-']],
    ['answers 416', { host: 'storage', status: 416, times: 1 }, ['bytes=100000-', undefined]],
    [
      'starts elsewhere',
      { host: 'storage', times: 1, headers: { 'Content-Range': 'bytes 5-299999/300000' } },
      ['bytes=100000-', undefined],
    ],
    [
      'gives no range',
      { host: 'storage', times: 1, headers: { 'Content-Range': undefined } },
      ['bytes=100000-', undefined],
    ],
    [
      'compresses the rest',
      { host: 'storage', times: 1, headers: { 'Content-Encoding': 'gzip' } },
      ['bytes=100000-', undefined],
    ],
  ])('starts over with a server that %s', async (_, given, expected) => {
    leavePartial(weights.subarray(0, 100_000));
    fault(given);
    await download();
    expectWhole();
    expect(ranges()).toEqual(expected);
  });

  it('gives up on a server that refuses ranges and never sends the whole', async () => {
    leavePartial(weights.subarray(0, 100_000));
    hub.server.onRequest = ({ host, range }) => {
      hub.server.faults.length = 0;
      if (host === 'storage') fault(range === undefined ? { dropAfter: 1000 } : { status: 416 });
    };
    expect(await failure()).toMatchObject({ code: 'ERR_SIGLIP_HUB' });
    expect(ranges().length).toBeLessThanOrEqual(4);
  });

  it.each([
    ['damaged', Buffer.concat([Buffer.from('damage'), weights.subarray(6, 100_000)])],
    ['damaged but complete', Buffer.concat([Buffer.from('damage'), weights.subarray(6)])],
    ['too long', Buffer.concat([weights, Buffer.from('more')])],
  ])('recovers from an earlier part that is %s', async (_, content) => {
    leavePartial(content);
    await download();
    expectWhole();
  });
});

describe('a connection that', () => {
  it('drops is continued where it stopped', async () => {
    fault({ host: 'storage', dropAfter: 120_000, times: 2 });
    await download();
    expectWhole();
    const [first, second, third] = ranges();
    expect(first).toBeUndefined();
    expect(second).toMatch(/^bytes=[1-9]\d*-$/);
    expect(third).toMatch(/^bytes=[1-9]\d*-$/);
  });

  it('ends too early as if it was whole is continued', async () => {
    fault({ host: 'storage', dropAfter: 120_000, clean: true, times: 1 });
    await download();
    expectWhole();
  });

  it('drops on every attempt is given up, and the part is kept for the next time', async () => {
    fault({ host: 'storage', dropAfter: 1_000 });
    const error = await failure();
    expect(error).toMatchObject({ code: 'ERR_SIGLIP_HUB', details: { file: weightsFile, attempts: 3 } });
    expect(error.cause).toBeDefined();
    expect(ranges()).toHaveLength(3);
    expect(readFileSync(partial()).equals(weights.subarray(0, 3_000))).toBe(true);
    hub.server.faults.length = 0;
    progress = [];
    await download();
    expectWhole();
    expect(ranges().at(-1)).toBe('bytes=3000-');
  });

  it('brings a megabyte between drops is not given up', async () => {
    // Far more than a megabyte, because what was received but not yet read when the connection drops is lost.
    const large = noise(20 * 2 ** 20, 9);
    hub.repository.commits[commit]![weightsFile] = large;
    fault({ host: 'storage', dropAfter: 4.25 * 2 ** 20 });
    const { files } = await download();
    expect(readFileSync(files.at(-1)!.path).equals(large)).toBe(true);
    expect(ranges().length).toBeGreaterThanOrEqual(4);
  });

  it('brings a megabyte once and then nothing is given up', async () => {
    hub.repository.commits[commit]![weightsFile] = noise(6 * 2 ** 20, 9);
    fault({ host: 'storage', dropAfter: 4.25 * 2 ** 20, times: 1 });
    fault({ host: 'storage', status: 500 });
    expect(await failure()).toMatchObject({ details: { status: 500 } });
    expect(ranges()).toHaveLength(4);
  });

  it('stalls is cut and continued', async () => {
    fault({ host: 'storage', stallAfter: 50_000, times: 1 });
    await download();
    expectWhole();
    expect(ranges()).toEqual([undefined, 'bytes=50000-']);
  });

  it('stalls on every attempt is given up with the time it was given', async () => {
    fault({ method: 'HEAD', file: 'config.json', stallAfter: 0 });
    const error = await failure({ retry: { ...quick.retry, attempts: 2, stallTimeout: 1500 } });
    expect(error).toMatchObject({ code: 'ERR_SIGLIP_HUB', message: expect.stringContaining('nothing for 1500 ms') });
    expect(hub.server.log).toEqual(['HEAD config.json', 'HEAD config.json']);
  });

  it('is refused names the address and the reason', async () => {
    await hub.server.stop();
    const error = await failure();
    expect(error.message).toContain('ECONNREFUSED');
    expect(error).toMatchObject({ code: 'ERR_SIGLIP_HUB', details: { attempts: 3, reason: 'ECONNREFUSED' } });
  });
});

describe('content', () => {
  it.each<[string, string, number]>([
    ['weights', weightsFile, 300_000],
    ['small file', 'config.json', 24],
  ])('of a %s that does not have its hash is deleted', async (_, file, length) => {
    hub.server.faults.push({
      file,
      method: 'GET',
      body: noise(length, 7),
      ...(file === weightsFile && { host: 'storage' }),
    });
    const error = await failure();
    expect(error).toMatchObject({ code: 'ERR_SIGLIP_HUB', message: expect.stringContaining('hash is wrong') });
    expect(error.details).toMatchObject({ repository: repositoryName, revision: commit, file, retryable: false });
    expect(readdirSync(blobs()).filter((name) => name.endsWith('incomplete'))).toEqual([]);
    expect(existsSync(path.join(hub.storage, 'snapshots', commit, file))).toBe(false);
    expect(existsSync(path.join(hub.storage, 'refs/main'))).toBe(false);
    hub.server.faults.length = 0;
    progress = [];
    await download();
    expectWhole();
  });

  it('that is longer than announced is cut off and deleted', async () => {
    fault({ host: 'storage', body: noise(400_000), headers: { 'Content-Length': undefined } });
    expect(await failure()).toMatchObject({
      code: 'ERR_SIGLIP_HUB',
      message: expect.stringContaining('more of model'),
    });
    expect(existsSync(partial())).toBe(false);
  });

  it('of another size than the hub says is not downloaded', async () => {
    fault({ host: 'storage', body: noise(400_000) });
    expect(await failure()).toMatchObject({ details: { expected: 300_000, received: 400_000, attempts: 3 } });
    expect(progress.filter(({ file }) => file === weightsFile)).toEqual([
      { file: weightsFile, loaded: 0, total: 300_000 },
    ]);
  });

  it('whose size nobody tells is still verified', async () => {
    fault({ method: 'HEAD', headers: { 'X-Linked-Size': undefined } });
    fault({ host: 'storage', headers: { 'Content-Length': undefined } });
    const { files } = await download();
    expect(readFileSync(files.at(-1)!.path).equals(weights)).toBe(true);
    expect(progress.at(-1)).toEqual({ file: weightsFile, loaded: 300_000, total: 300_000 });
  });

  it('is asked for uncompressed, and taken when it comes compressed all the same', async () => {
    fault({ host: 'storage', body: gzipSync(weights), headers: { 'Content-Encoding': 'gzip' } });
    await download();
    expectWhole();
    expect(new Set(hub.server.requests.map(({ encoding }) => encoding))).toEqual(new Set(['identity']));
  });

  it('under a name that is no hash is taken by size', async () => {
    fault({ method: 'HEAD', headers: { 'X-Linked-Etag': 'W/"mirror-7"' } });
    await download();
    expect(readFileSync(path.join(blobs(), 'mirror-7')).equals(weights)).toBe(true);
  });
});

describe('an impossible description', () => {
  it.each<[string, Record<string, string | undefined>]>([
    ['etag that climbs', { 'X-Linked-Etag': '"../../../../evil"' }],
    ['etag that is a path', { 'X-Linked-Etag': '"/etc/evil"' }],
    ['etag with a backslash', { 'X-Linked-Etag': '"a\\b"' }],
    ['etag that is a folder', { 'X-Linked-Etag': '".."' }],
    ['etag that is empty', { 'X-Linked-Etag': '""' }],
    ['commit that climbs', { 'X-Repo-Commit': '../../evil' }],
    ['commit that is a branch', { 'X-Repo-Commit': 'main' }],
    ['other commit', { 'X-Repo-Commit': 'c3'.repeat(20) }],
    ['missing commit', { 'X-Repo-Commit': undefined }],
    ['negative size', { 'X-Linked-Size': '-1' }],
    ['size that is no number', { 'X-Linked-Size': '1e3' }],
    ['size beyond numbers', { 'X-Linked-Size': '9'.repeat(30) }],
    ['size beyond the disk', { 'X-Linked-Size': '9000000000000000' }],
  ])('is refused: %s', async (_, headers) => {
    fault({ method: 'HEAD', headers });
    const error = await failure();
    expect(error).toMatchObject({ code: 'ERR_SIGLIP_HUB', details: { file: weightsFile } });
    expect(error.message).toMatch(/describes model.safetensors|no X-Repo-Commit|needs \d+ more bytes/);
    expect(ranges()).toEqual([]);
    expect(readdirSync(path.dirname(hub.cacheDir))).toEqual(['hub']);
  });

  it.each(['../../evil', 'main', 'A1'.repeat(20), ''])(
    'of what the revision stands for is refused: %j',
    async (given) => {
      fault({ method: 'HEAD', file: 'config.json', headers: { 'X-Repo-Commit': given } });
      expect((await failure()).message).toContain('a commit that is not a hash');
      expect(existsSync(hub.cacheDir)).toBe(false);
    },
  );

  it('of a configuration as large as weights is refused', async () => {
    fault({ method: 'HEAD', file: 'tokenizer.json', headers: { 'X-Linked-Size': String(2 ** 30) } });
    expect(await failure()).toMatchObject({ message: expect.stringContaining('above the limit') });
  });

  it('says how much space is needed and free', async () => {
    fault({ method: 'HEAD', headers: { 'X-Linked-Size': '9000000000000000' } });
    const { details } = await failure();
    expect(details).toMatchObject({ requiredBytes: 9_000_000_000_000_000, freeBytes: expect.any(Number) });
  });
});

// A device that is always full stands in for the disk.
it.runIf(existsSync('/dev/full'))('says that the disk is full', async () => {
  mkdirSync(blobs(), { recursive: true });
  symlinkSync('/dev/full', partial());
  expect(await failure()).toMatchObject({
    code: 'ERR_SIGLIP_HUB',
    message: expect.stringContaining('is full'),
    details: { reason: 'ENOSPC', freeBytes: expect.any(Number) },
    cause: { code: 'ENOSPC' },
  });
});

it('says that the cache cannot be written', async () => {
  const file = path.join(path.dirname(hub.cacheDir), 'occupied');
  writeFileSync(file, '');
  expect(await failure({ cacheDir: file })).toMatchObject({
    code: 'ERR_SIGLIP_HUB',
    message: expect.stringContaining('cannot write config.json'),
  });
});

describe('abort', () => {
  it('before the start asks nothing', async () => {
    const reason = new Error('changed my mind');
    expect(await failure({ signal: AbortSignal.abort(reason) })).toMatchObject({
      code: 'ERR_SIGLIP_ABORTED',
      cause: reason,
    });
    expect(hub.server.requests).toEqual([]);
  });

  it('in the middle keeps the part for the next time', async () => {
    const controller = new AbortController();
    fault({ host: 'storage', stallAfter: 80_000 });
    const onProgress = ({ loaded }: DownloadProgress) => {
      if (loaded === 80_000) controller.abort();
    };
    expect(await failure({ signal: controller.signal, onProgress })).toMatchObject({ code: 'ERR_SIGLIP_ABORTED' });
    expect(readFileSync(partial()).equals(weights.subarray(0, 80_000))).toBe(true);
    expect(readdirSync(path.join(hub.cacheDir, '.locks/models--google--siglip2-test'))).toEqual([]);
    hub.server.faults.length = 0;
    progress = [];
    await download();
    expectWhole();
    expect(ranges()).toEqual([undefined, 'bytes=80000-']);
  });

  it('ends a wait before the next attempt', async () => {
    fault({ host: 'storage', status: 503 });
    const controller = new AbortController();
    hub.server.onRequest = ({ host }) => {
      if (host === 'storage') setTimeout(() => controller.abort(), 50);
    };
    const patient = { retry: { ...quick.retry, delay: 60_000, maximumDelay: 60_000 }, signal: controller.signal };
    expect(await failure(patient)).toMatchObject({ code: 'ERR_SIGLIP_ABORTED' });
  });

  it('leaves no listeners on the signal', async () => {
    const { signal } = new AbortController();
    const add = vi.spyOn(signal, 'addEventListener');
    const remove = vi.spyOn(signal, 'removeEventListener');
    await download({ signal });
    const forwarded = add.mock.calls.map(([, listener]) => listener);
    expect(forwarded.length).toBeGreaterThan(5);
    expect(remove.mock.calls.map(([, listener]) => listener)).toEqual(expect.arrayContaining(forwarded));
  });
});

describe('several at once', () => {
  const children: ChildProcess[] = [];
  afterEach(() => {
    for (const child of children.splice(0)) child.kill('SIGKILL');
  });

  it('download a file once', async () => {
    const results = await Promise.all([download(), download(), download()]);
    expect(hub.server.log.filter((line) => line === 'storage GET model.safetensors')).toHaveLength(1);
    expect(results.map(({ files }) => files.at(-1)!.cached).sort()).toEqual([false, true, true]);
    expectWhole();
  });

  const lock = () => path.join(hub.cacheDir, '.locks/models--google--siglip2-test', `${sha256(weights)}.siglip2.lock`);
  /** Holds the lock on the weights as a download in another process would. */
  async function holdElsewhere(): Promise<ChildProcess> {
    const script = `
      import { mkdirSync, readlinkSync, writeFileSync } from 'node:fs';
      import { hostname } from 'node:os';
      import { dirname } from 'node:path';
      let namespace = '';
      try { namespace = readlinkSync('/proc/self/ns/pid'); } catch {}
      mkdirSync(dirname(process.argv[1]), { recursive: true });
      const owner = { host: hostname() + ' ' + namespace, pid: process.pid, nonce: 'other' };
      writeFileSync(process.argv[1], JSON.stringify(owner));
      console.log('held');
      setInterval(() => {}, 1000);`;
    const child = spawn(process.execPath, ['--input-type=module', '-e', script, lock()], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    children.push(child);
    await once(child.stdout!, 'data');
    return child;
  }

  it('wait for the one that is at work, and take over when it dies', async () => {
    const child = await holdElsewhere();
    leavePartial(weights.subarray(0, 40_000));
    let done = false;
    const pending = download().then(() => {
      done = true;
    });
    await new Promise((resolve) => setTimeout(resolve, 400));
    expect(done).toBe(false);
    expect(ranges()).toEqual([]);
    child.kill('SIGKILL');
    await once(child, 'exit');
    await pending;
    expectWhole();
    expect(ranges()).toEqual(['bytes=40000-']);
    expect(existsSync(lock())).toBe(false);
  });

  it('can be aborted while they wait', async () => {
    await holdElsewhere();
    expect(await failure({ signal: AbortSignal.timeout(300) })).toMatchObject({ code: 'ERR_SIGLIP_ABORTED' });
    expect(existsSync(lock())).toBe(true);
  });
});
