import { afterEach, describe, expect, it, vi } from 'vitest';
import { type CheckpointOptions, downloadCheckpoint, resolveCheckpoint } from '../../lib/hub/index.js';
import { commit, quick, repositoryName, useHub } from '../support/hub-checkpoints.js';

const hub = useHub();
afterEach(() => {
  vi.unstubAllGlobals();
});

async function failure(options: CheckpointOptions = {}, repository = repositoryName) {
  const error = await resolveCheckpoint(repository, { ...quick, ...options }).then(
    () => undefined,
    (e) => e,
  );
  expect(error).toMatchObject({ name: 'SiglipError', code: 'ERR_SIGLIP_HUB' });
  return error;
}

describe('the token', () => {
  it('is sent to the hub and not to its storage, which is on another port of the same host', async () => {
    hub.repository.token = 'hf_secret';
    await resolveCheckpoint(repositoryName, { ...quick, token: 'hf_secret' });
    const of = (host: string) => hub.server.requests.filter((request) => request.host === host);
    expect(new Set(of('hub').map(({ authorization }) => authorization))).toEqual(new Set(['Bearer hf_secret']));
    expect(of('storage')).toHaveLength(2);
    for (const { authorization } of of('storage')) expect(authorization).toBeUndefined();
  });

  it('does not come back when the storage redirects to the hub', async () => {
    hub.server.faults.push({
      host: 'storage',
      file: 'tokenizer.json',
      status: 302,
      headers: { Location: `${hub.server.endpoint}/collect` },
    });
    await failure({ token: 'hf_secret' });
    const collected = hub.server.requests.filter(({ url }) => url === '/collect');
    expect(collected.length).toBeGreaterThan(0);
    for (const { authorization } of collected) expect(authorization).toBeUndefined();
  });

  it('does not go along when a hub sends metadata requests elsewhere', async () => {
    const headers = { Location: `${hub.server.storageEndpoint}/x`, 'X-Repo-Commit': undefined };
    hub.server.faults.push({ method: 'HEAD', status: 302, headers });
    expect((await failure({ token: 'hf_secret' })).message).toContain('no X-Repo-Commit');
    expect(hub.server.requests.map(({ host }) => host)).toEqual(['hub']);
  });

  it('stays behind when a mirror sends metadata requests to the hub itself', async () => {
    const asked: [string, boolean][] = [];
    vi.stubGlobal('fetch', async (url: string, { headers }: { headers: Record<string, string> }) => {
      asked.push([url, 'Authorization' in headers]);
      return url.startsWith('https://huggingface.co/')
        ? new Response(null, { status: 404, headers: { 'X-Error-Code': 'EntryNotFound' } })
        : new Response(null, { status: 308, headers: { Location: `https://huggingface.co${new URL(url).pathname}` } });
    });
    vi.stubEnv('HF_ENDPOINT', 'https://mirror.example/hub/');
    await failure({ token: 'hf_secret' });
    expect(asked).toEqual([
      ['https://mirror.example/hub/google/siglip2-test/resolve/main/config.json', true],
      ['https://huggingface.co/hub/google/siglip2-test/resolve/main/config.json', false],
    ]);
  });

  it('is in no error', async () => {
    for (const status of [401, 403, 404, 500]) {
      hub.server.faults[0] = { status };
      const error = await failure({ token: 'hf_secret' });
      expect(JSON.stringify([error.message, error.details, String(error.cause)])).not.toContain('hf_secret');
    }
  });
});

describe('redirects', () => {
  it('in a circle end', async () => {
    hub.server.faults.push({
      file: 'config.json',
      status: 302,
      headers: { Location: `/${repositoryName}/resolve/main/config.json` },
    });
    expect((await failure()).message).toContain('redirects more than 10 times');
    expect(hub.server.requests).toHaveLength(11);
  });

  it.each(['file:///etc/passwd', 'data:text/plain,hello', 'http://'])('to %s are refused', async (Location) => {
    hub.server.faults.push({ method: 'GET', file: 'config.json', status: 302, headers: { Location } });
    expect((await failure()).message).toContain('not http or https');
  });

  it('from https to http are refused', async () => {
    vi.stubEnv('HF_ENDPOINT', 'https://hub.example');
    vi.stubGlobal(
      'fetch',
      async () => new Response(null, { status: 302, headers: { Location: 'http://hub.example/x' } }),
    );
    expect((await failure()).message).toContain('not https');
  });
});

