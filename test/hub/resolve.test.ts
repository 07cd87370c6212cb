import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { describe, expect, it, vi } from 'vitest';
import { type CheckpointOptions, downloadCheckpoint, resolveCheckpoint } from '../../lib/hub/index.js';
import {
  checkpointFiles,
  commit,
  layOutLikePython,
  newerCommit,
  quick,
  repositoryName,
  shardedFiles,
  shardIndex,
  useHub,
  weights,
} from '../support/hub-checkpoints.js';
import { etagOf, gitSha1, sha256 } from '../support/hub-server.js';

const hub = useHub();

describe('a local source', () => {
  it('is returned as it is, as a path or a file: URL', async () => {
    const folder = path.join(hub.cacheDir, 'my model');
    mkdirSync(folder, { recursive: true });
    expect(await resolveCheckpoint(folder)).toEqual({ folder });
    expect(await resolveCheckpoint(pathToFileURL(folder))).toEqual({ folder });
    expect(await resolveCheckpoint(pathToFileURL(folder).href)).toEqual({ folder });
    expect(await resolveCheckpoint(path.relative(process.cwd(), folder))).toEqual({ folder });
    expect(hub.server.requests).toEqual([]);
  });

  it('wins over a hub id of the same name', async () => {
    const before = process.cwd();
    mkdirSync(path.join(hub.cacheDir, repositoryName), { recursive: true });
    process.chdir(hub.cacheDir);
    try {
      expect(await resolveCheckpoint(repositoryName)).toEqual({ folder: path.join(process.cwd(), repositoryName) });
    } finally {
      process.chdir(before);
    }
  });

  it.each([
    ['./nothing/here', /no folder ".\/nothing\/here", and it is not a hub id/],
    ['just-a-name', /not a hub id/],
    ['a/b/c', /not a hub id/],
    ['../b', /not a hub id/],
    ['a--b/c', /not a hub id/],
    ['a/b.git', /not a hub id/],
    ['a/..', /not a hub id/],
    ['https://huggingface.co/google/siglip2', /not a hub id/],
    ['file:///nothing/here', /there is no folder "\/nothing\/here"$/],
  ])('that is neither folder nor hub id says what was tried: %s', async (source, message) => {
    const error = await resolveCheckpoint(source).catch((e) => e);
    expect(error).toMatchObject({ code: 'ERR_SIGLIP_CHECKPOINT', message: expect.stringMatching(message) });
    expect(error.details.source).toBe(source);
  });

  it('that is a file says so', async () => {
    const file = path.join(path.dirname(hub.cacheDir), 'config.json');
    writeFileSync(file, '{}');
    for (const source of [file, pathToFileURL(file)])
      await expect(resolveCheckpoint(source)).rejects.toMatchObject({
        code: 'ERR_SIGLIP_CHECKPOINT',
        message: expect.stringContaining('is a file, not a folder'),
      });
  });

  it('of the wrong kind is an argument mistake', async () => {
    await expect(resolveCheckpoint(7 as unknown as string)).rejects.toThrow(/^source: expected a folder.*got 7/);
    await expect(resolveCheckpoint('')).rejects.toThrow(RangeError);
    await expect(resolveCheckpoint(new URL('https://example.com/model'))).rejects.toThrow(/file: URL/);
    await expect(downloadCheckpoint('/tmp')).rejects.toThrow(/^repository: expected a hub id/);
  });
});

