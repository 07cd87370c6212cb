/** `siglip2 download`, and models of the hub in other commands, against a hub on loopback. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { checkpoint, documentOf, images, siglip2 } from '../support/command-line.js';
import { temporaryFolder } from '../support/folders.js';
import { commit } from '../support/hub-checkpoints.js';
import { HubServer } from '../support/hub-server.js';

const id = 'google/siglip2-test';
const files = Object.fromEntries(
  readdirSync(checkpoint).map((name) => [name, readFileSync(path.join(checkpoint, name))]),
);
const coffee = path.join(images, '13_photo_coffee_240x240.png');
let server: HubServer;
beforeEach(async () => {
  server = await HubServer.start({ [id]: { revisions: { main: commit }, commits: { [commit]: files } } });
});
afterEach(() => server.stop());

const environment = () => ({ HF_HOME: temporaryFolder(), HF_ENDPOINT: server.endpoint });

it('downloads, shows the files and the folder, and keeps what is there', async () => {
  const env = environment();
  const first = await siglip2(['download', id], { env });
  expect(first.code).toBe(0);
  expect(first.stderr).toBe('');
  const folder = path.join(env.HF_HOME, 'hub', 'models--google--siglip2-test', 'snapshots', commit);
  expect(first.stdout).toContain(`${id}, revision ${commit}\n`);
  expect(first.stdout).toMatch(/\n {2}model\.safetensors +1\.0 MB {2}downloaded\n/);
  expect(first.stdout.endsWith(`\n${folder}\n`)).toBe(true);
  expect(readFileSync(path.join(folder, 'model.safetensors'))).toEqual(files['model.safetensors']);
  const second = await siglip2(['download', '--model', id, '--json'], { env });
  const document = documentOf<{ files: { file: string; size: number; cached: boolean }[] }>(second);
  expect(document).toMatchObject({ folder, revision: commit, repository: id });
  expect(document.files).toContainEqual({
    file: 'model.safetensors',
    path: path.join(folder, 'model.safetensors'),
    size: 1_030_780,
    cached: true,
  });
});

it('takes revision, cache and token from options', async () => {
  const repository = server.repositories[id];
  if (repository !== undefined) Object.assign(repository, { token: 'secret', revisions: { v2: commit } });
  const env = environment();
  const cache = temporaryFolder();
  const refused = await siglip2(['download', id, '--revision', 'v2'], { env });
  expect(refused.code).toBe(1);
  expect(refused.stderr).toMatch(/^error ERR_SIGLIP_HUB: .*\ntry: .*HF_TOKEN/);
  const options = ['--revision', 'v2', '--cache-dir', cache, '--token', 'secret'];
  expect((await siglip2(['download', id, ...options], { env })).code).toBe(0);
  expect(readdirSync(cache)).toContain('models--google--siglip2-test');
  expect(existsSync(path.join(env.HF_HOME, 'hub'))).toBe(false);
});

it('says that the hub could not be asked, and works from the cache', async () => {
  const env = environment();
  await siglip2(['download', id, '--quiet'], { env });
  await server.stop();
  const text = await siglip2(['download', id], { env });
  expect(text.code).toBe(0);
  expect(text.stderr).toMatch(/^note: the hub could not be asked, so the copy in the cache is used, .*ECONNREFUSED/);
  const operands = ['classify', coffee, '--labels', 'cat', '--model', id, '--json'];
  const classified = await siglip2(operands, { env });
  expect(classified.stderr).toMatch(/^note: the hub could not be asked/);
  expect(documentOf(classified)).toMatchObject({ model: id, revision: commit, hubError: { code: 'ERR_SIGLIP_HUB' } });
  const offline = await siglip2([...operands, '--offline'], { env });
  expect(offline.code).toBe(0);
  expect(documentOf(offline).hubError).toBeUndefined();
});

it('loads a model from the hub without the files it does not need', async () => {
  const env = environment();
  const result = await siglip2(['embed', coffee, '--out', 'o.npy', '--model', id], { env, cwd: temporaryFolder() });
  expect(result.code).toBe(0);
  expect(server.log).not.toContain('GET tokenizer_config.json');
  expect(server.log).toContain('storage GET model.safetensors');
});

it.each([
  [['google/missing'], 1, 'ERR_SIGLIP_HUB'],
  [['no-id'], 2, 'ERR_SIGLIP_USAGE'],
  [[], 2, 'ERR_SIGLIP_USAGE'],
  [[id, '--revision', '../x'], 2, 'ERR_SIGLIP_USAGE'],
  [[id, '--offline'], 1, 'ERR_SIGLIP_OFFLINE'],
])('download %j fails with %i, %s', async (operands, code, errorCode) => {
  const env = environment();
  const result = await siglip2(['download', ...operands, '--json'], { env });
  expect(documentOf(result)).toEqual({
    error: expect.objectContaining({ code: errorCode, remedy: expect.any(String) }),
  });
  expect(result.code).toBe(code);
  expect(result.stderr).toBe('');
});