describe('status', () => {
  it.each<[number, string | undefined, RegExp]>([
    [401, undefined, /needs a token.*HF_TOKEN.*nor is there a folder/],
    [401, 'hf_old', /token was not accepted/],
    [403, undefined, /gated, accept its terms at http.*no token was sent/],
    [403, 'hf_old', /accept its terms.*with permission/],
  ])('%i with token %s says what to do', async (status, token, message) => {
    hub.server.faults.push({ status });
    const error = await failure(token === undefined ? {} : { token });
    expect(error.message).toMatch(message);
    expect(error.details).toMatchObject({ status, repository: repositoryName, revision: 'main', file: 'config.json' });
    expect(hub.server.requests).toHaveLength(1);
  });

  it.each<[string, CheckpointOptions, string, RegExp, string]>([
    ['a repository', { token: 'hf_x' }, 'nobody/nothing', /no repository nobody\/nothing at http/, 'repository'],
    ['a revision', { revision: 'v9' }, repositoryName, /no revision v9/, 'revision'],
  ])('404 for %s says so', async (_, options, repository, message, notFound) => {
    const error = await failure(options, repository);
    expect(error.message).toMatch(message);
    expect(error.details).toMatchObject({ status: 404, notFound });
  });

  it('404 for config.json says so', async () => {
    delete hub.repository.commits[commit]!['config.json'];
    const error = await failure();
    expect(error.message).toMatch(/no file config.json in revision main of google\/siglip2-test/);
  });

  it('404 for the weights says what was looked for', async () => {
    delete hub.repository.commits[commit]!['model.safetensors'];
    expect((await failure()).message).toMatch(/looked for model.safetensors and model.safetensors.index.json/);
  });

  it.each([408, 429, 500, 502, 503, 504])('%i is tried again', async (status) => {
    hub.server.faults.push({ status, times: 2 });
    await resolveCheckpoint(repositoryName, quick);
    expect(hub.server.log.slice(0, 3)).toEqual(['HEAD config.json', 'HEAD config.json', 'HEAD config.json']);
  });

  it('500 on every attempt is given up', async () => {
    hub.server.faults.push({ host: 'storage', status: 500 });
    expect(await failure()).toMatchObject({ details: { status: 500, attempts: 3 } });
    expect(hub.server.log.filter((line) => line === 'storage GET tokenizer.json')).toHaveLength(3);
  });

  it('400 is not tried again', async () => {
    hub.server.faults.push({ status: 400 });
    expect(await failure()).toMatchObject({ details: { status: 400 } });
    expect(hub.server.requests).toHaveLength(1);
  });

  it('403 of the storage asks the hub for a new address', async () => {
    hub.server.faults.push({ host: 'storage', file: 'model.safetensors', status: 403, times: 1 });
    await resolveCheckpoint(repositoryName, quick);
    expect(hub.server.log.slice(-4)).toEqual([
      'GET model.safetensors',
      'storage GET model.safetensors',
      'GET model.safetensors',
      'storage GET model.safetensors',
    ]);
  });

  it('never shows the signature of a storage address', async () => {
    hub.server.faults.push({ host: 'storage', status: 404 });
    const error = await failure();
    expect(JSON.stringify([error.message, error.details])).not.toContain('signature');
  });
});

describe('Retry-After', () => {
  // A status of 400 and more drops the server's headers, so these faults bring theirs along.
  const limited = (value: string) => ({ status: 429, times: 1, headers: { 'Retry-After': value } });

  it('in seconds is waited for', async () => {
    hub.server.faults.push(limited('1'));
    const start = performance.now();
    await downloadCheckpoint(repositoryName, quick);
    expect(performance.now() - start).toBeGreaterThan(990);
  });

  it('as a date is waited for', async () => {
    hub.server.faults.push(limited(new Date(Date.now() + 2000).toUTCString()));
    const start = performance.now();
    await downloadCheckpoint(repositoryName, quick);
    expect(performance.now() - start).toBeGreaterThan(500);
  });

  it('beyond patience is an error that tells the time', async () => {
    hub.server.faults.push(limited('3600'));
    expect(await failure()).toMatchObject({ details: { status: 429, retryAfter: 3_600_000, attempts: 1 } });
    expect(hub.server.requests).toHaveLength(1);
  });
});