describe('options', () => {
  it.each<[CheckpointOptions, RegExp]>([
    [{ revision: '' }, /options.revision/],
    [{ revision: '../../etc' }, /options.revision/],
    [{ revision: '/main' }, /options.revision/],
    [{ revision: 'a\\b' }, /options.revision/],
    [{ revision: 'a b' }, /options.revision/],
    [{ cacheDir: '' }, /options.cacheDir/],
    [{ offline: 'yes' as unknown as boolean }, /options.offline/],
    [{ onProgress: 1 as unknown as () => void }, /options.onProgress/],
    [{ signal: {} as AbortSignal }, /options.signal/],
    [{ retry: { attempts: 0 } }, /options.retry.attempts/],
    [{ token: 7 as unknown as string }, /options.token/],
    [{ weights: 1 as unknown as boolean }, /options.weights/],
    [{ device: 'cpu' } as CheckpointOptions, /options.device/],
  ])('refuses %j', async (options, message) => {
    for (const source of [repositoryName, path.dirname(hub.cacheDir)]) {
      const error = await resolveCheckpoint(source, options).catch((e) => e);
      expect(error.message).toMatch(message);
      expect(error instanceof TypeError || error instanceof RangeError).toBe(true);
    }
  });

  it('never shows a token that it refuses', async () => {
    const error = await downloadCheckpoint(repositoryName, { token: 'hf_sécret' }).catch((e) => e);
    expect(error).toBeInstanceOf(RangeError);
    expect(String(error)).not.toContain('cret');
  });

  it('refuses an endpoint that is not a web address, unless a folder makes it needless', async () => {
    vi.stubEnv('HF_ENDPOINT', 'ftp://example.com');
    await resolveCheckpoint(path.dirname(hub.cacheDir));
    await expect(downloadCheckpoint(repositoryName)).rejects.toMatchObject({ code: 'ERR_SIGLIP_HUB' });
  });
});

