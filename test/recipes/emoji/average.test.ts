/** The mean of checkpoints. */
import { readdirSync, readFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import path from 'node:path';
import { expect, it } from 'vitest';
import { readSafetensorsHeader } from '../../../lib/model/safetensors.js';
import { type TensorSource, writeSafetensors } from '../../../lib/model/safetensors-writer.js';
import { averageCheckpoints } from '../../../recipes/emoji/average.mjs';
import { draw } from '../../support/devices.js';
import { temporaryFolder } from '../../support/folders.js';

type Weights = Record<string, { shape: number[]; values: Float32Array; bfloat16?: boolean }>;

/** A folder with weights and what else belongs to a checkpoint. */
async function checkpoint(label: string, weights: Weights): Promise<string> {
  const folder = temporaryFolder({
    'config.json': label,
    'preprocessor_config.json': label,
    'tokenizer.json': label,
    'tokenizer_config.json': label,
  });
  const tensors = Object.entries(weights).map(([name, { shape, values, bfloat16 }]): TensorSource => {
    const upperHalves = new Uint16Array(new Uint32Array(values.buffer).map((bits) => bits >>> 16));
    const bytes = new Uint8Array(bfloat16 ? upperHalves.buffer : values.buffer);
    return { name, dtype: bfloat16 ? 'BF16' : 'F32', shape, read: async () => bytes };
  });
  const handle = await open(path.join(folder, 'model.safetensors'), 'w');
  await writeSafetensors(handle, tensors, undefined);
  await handle.close();
  return folder;
}

async function read(folder: string, name: string): Promise<Float32Array> {
  const file = path.join(folder, 'model.safetensors');
  const { tensors } = await readSafetensorsHeader(file);
  const { begin, end, dtype } = tensors.get(name)!;
  expect(dtype).toBe('F32');
  return new Float32Array(new Uint8Array(readFileSync(file).subarray(begin, end)).buffer);
}

/** Numbers that bfloat16 holds. */
function shortNumbers(count: number, seed: number): Float32Array {
  const values = draw(seed).floats(count, 3);
  new Uint32Array(values.buffer).forEach((bits, i, all) => {
    all[i] = bits & 0xffff0000;
  });
  return values;
}

it('is that of each weight, in float32, of checkpoints in any type', async () => {
  const made = [0, 1, 2].map(
    (at): Weights => ({
      matrix: { shape: [3, 5], values: shortNumbers(15, at), bfloat16: at === 1 },
      scale: { shape: [], values: draw(10 + at).floats(1, 2) },
    }),
  );
  const folders = await Promise.all(made.map((weights, at) => checkpoint(`checkpoint ${at}`, weights)));
  const out = path.join(temporaryFolder({ 'mean/old.txt': 'old' }), 'mean');
  await averageCheckpoints(folders, out);
  for (const name of ['matrix', 'scale']) {
    const parts = made.map((weights) => weights[name]!.values);
    const expected = parts[0]!.map((_, i) => parts.reduce((sum, values) => sum + values[i]!, 0) / 3);
    const actual = await read(out, name);
    expect(actual.length).toBe(expected.length);
    for (const [i, value] of actual.entries()) expect(Math.abs(value - expected[i]!)).toBeLessThan(1e-6);
  }
  expect(readFileSync(path.join(out, 'tokenizer.json'), 'utf8')).toBe('checkpoint 0');
  expect(readdirSync(out)).not.toContain('old.txt');
});

it('is refused where tensors differ, and nothing is made', async () => {
  const one = await checkpoint('one', { a: { shape: [2], values: new Float32Array(2) } });
  const longer = await checkpoint('longer', { a: { shape: [3], values: new Float32Array(3) } });
  const more = await checkpoint('more', {
    a: { shape: [2], values: new Float32Array(2) },
    b: { shape: [1], values: new Float32Array(1) },
  });
  const place = temporaryFolder({});
  for (const other of [longer, more])
    await expect(averageCheckpoints([one, other], path.join(place, 'mean'))).rejects.toThrow(
      `${other} has other tensors than ${one}, for example a`,
    );
  expect(readdirSync(place)).toEqual([]);
});
