/** What the hub tests share: a server with a checkpoint, an empty cache, and the environment pointing at them. */
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, vi } from 'vitest';
import type { CheckpointOptions } from '../../lib/hub/index.js';
import { etagOf, HubServer, type Repository } from './hub-server.js';

export const commit = 'a1'.repeat(20);
export const newerCommit = 'b2'.repeat(20);
export const repositoryName = 'google/siglip2-test';
/** Bytes without a pattern, so that misplaced ones are noticed; the first of a sequence that depends on `seed`. */
export function noise(length: number, seed = 1): Buffer {
  const bytes = Buffer.alloc(length);
  let state = seed;
  for (let i = 0; i < length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[i] = state >>> 24;
  }
  return bytes;
}

export const weights = noise(300_000);

/** The files of a complete checkpoint. */
export function checkpointFiles(): Record<string, Buffer> {
  return {
    'config.json': Buffer.from('{"model_type":"siglip2"}'),
    'preprocessor_config.json': Buffer.from('{"size":224}'),
    'tokenizer.json': noise(50_000, 2),
    'tokenizer_config.json': Buffer.from('{}'),
    'model.safetensors': weights,
  };
}

export function shardIndex(...shards: string[]): Buffer {
  return Buffer.from(
    JSON.stringify({ weight_map: Object.fromEntries(shards.map((name, i) => [`tensor.${i}`, name])) }),
  );
}

/** A checkpoint whose weights are in two files. */
export function shardedFiles(): Record<string, Buffer> {
  const { 'model.safetensors': _, ...files } = checkpointFiles();
  const shards = ['model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors'] as const;
  return {
    ...files,
    'model.safetensors.index.json': shardIndex(...shards),
    [shards[0]]: noise(2_000, 3),
    [shards[1]]: noise(1_000, 4),
  };
}

/** Short waits: the tests are about what happens, not about how long it takes. */
export const quick: CheckpointOptions = {
  retry: { attempts: 3, delay: 5, maximumDelay: 10, maximumRetryAfter: 2_000, stallTimeout: 1500 },
};

export interface HubFixture {
  server: HubServer;
  repository: Repository;
  cacheDir: string;
  /** The cache folder of the test repository. */
  storage: string;
}

const variables = [
  'HF_HOME HF_HUB_CACHE HUGGINGFACE_HUB_CACHE XDG_CACHE_HOME HF_TOKEN HUGGING_FACE_HUB_TOKEN HF_TOKEN_PATH',
  'HF_HUB_OFFLINE TRANSFORMERS_OFFLINE HF_ENDPOINT HF_HUB_DISABLE_SYMLINKS HF_HUB_DISABLE_IMPLICIT_TOKEN',
]
  .join(' ')
  .split(' ');

/** Gives every test of a file its own server, cache and clean environment. */
export function useHub(): HubFixture {
  const fixture = {} as HubFixture;
  beforeEach(async () => {
    fixture.repository = { revisions: { main: commit }, commits: { [commit]: checkpointFiles() } };
    fixture.server = await HubServer.start({ [repositoryName]: fixture.repository });
    const home = mkdtempSync(path.join(tmpdir(), 'siglip2-hub-'));
    fixture.cacheDir = path.join(home, 'hub');
    fixture.storage = path.join(fixture.cacheDir, 'models--google--siglip2-test');
    for (const name of variables) vi.stubEnv(name, undefined);
    vi.stubEnv('HF_HOME', home);
    vi.stubEnv('HF_ENDPOINT', fixture.server.endpoint);
  });
  afterEach(async () => {
    vi.unstubAllEnvs();
    await fixture.server.stop();
    rmSync(path.dirname(fixture.cacheDir), { recursive: true, force: true });
  });
  return fixture;
}

/** Lays out files as Python's huggingface_hub leaves them. */
export function layOutLikePython(
  storage: string,
  files: Record<string, Buffer>,
  { revision = 'main', hash = commit, absent = [] as string[] } = {},
): void {
  for (const folder of ['blobs', 'refs', `snapshots/${hash}`, `.no_exist/${hash}`])
    mkdirSync(path.join(storage, folder), { recursive: true });
  writeFileSync(path.join(storage, 'refs', revision), hash);
  for (const [file, content] of Object.entries(files)) {
    const etag = etagOf(file, content);
    writeFileSync(path.join(storage, 'blobs', etag), content);
    symlinkSync(`../../blobs/${etag}`, path.join(storage, 'snapshots', hash, file));
  }
  for (const file of absent) writeFileSync(path.join(storage, '.no_exist', hash, file), '');
}
