// Writes a full-size checkpoint with random weights: node benchmarks/make-checkpoint.mjs [FOLDER] [--size NAME] …
import path from 'node:path';
import { parseArgs } from 'node:util';
import { makeCheckpoint, sizes } from './support/checkpoint.mjs';
import { cache } from './support/paths.mjs';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    size: { type: 'string', default: 'base-patch16-256' },
    dtype: { type: 'string', default: 'float32' },
    seed: { type: 'string', default: '1' },
    towers: { type: 'string', default: 'vision,text' },
  },
});
const { size, dtype } = values;
if (!(size in sizes)) throw new RangeError(`--size: expected one of ${Object.keys(sizes).join(', ')}, got ${size}`);
if (dtype !== 'float32' && dtype !== 'bfloat16')
  throw new RangeError(`--dtype: expected float32 or bfloat16, got ${dtype}`);

const folder = positionals[0] ?? path.join(cache, size);
const options = { size, dtype, seed: Number(values.seed), towers: values.towers.split(',') };
const { parameters, bytes } = await makeCheckpoint(folder, options);
console.log(`${folder}: ${size}, ${(parameters / 1e6).toFixed(1)} M parameters, ${(bytes / 1e9).toFixed(2)} GB`);
