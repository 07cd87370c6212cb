// Time to load a checkpoint whose file is cached, and peak memory of the vision tower alone: see ../README.md.
import { execFileSync } from 'node:child_process';
import { createReadStream, readdirSync, statSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { cachedCheckpoint } from '../support/checkpoint.mjs';
import { currentLoad } from '../support/machine.mjs';
import { readOptions } from '../support/options.mjs';
import { tinyCheckpoint } from '../support/paths.mjs';
import { format, report } from '../support/results.mjs';
import { summarize } from '../support/statistics.mjs';

const options = readOptions({
  checkpoint: { type: 'string' },
  repeats: { type: 'string' },
  images: { type: 'string', default: '8' },
});
const repeats = Number(options.repeats ?? (options.smoke ? 1 : 9));
const images = Number(options.images);
const checkpoint = options.checkpoint ?? (options.smoke ? tinyCheckpoint : await cachedCheckpoint('base-patch16-256'));
const once = fileURLToPath(new URL('load-once.mjs', import.meta.url));
const megabytes = (bytes) => bytes / 1e6;

/** Reads the weights through, so that they are in the page cache however long ago they were written. */
async function readWeights() {
  let bytes = 0;
  for (const name of readdirSync(checkpoint).filter((file) => file.endsWith('.safetensors'))) {
    const file = path.join(checkpoint, name);
    bytes += statSync(file).size;
    for await (const _ of createReadStream(file, { highWaterMark: 1 << 22 }));
  }
  return bytes;
}

function fresh(towers) {
  const argument = JSON.stringify([checkpoint, towers, options.threads, towers.includes('text') ? 0 : images]);
  return JSON.parse(execFileSync(process.execPath, [once, argument], { encoding: 'utf8' }));
}

const bytes = await readWeights();
const cases = new Map([
  ['both towers', ['vision', 'text']],
  ['vision only', ['vision']],
]);
const runs = new Map([...cases.keys()].map((name) => [name, []]));
for (let repeat = 0; repeat < repeats; repeat++) {
  process.stderr.write(`repeat ${repeat + 1} of ${repeats} (load ${currentLoad().toFixed(1)})\n`);
  for (const [name, towers] of cases) runs.get(name).push(fresh(towers));
}

const rows = [...runs].map(([name, all]) => {
  const of = (pick) => summarize(all.map(pick));
  const loading = of((run) => run.loading);
  return [
    name,
    `${format(loading.median)} (${format(loading.low)} to ${format(loading.high)})`,
    of((run) => run.loadingCpu).median,
    of((run) => run.importing).median,
    all[0].firstBatch === undefined ? '' : of((run) => run.firstBatch).median,
    of((run) => megabytes(run.afterLoading.peak)).median,
    all[0].afterBatch === undefined ? '' : of((run) => megabytes(run.afterBatch.peak)).median,
    of((run) => megabytes((run.afterBatch ?? run.afterLoading).anonymous)).median,
  ];
});
const vision = runs.get('vision only');
const seconds = summarize(runs.get('both towers').map((run) => run.loading)).median / 1000;
// Memory has no noise to take a median of: the worst run counts.
const peak = megabytes(Math.max(...vision.map((run) => run.afterBatch.peak)));
const name = path.basename(checkpoint);
await report(
  {
    name: `load-${name}`,
    title: `Loading ${name}`,
    settings: { weights: `${format(bytes / 1e9)} GB, in the page cache`, threads: options.threads, repeats },
    checks: [
      {
        name: 'embeddings after loading',
        passed: vision.every((run) => run.finite && run.rootMeanSquare > 1e-3),
        detail: `finite, root mean square ${format(vision[0].rootMeanSquare)}`,
      },
    ],
    limits: [
      { name: 'load both towers', value: seconds, unit: 's', limit: '< 1 s', met: seconds < 1 },
      {
        name: `vision only: peak memory of loading and a batch of ${images}`,
        value: peak,
        unit: 'MB',
        limit: '< 600 MB',
        met: peak < 600,
      },
    ],
    tables: [
      {
        title: 'Fresh processes',
        columns: [
          '',
          'load, ms',
          'CPU time of the load, ms',
          'import, ms',
          `first batch of ${images}, ms`,
          'peak after load, MB',
          'peak after batch, MB',
          'held at the end, MB',
        ],
        rows,
      },
    ],
    notes: [
      'Medians of fresh processes; in brackets the range of the middle 60 %. Load is the time of `Siglip2.load`, import that of loading the package and its addon.',
      "Peak is the resident set's high-water mark (VmHWM), Node itself and mapped pages of the file included; held is memory that is not backed by a file. MB are 10⁶ bytes.",
    ],
    raw: Object.fromEntries(runs),
  },
  options.results,
);
