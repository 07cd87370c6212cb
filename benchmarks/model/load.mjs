// Time to load a checkpoint whose file is cached and from the start of node to the first embedding, and memory of the vision
// tower against its weights: see ../README.md.
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
  size: { type: 'string', default: 'base-patch16-256' },
  dtype: { type: 'string', default: 'float32' },
});
const { dtype } = options;
const repeats = Number(options.repeats ?? (options.smoke ? 1 : 9));
const images = Number(options.images);
const checkpoint = options.checkpoint ?? (options.smoke ? tinyCheckpoint : await cachedCheckpoint(options.size));
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

function fresh(what) {
  const argument = JSON.stringify({ checkpoint, threads: options.threads, dtype, images: 0, texts: 0, ...what });
  return JSON.parse(execFileSync(process.execPath, [once, argument], { encoding: 'utf8' }));
}

const bytes = await readWeights();
const cases = new Map([
  ['both towers', { towers: ['vision', 'text'] }],
  ['vision only', { towers: ['vision'], images }],
  ['one image', { towers: ['vision'], images: 1 }],
  ['one text', { towers: ['text'], texts: 1 }],
]);
const runs = new Map([...cases.keys()].map((name) => [name, []]));
for (let repeat = 0; repeat < repeats; repeat++) {
  process.stderr.write(`repeat ${repeat + 1} of ${repeats} (load ${currentLoad().toFixed(1)})\n`);
  for (const [name, what] of cases) runs.get(name).push(fresh(what));
}

const titleOf = (name) => (name === 'vision only' ? `vision only, ${images} images` : name);
const of = (all, pick) => summarize(all.map(pick));
const range = ({ median, low, high }) => `${format(median)} (${format(low)} to ${format(high)})`;
const rows = [...runs].map(([name, all]) => {
  const embeds = all[0].afterBatch !== undefined;
  return [
    titleOf(name),
    embeds ? range(of(all, (run) => run.startUp)) : '',
    of(all, (run) => run.importing).median,
    range(of(all, (run) => run.loading)),
    of(all, (run) => run.loadingCpu).median,
    embeds ? of(all, (run) => run.firstBatch).median : '',
  ];
});
const memoryRows = [...runs].map(([name, all]) => [
  titleOf(name),
  megabytes(all[0].packedBytes),
  of(all, (run) => megabytes(run.beforeLoading.peak)).median,
  of(all, (run) => megabytes(run.afterLoading.peak)).median,
  all[0].afterBatch === undefined ? '' : of(all, (run) => megabytes(run.afterBatch.peak)).median,
  of(all, (run) => megabytes((run.afterBatch ?? run.afterLoading).anonymous)).median,
  of(all, overWeights).median,
]);
/** How much loading and the batch add to the process at their peak, in weights. */
function overWeights(run) {
  return ((run.afterBatch ?? run.afterLoading).peak - run.beforeLoading.peak) / run.packedBytes;
}
const vision = runs.get('vision only');
const seconds = summarize(runs.get('both towers').map((run) => run.loading)).median / 1000;
// Memory has no noise to take a median of: the worst run counts.
const peak = megabytes(Math.max(...vision.map((run) => run.afterBatch.peak)));
const most = Math.max(...vision.map(overWeights));
const name = path.basename(checkpoint);
await report(
  {
    name: `load-${name}${dtype === 'float32' ? '' : `-${dtype}`}`,
    title: `Loading ${name} in ${dtype}`,
    settings: { weights: `${format(bytes / 1e9)} GB, in the page cache`, dtype, threads: options.threads, repeats },
    checks: [
      {
        name: 'embeddings after loading',
        passed: [...runs.values()].flat().every((run) => run.finite !== false && !(run.rootMeanSquare <= 1e-3)),
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
      {
        name: `vision only: what loading and a batch of ${images} add at their peak`,
        value: most,
        unit: '× the packed weights',
        limit: '≤ 1.25 ×',
        met: most <= 1.25,
      },
    ],
    tables: [
      {
        title: 'Fresh processes, ms',
        columns: ['', 'node to first embedding', 'import', 'load', 'CPU time of the load', 'first batch'],
        rows,
      },
      {
        title: 'Memory, MB',
        columns: [
          '',
          'packed weights',
          'peak of node alone',
          'peak after load',
          'peak after batch',
          'held at the end',
          'added at the peak, in weights',
        ],
        rows: memoryRows,
      },
    ],
    notes: [
      'Medians of fresh processes; in brackets the range of the middle 60 %. Load is the time of `Siglip2.load`, import that of loading the package and its addon; the first embedding counts from the start of the process, without making its input. Pictures are pixels in 8 bits, given to `embedImages`.',
      "Peak is the resident set's high-water mark (VmHWM), Node itself and mapped pages of the file included; held is memory that is not backed by a file. MB are 10⁶ bytes.",
    ],
    raw: Object.fromEntries(runs),
  },
  options.results,
);