describe('a hub id', () => {
  it('is downloaded into the layout of Python', async () => {
    const { folder, revision, repository } = await resolveCheckpoint(repositoryName, quick);
    expect({ folder, revision, repository }).toEqual({
      folder: path.join(hub.storage, 'snapshots', commit),
      revision: commit,
      repository: repositoryName,
    });
    for (const [file, content] of Object.entries(checkpointFiles())) {
      expect(readFileSync(path.join(folder, file)).equals(content)).toBe(true);
      expect(readlinkSync(path.join(folder, file))).toBe(`../../blobs/${etagOf(file, content)}`);
    }
    expect(readFileSync(path.join(hub.storage, 'refs/main'), 'utf8')).toBe(commit);
    expect(readdirSync(path.join(hub.storage, 'blobs')).sort()).toEqual(
      Object.entries(checkpointFiles())
        .map(([file, content]) => etagOf(file, content))
        .sort(),
    );
    expect(readdirSync(path.join(hub.cacheDir, '.locks/models--google--siglip2-test'))).toEqual([]);
  });

  it('comes with the preprocessing settings of transformers 5', async () => {
    const settings = Buffer.from('{"image_processor":{"image_mean":[0,0,0]}}');
    hub.repository.commits[commit] = { ...checkpointFiles(), 'processor_config.json': settings };
    const { folder } = await resolveCheckpoint(repositoryName, quick);
    expect(readFileSync(path.join(folder, 'processor_config.json')).equals(settings)).toBe(true);
  });

  it('asks for every file of the commit that the revision stood for at the start', async () => {
    hub.repository.commits[newerCommit] = { ...checkpointFiles(), 'model.safetensors': Buffer.from('other') };
    hub.server.onRequest = (request) => {
      if (request.method === 'GET') hub.repository.revisions.main = newerCommit;
    };
    expect((await resolveCheckpoint(repositoryName, quick)).revision).toBe(commit);
    expect(readFileSync(path.join(hub.storage, `snapshots/${commit}/model.safetensors`)).equals(weights)).toBe(true);
  });

  it('lists files with size and origin', async () => {
    const first = await downloadCheckpoint(repositoryName, quick);
    expect(first.files.map(({ file, size, cached }) => [file, size, cached])).toEqual(
      Object.entries(checkpointFiles()).map(([file, content]) => [file, content.length, false]),
    );
    for (const { path: location, size } of first.files) expect(statSync(location).size).toBe(size);
    const second = await downloadCheckpoint(repositoryName, quick);
    expect(second.files.map(({ cached }) => cached)).toEqual([true, true, true, true, true]);
  });

  it('takes one request when everything is there, and none for a commit', async () => {
    await resolveCheckpoint(repositoryName, quick);
    hub.server.requests.length = 0;
    await resolveCheckpoint(repositoryName, quick);
    expect(hub.server.log).toEqual(['HEAD config.json']);
    hub.server.requests.length = 0;
    await resolveCheckpoint(repositoryName, { ...quick, revision: commit });
    expect(hub.server.requests).toEqual([]);
  });

  it('fetches only what changed in a newer commit', async () => {
    await resolveCheckpoint(repositoryName, quick);
    hub.repository.revisions.main = newerCommit;
    hub.repository.commits[newerCommit] = { ...checkpointFiles(), 'config.json': Buffer.from('{"new":1}') };
    hub.server.requests.length = 0;
    const { files, folder } = await downloadCheckpoint(repositoryName, quick);
    expect(files.filter(({ cached }) => !cached).map(({ file }) => file)).toEqual(['config.json']);
    expect(hub.server.log.filter((line) => line.includes('GET'))).toEqual(['GET config.json']);
    expect(readFileSync(path.join(folder, 'model.safetensors')).equals(weights)).toBe(true);
  });

  it('can do without weights or tokenizer', async () => {
    const names = async (options: CheckpointOptions) =>
      (await downloadCheckpoint(repositoryName, { ...quick, ...options })).files.map(({ file }) => file);
    expect(await names({ weights: false })).toEqual([
      'config.json',
      'preprocessor_config.json',
      'tokenizer.json',
      'tokenizer_config.json',
    ]);
    expect(await names({ tokenizer: false })).toEqual(['config.json', 'preprocessor_config.json', 'model.safetensors']);
  });

  it('may lack all but config.json and the weights, and is not asked about them twice', async () => {
    const { 'config.json': config, 'model.safetensors': model } = checkpointFiles();
    hub.repository.commits[commit] = { 'config.json': config!, 'model.safetensors': model! };
    const { files } = await downloadCheckpoint(repositoryName, quick);
    expect(files.map(({ file }) => file)).toEqual(['config.json', 'model.safetensors']);
    for (const file of ['preprocessor_config.json', 'tokenizer.json', 'tokenizer_config.json'])
      expect(existsSync(path.join(hub.storage, '.no_exist', commit, file))).toBe(true);
    hub.server.requests.length = 0;
    await downloadCheckpoint(repositoryName, quick);
    expect(hub.server.log).toEqual(['HEAD config.json']);
    await downloadCheckpoint(repositoryName, { ...quick, offline: true });
  });

  it('treats a 404 without explanation as a missing file', async () => {
    hub.server.faults.push({ file: 'tokenizer.json', status: 404 });
    const { files } = await downloadCheckpoint(repositoryName, quick);
    expect(files.map(({ file }) => file)).not.toContain('tokenizer.json');
  });

  it('may have its weights in shards', async () => {
    hub.repository.commits[commit] = shardedFiles();
    const { files, folder } = await downloadCheckpoint(repositoryName, quick);
    expect(files.slice(-3).map(({ file }) => file)).toEqual([
      'model.safetensors.index.json',
      'model-00001-of-00002.safetensors',
      'model-00002-of-00002.safetensors',
    ]);
    for (const [file, content] of Object.entries(shardedFiles()))
      expect(readFileSync(path.join(folder, file)).equals(content)).toBe(true);
    await resolveCheckpoint(repositoryName, { ...quick, offline: true });
    rmSync(path.join(folder, 'model-00002-of-00002.safetensors'));
    await expect(resolveCheckpoint(repositoryName, { ...quick, offline: true })).rejects.toMatchObject({
      code: 'ERR_SIGLIP_OFFLINE',
      details: { file: 'model-00002-of-00002.safetensors' },
    });
  });

  it('follows a renamed repository, with the token', async () => {
    hub.repository.token = 'hf_secret';
    hub.server.repositories['old/name'] = { revisions: {}, commits: {}, movedTo: repositoryName };
    const { folder } = await resolveCheckpoint('old/name', { ...quick, token: 'hf_secret' });
    expect(readFileSync(path.join(folder, 'model.safetensors')).equals(weights)).toBe(true);
  });

  it('accepts branches with slashes, tags and short hashes', async () => {
    hub.repository.revisions['refs/pr/1'] = commit;
    hub.repository.revisions.a1a1a1a = commit;
    for (const revision of ['refs/pr/1', 'a1a1a1a']) {
      expect((await resolveCheckpoint(repositoryName, { ...quick, revision })).revision).toBe(commit);
      expect(readFileSync(path.join(hub.storage, 'refs', revision), 'utf8')).toBe(commit);
    }
    expect(hub.server.requests.some(({ url }) => url.includes('/resolve/refs%2Fpr%2F1/'))).toBe(true);
  });

  it('copies or moves where links are not available', async () => {
    vi.stubEnv('HF_HUB_DISABLE_SYMLINKS', '1');
    const { folder } = await resolveCheckpoint(repositoryName, quick);
    for (const [file, content] of Object.entries(checkpointFiles()))
      expect(readFileSync(path.join(folder, file)).equals(content)).toBe(true);
    expect(() => readlinkSync(path.join(folder, 'model.safetensors'))).toThrow(/EINVAL/);
    expect(readdirSync(path.join(hub.storage, 'blobs'))).toEqual([]);
    // A blob that others may link to stays.
    vi.stubEnv('HF_HUB_DISABLE_SYMLINKS', undefined);
    rmSync(hub.storage, { recursive: true });
    await resolveCheckpoint(repositoryName, quick);
    rmSync(folder, { recursive: true });
    vi.stubEnv('HF_HUB_DISABLE_SYMLINKS', '1');
    await resolveCheckpoint(repositoryName, quick);
    expect(existsSync(path.join(hub.storage, 'blobs', sha256(weights)))).toBe(true);
    expect(readFileSync(path.join(folder, 'model.safetensors')).equals(weights)).toBe(true);
  });

  it('downloads again what a broken link or a truncated blob stands for', async () => {
    const { folder } = await resolveCheckpoint(repositoryName, quick);
    rmSync(path.join(hub.storage, 'blobs', sha256(weights)));
    await resolveCheckpoint(repositoryName, quick);
    expect(readFileSync(path.join(folder, 'model.safetensors')).equals(weights)).toBe(true);
    rmSync(path.join(folder, 'model.safetensors'));
    writeFileSync(path.join(hub.storage, 'blobs', sha256(weights)), weights.subarray(0, 1000));
    await resolveCheckpoint(repositoryName, quick);
    expect(readFileSync(path.join(folder, 'model.safetensors')).equals(weights)).toBe(true);
  });
});

