/**
 * Trains the emoji model from nothing: `npm run train:emoji -- [OPTIONS]`.
 *
 *   --seed N        default 1
 *   --set SET       final (default): all training styles; development: without Twemoji
 *   --steps N       ends this run after step N; the same command goes on later
 *   --name NAME     of the run's folder, default SET-seed-N
 *
 * Makes the data and the tokenizer where they are missing, then runs `siglip2 train` with config.yaml. A run that was
 * interrupted goes on where it stopped, bit for bit. The trained model is in <cache>/runs/NAME/checkpoint.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { parseDocument } from 'yaml';
import { cacheFolder, writeWhole } from './data/cache.mjs';
import { makeModelFolder } from './model.mjs';

const { values: options } = parseArgs({
  options: {
    seed: { type: 'string', default: '1' },
    set: { type: 'string', default: 'final' },
    steps: { type: 'string' },
    name: { type: 'string' },
  },
});
const cache = cacheFolder();
const shards = path.join(cache, 'shards', options.set);
if (!existsSync(shards)) run(script('data/make.mjs'));
const model = path.join(cache, 'model');
await makeModelFolder(cache, model);

const config = parseDocument(readFileSync(script('config.yaml'), 'utf8'));
config.setIn(['model', 'config'], model);
config.setIn(['data', 'shards'], path.join(shards, '*.tar'));
config.setIn(['training', 'seed'], Number(options.seed));
const folder = path.join(cache, 'runs', options.name ?? `${options.set}-seed-${options.seed}`);
const file = `${folder}.yaml`;
mkdirSync(path.dirname(file), { recursive: true });
writeWhole(file, String(config));

const command = script('../../dist/esm/cli/main.js');
const resume = existsSync(path.join(folder, 'checkpoint')) ? ['--resume'] : [];
const steps = options.steps === undefined ? [] : ['--steps', options.steps];
run(command, 'train', file, '--out', folder, ...resume, ...steps);

/** A file of the recipe or of the package. */
function script(name) {
  return fileURLToPath(new URL(name, import.meta.url));
}

function run(...command) {
  const { status, signal } = spawnSync(process.execPath, command, { stdio: 'inherit' });
  if (status !== 0) process.exit(signal === null ? (status ?? 1) : 1);
}
