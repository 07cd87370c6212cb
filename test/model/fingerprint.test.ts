/** Fingerprints tell weights apart, and nothing else. */
import { cpSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { expect, it } from 'vitest';
import { Siglip2 } from '../../lib/index.js';
import { openCheckpointFiles } from '../../lib/model/checkpoint-files.js';
import { fingerprint } from '../../lib/model/fingerprint.js';
import { expectSiglipError } from '../support/errors.js';
import { temporaryFolder } from '../support/folders.js';
import { checkpointFolder } from '../support/golden.js';
import { Random, runSeed } from '../support/random.js';

const checkpoint = checkpointFolder('naflex_hd64');

it('is the same for the same weights, in one file or in many, and another for another stored type', async () => {
  const folder = temporaryFolder();
  using model = await Siglip2.load(checkpoint);
  const shards = path.join(folder, 'shards');
  await model.save(shards, { maxShardBytes: 100_000 });
  const { files } = await openCheckpointFiles(shards);
  expect(files.length).toBeGreaterThan(1);
  const own = await fingerprint(checkpoint);
  expect(own).toMatch(/^[\da-f]{64}$/);
  expect(await fingerprint(shards)).toBe(own);
  await model.save(path.join(folder, 'float32'), { dtype: 'float32' });
  expect(await fingerprint(path.join(folder, 'float32'))).not.toBe(own);
});

it('changes with a byte at either end of any tensor', async () => {
  const folder = temporaryFolder();
  cpSync(checkpoint, folder, { recursive: true });
  const file = path.join(folder, 'model.safetensors');
  const content = readFileSync(file);
  const { tensors } = await openCheckpointFiles(folder);
  const seen = new Set([await fingerprint(folder)]);
  const random = new Random(runSeed);
  for (const [name, { begin, end }] of tensors) {
    const distance = random.integer(0, Math.min(end - begin, 2048) - 1);
    const at = random.next() < 0.5 ? begin + distance : end - 1 - distance;
    const changed = Buffer.from(content);
    changed[at] = (changed[at] as number) ^ (1 << random.integer(0, 7));
    writeFileSync(file, changed);
    const print = await fingerprint(folder);
    expect(seen.has(print), `${name}, byte ${at - begin} of ${end - begin}`).toBe(false);
    seen.add(print);
  }
  writeFileSync(file, content);
  expect(await fingerprint(folder)).toBe([...seen][0]);
});

it('needs weights', async () => {
  await expectSiglipError(() => fingerprint(temporaryFolder()), 'ERR_SIGLIP_CHECKPOINT', 'has no weights');
});