describe('the environment', () => {
  const snapshotIn = (cacheDir: string) => path.join(cacheDir, 'models--google--siglip2-test/snapshots', commit);

  it('decides on the cache, in the order of Python, at the time of the call', async () => {
    const home = path.dirname(hub.cacheDir);
    const folder = async (options: CheckpointOptions = {}) =>
      (await resolveCheckpoint(repositoryName, { ...quick, ...options })).folder;
    vi.stubEnv('HF_HOME', undefined);
    vi.stubEnv('XDG_CACHE_HOME', path.join(home, 'x'));
    expect(await folder()).toBe(snapshotIn(path.join(home, 'x/huggingface/hub')));
    vi.stubEnv('HF_HOME', '$XDG_CACHE_HOME/h');
    expect(await folder()).toBe(snapshotIn(path.join(home, 'x/h/hub')));
    vi.stubEnv('HF_HUB_CACHE', path.join(home, 'c'));
    expect(await folder()).toBe(snapshotIn(path.join(home, 'c')));
    expect(await folder({ cacheDir: path.join(home, 'd') })).toBe(snapshotIn(path.join(home, 'd')));
    vi.stubEnv('HOME', home);
    expect(await folder({ cacheDir: '~/e' })).toBe(snapshotIn(path.join(home, 'e')));
  });

  it('gives the token: option, then variable, then file', async () => {
    hub.repository.token = 'hf_file';
    writeFileSync(path.join(path.dirname(hub.cacheDir), 'token'), 'hf_file\n');
    await resolveCheckpoint(repositoryName, quick);
    const sent = async (options: CheckpointOptions = {}) => {
      hub.server.requests.length = 0;
      await resolveCheckpoint(repositoryName, { ...quick, ...options });
      return hub.server.requests[0]?.authorization;
    };
    hub.repository.token = undefined as unknown as string;
    expect(await sent()).toBe('Bearer hf_file');
    vi.stubEnv('HF_TOKEN', 'hf_variable\n');
    expect(await sent()).toBe('Bearer hf_variable');
    expect(await sent({ token: 'hf_option' })).toBe('Bearer hf_option');
    expect(await sent({ token: '' })).toBeUndefined();
    vi.stubEnv('HF_HUB_DISABLE_IMPLICIT_TOKEN', '1');
    expect(await sent()).toBeUndefined();
  });

  it('can forbid the network, which the option can allow', async () => {
    vi.stubEnv('HF_HUB_OFFLINE', 'true');
    await expect(resolveCheckpoint(repositoryName, quick)).rejects.toMatchObject({ code: 'ERR_SIGLIP_OFFLINE' });
    expect(hub.server.requests).toEqual([]);
    await resolveCheckpoint(repositoryName, { ...quick, offline: false });
    await resolveCheckpoint(repositoryName, quick);
  });
});

