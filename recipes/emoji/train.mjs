/**
 * Trains the emoji model from nothing: `npm run train:emoji -- [OPTIONS]`.
 *
 *   --seed N        default 1
 *   --name NAME     of the run's folder, default seed-N
 *   --last STAGE    ends after this stage (1 to 7)
 *
 * Makes the data and the tokenizer where they are missing, then runs `siglip2 train` with one configuration of stages/ after
 * the other, each from the weights of the one before. A training that was interrupted goes on where it stopped, bit for
 * bit. The trained model, the mean of the ends of the last three, is in <cache>/runs/NAME/mean.
 */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { averageCheckpoints } from './average.mjs';
import { cacheFolder, writeWhole } from './data/cache.mjs';
import { shardSets } from './data/shards.mjs';
import { makeModelFolder } from './model.mjs';
import { averagedStages, stageConfiguration, stages } from './stages.mjs';

const { values: options } = parseArgs({
  options: {
    seed: { type: 'string', default: '1' },
    name: { type: 'string' },
    last: { type: 'string' },
  },
});
const cache = cacheFolder();
if (!Object.keys(shardSets).every((set) => existsSync(path.join(cache, 'shards', set)))) run(script('data/make.mjs'));
const start = path.join(cache, 'model');
await makeModelFolder(cache, start);

const runs = path.join(cache, 'runs', options.name ?? `seed-${options.seed}`);
let before;
for (const stage of stages) {
  const folder = path.join(runs, stage);
  if (!existsSync(path.join(folder, 'finished'))) {
    const model = before === undefined ? { config: start } : { checkpoint: before };
    const place = { cache, seed: Number(options.seed), model };
    writeWhole(`${folder}.yaml`, stageConfiguration(stage, place));
    const resume = existsSync(path.join(folder, 'checkpoint')) ? ['--resume'] : [];
    console.error(`\n${stage}: ${folder}`);
    run(script('../../dist/esm/cli/main.js'), 'train', `${folder}.yaml`, '--out', folder, ...resume);
    writeWhole(path.join(folder, 'finished'), '');
  }
  before = path.join(folder, 'checkpoint');
  if (options.last !== undefined && stage.startsWith(`${options.last}-`)) break;
}
if (options.last === undefined) {
  before = path.join(runs, 'mean');
  await averageCheckpoints(
    averagedStages.map((stage) => path.join(runs, stage, 'checkpoint')),
    before,
  );
}
console.error(`\nThe model is in ${before}.`);

/** A file of the recipe or of the package. */
function script(name) {
  return fileURLToPath(new URL(name, import.meta.url));
}

function run(...command) {
  const { status, signal } = spawnSync(process.execPath, command, { stdio: 'inherit' });
  if (status !== 0) process.exit(signal === null ? (status ?? 1) : 1);
}