describe('a cache filled by Python', () => {
  it('serves a commit without any request, and a branch when offline', async () => {
    layOutLikePython(hub.storage, checkpointFiles());
    const folder = path.join(hub.storage, 'snapshots', commit);
    for (const options of [{ revision: commit }, { offline: true }, { revision: commit, offline: true }])
      expect(await resolveCheckpoint(repositoryName, { ...quick, ...options })).toEqual({
        folder,
        revision: commit,
        repository: repositoryName,
      });
    expect(hub.server.requests).toEqual([]);
  });

  it('serves shards, and what it knows to be absent', async () => {
    const { 'tokenizer.json': _, 'tokenizer_config.json': __, ...files } = shardedFiles();
    layOutLikePython(hub.storage, files, { absent: ['tokenizer.json', 'tokenizer_config.json', 'model.safetensors'] });
    const { files: found } = await downloadCheckpoint(repositoryName, { ...quick, revision: commit });
    expect(found).toHaveLength(5);
    expect(hub.server.requests).toEqual([]);
  });

  it('is good enough offline without the files that have defaults', async () => {
    const { 'preprocessor_config.json': _, 'tokenizer_config.json': __, ...files } = checkpointFiles();
    layOutLikePython(hub.storage, files);
    await resolveCheckpoint(repositoryName, { ...quick, offline: true });
    // Online, the hub is asked for them.
    await resolveCheckpoint(repositoryName, { ...quick, revision: commit });
    expect(existsSync(path.join(hub.storage, 'snapshots', commit, 'tokenizer_config.json'))).toBe(true);
  });

  it.each([
    ['config.json', {}],
    ['tokenizer.json', {}],
    ['model.safetensors', {}],
  ])('names %s when it is missing offline', async (file) => {
    const files = checkpointFiles();
    delete files[file];
    layOutLikePython(hub.storage, files);
    const error = await resolveCheckpoint(repositoryName, { ...quick, offline: true }).catch((e) => e);
    expect(error).toMatchObject({ code: 'ERR_SIGLIP_OFFLINE', details: { file, missing: [file] } });
    expect(error.message).toContain(file);
    expect(hub.server.requests).toEqual([]);
  });

  it('does not serve an unknown revision offline', async () => {
    layOutLikePython(hub.storage, checkpointFiles());
    for (const revision of ['other', newerCommit])
      await expect(resolveCheckpoint(repositoryName, { ...quick, offline: true, revision })).rejects.toMatchObject({
        code: 'ERR_SIGLIP_OFFLINE',
        details: { file: 'config.json', revision },
      });
    // A damaged reference is like none.
    writeFileSync(path.join(hub.storage, 'refs/main'), '../../elsewhere');
    await expect(resolveCheckpoint(repositoryName, { ...quick, offline: true })).rejects.toMatchObject({
      code: 'ERR_SIGLIP_OFFLINE',
    });
  });

  it.each([
    ['is down', { status: 503 }],
    ['is silent', { stallAfter: 0 }],
    ['refuses', { status: 403 }],
    ['is a login page', { headers: { 'X-Repo-Commit': undefined } }],
    ['redirects in circles', { status: 302, headers: { Location: '/login' } }],
    ['cannot be reached', undefined],
  ])('stands in for a hub that %s, and the reason is told', async (_, fault) => {
    layOutLikePython(hub.storage, checkpointFiles());
    if (fault === undefined) await hub.server.stop();
    else hub.server.faults.push(fault);
    const found = await resolveCheckpoint(repositoryName, quick);
    expect(found.folder).toBe(path.join(hub.storage, 'snapshots', commit));
    expect(found.hubError).toMatchObject({ code: 'ERR_SIGLIP_HUB' });
    // Nobody waits for retries when there is a copy.
    expect(hub.server.requests.filter(({ file }) => file === 'config.json').length).toBeLessThanOrEqual(1);
  });

  it('does not stand in for a file or revision that the hub says is gone', async () => {
    layOutLikePython(hub.storage, checkpointFiles(), { revision: 'gone' });
    await expect(resolveCheckpoint(repositoryName, { ...quick, revision: 'gone' })).rejects.toMatchObject({
      details: { notFound: 'revision' },
    });
  });

  it('is not moved to a newer commit until that is complete', async () => {
    layOutLikePython(hub.storage, checkpointFiles());
    hub.repository.revisions.main = newerCommit;
    hub.repository.commits[newerCommit] = { ...checkpointFiles(), 'model.safetensors': Buffer.from('new') };
    hub.server.faults.push({ host: 'storage', file: 'model.safetensors', status: 500 });
    await expect(resolveCheckpoint(repositoryName, quick)).rejects.toMatchObject({ code: 'ERR_SIGLIP_HUB' });
    expect((await resolveCheckpoint(repositoryName, { ...quick, offline: true })).revision).toBe(commit);
    hub.server.faults.length = 0;
    expect((await resolveCheckpoint(repositoryName, quick)).revision).toBe(newerCommit);
    expect((await resolveCheckpoint(repositoryName, { ...quick, offline: true })).revision).toBe(newerCommit);
  });
});

describe('a hostile index', () => {
  it.each([
    '../../../etc/passwd',
    '../model.safetensors',
    '..%2f..%2fmodel.safetensors',
    '%2e%2e/model.safetensors',
    '/etc/model.safetensors',
    'C:\\model.safetensors',
    '..\\model.safetensors',
    'sub/model.safetensors',
    '.hidden.safetensors',
    'model.bin',
    'model\0.safetensors',
    '',
  ])('with the shard name %j is refused', async (name) => {
    hub.repository.commits[commit] = {
      ...shardedFiles(),
      'model.safetensors.index.json': shardIndex('a.safetensors', name),
    };
    await expect(resolveCheckpoint(repositoryName, quick)).rejects.toMatchObject({
      code: 'ERR_SIGLIP_CHECKPOINT',
      message: expect.stringContaining('not a plain *.safetensors name'),
    });
    expect(hub.server.log.at(-1)).toBe('GET model.safetensors.index.json');
  });

  it.each(['not json', 'null', '[]', '{"weight_map":[]}', '{"weight_map":{}}', '{"weight_map":{"a":1}}'])(
    'that is %s is refused, online and offline',
    async (text) => {
      hub.repository.commits[commit] = { ...shardedFiles(), 'model.safetensors.index.json': Buffer.from(text) };
      for (const options of [quick, { ...quick, offline: true, revision: commit }])
        await expect(resolveCheckpoint(repositoryName, options)).rejects.toMatchObject({
          code: 'ERR_SIGLIP_CHECKPOINT',
        });
    },
  );

  it('that names very many files is refused', async () => {
    const names = Array.from({ length: 1001 }, (_, i) => `${i}.safetensors`);
    hub.repository.commits[commit] = { ...shardedFiles(), 'model.safetensors.index.json': shardIndex(...names) };
    await expect(resolveCheckpoint(repositoryName, quick)).rejects.toMatchObject({ code: 'ERR_SIGLIP_CHECKPOINT' });
  });
});

it('names small files by their git hash', () => {
  // git hash-object of a file that says hello.
  expect(gitSha1(Buffer.from('hello\n'))).toBe('ce013625030ba8dba906f756967f9e9ca394464a');
});
