// Images and texts per second of the two towers at several batch sizes, and latency of single calls, against the peers: see
// ../README.md.
import { readConfig } from '../../dist/esm/model/config.js';
import { cachedCheckpoint, sizes } from '../support/checkpoint.mjs';
import { boundsOf, compareRows, distinctRows, requirePassed } from '../support/compare.mjs';
import { patchInput, pixelInput, textInput } from '../support/inputs.mjs';
import { currentLoad } from '../support/machine.mjs';
import { readOptions } from '../support/options.mjs';
import { tinyCheckpoint } from '../support/paths.mjs';
import { peerOptions, startContestants } from '../support/peers.mjs';
import { format, report } from '../support/results.mjs';
import { quantile, summarize } from '../support/statistics.mjs';
import { interleave, ofSingleCalls, pairedRatios } from '../support/timing.mjs';

const options = readOptions({
  ...peerOptions,
  size: { type: 'string', default: 'base-patch16-256' },
  batches: { type: 'string' },
  towers: { type: 'string', default: 'vision,text' },
  dtype: { type: 'string', default: 'float32' },
});
const { dtype, size } = options;
const bounds = boundsOf(dtype);
if (!(size in sizes)) throw new RangeError(`--size: expected one of ${Object.keys(sizes).join(', ')}, got ${size}`);
const batches = (options.batches ?? (options.smoke ? '1,2' : '1,8,32')).split(',').map(Number);
const checkpoint = options.checkpoint ?? (options.smoke ? tinyCheckpoint : await cachedCheckpoint(size));
const config = await readConfig(checkpoint);
const leastRatio = 0.8;
/** Seconds that the rounds of one batch may take unless it was asked for by --batches. */
const mostSeconds = 2 * options.plan.seconds;

function makeInput(tower, batch) {
  const { vision, text } = config;
  if (tower === 'text') return textInput(batch, text.maxPositionEmbeddings, text.vocabSize, batch);
  if (config.architecture === 'fixed') return pixelInput(batch, vision.imageSize, batch);
  const side = options.smoke ? 4 : Math.round(Math.sqrt(vision.numPatches));
  return patchInput(new Array(batch).fill([side, side]), side * side, vision.patchSize, batch);
}

const checks = [];
const tables = [];
const limits = [];
const notes = [];
const raw = {};
const settings = { checkpoint: checkpoint.split('/').at(-1), dtype, threads: options.threads };

async function measureTower(tower) {
  const { ours, peers, descriptions, missing, close } = await startContestants(
    { checkpoint, tower, dtype, threads: options.threads },
    options,
  );
  notes.push(...missing);
  Object.assign(settings, descriptions);
  const width = tower === 'vision' ? config.vision.hiddenSize : config.text.projectionSize;
  const rows = [];
  const latencyRows = [];
  let secondsOfOne = 0;
  try {
    for (const batch of batches) {
      const seconds = batch * secondsOfOne * (options.plan.rounds.hurried + 2);
      if (options.batches === undefined && seconds > mostSeconds) {
        notes.push(
          `${tower}, batch ${batch} was not measured: it would take ${format(seconds / 60)} minutes (ask with --batches).`,
        );
        continue;
      }
      const input = makeInput(tower, batch);
      const contestants = [ours, ...peers];
      for (const contestant of contestants) await contestant.input(input);
      const output = await ours.run();
      const gate = [];
      if (batch > 1) gate.push(distinctRows(`${tower}, batch ${batch}: rows`, output, width));
      for (const peer of peers)
        gate.push(
          compareRows(
            `${tower}, batch ${batch}: siglip2 against ${peer.name}`,
            output,
            await peer.run(),
            width,
            bounds,
          ),
        );
      checks.push(...gate);
      requirePassed(gate);

      process.stderr.write(`${tower}, batch ${batch} (load ${currentLoad().toFixed(1)})\n`);
      const plan = batch === 1 ? ofSingleCalls(options.plan) : options.plan;
      const { samples, cpu, calls, rounds } = await interleave(contestants, plan);
      raw[`${tower}, batch ${batch}`] = {
        milliseconds: Object.fromEntries(samples),
        cpuMilliseconds: Object.fromEntries(cpu),
        ...(batch === 1 ? { calls: Object.fromEntries(calls) } : {}),
      };
      if (batch === 1) latencyRows.push(...[...calls].map(latencyRow));
      const round = contestants.reduce((sum, { name }) => sum + summarize(samples.get(name)).median, 0);
      secondsOfOne = round / 1000 / batch;
      for (const { name } of contestants) {
        const { median, low, high } = summarize(samples.get(name));
        const perSecond = (milliseconds) => format((batch / milliseconds) * 1000);
        const row = [name, `${batch}`, `${rounds}`, `${perSecond(median)} (${perSecond(high)} to ${perSecond(low)})`];
        if (name === 'siglip2') {
          rows.push([...row, '', '']);
          continue;
        }
        const ratio = summarize(pairedRatios(samples.get(name), samples.get('siglip2')));
        row.push(`**${format(ratio.median)}** (${format(ratio.low)} to ${format(ratio.high)})`);
        rows.push([...row, summarize(pairedRatios(cpu.get(name), cpu.get('siglip2'))).median]);
        if (name === 'onnxruntime')
          limits.push({
            name: `${tower}, batch ${batch}: throughput against onnxruntime-node`,
            value: ratio.median,
            unit: '×',
            limit: `≥ ${leastRatio} ×`,
            met: ratio.median >= leastRatio,
          });
      }
    }
  } finally {
    await close();
  }
  const unit = tower === 'vision' ? 'images/s' : 'texts/s';
  tables.push({
    title: tower === 'vision' ? 'Images' : 'Texts',
    columns: ['', 'batch', 'rounds', unit, 'siglip2 is so many times as fast', 'in CPU time'],
    rows,
  });
  if (latencyRows.length > 0)
    tables.push({
      title: `Latency of a single ${tower === 'vision' ? 'image' : 'text'}, ms`,
      columns: ['', 'calls', 'p50', 'p90', 'p99'],
      rows: latencyRows,
    });
}

/** Percentiles of single calls; of as many as a percentile needs to lie within them. */
function latencyRow([name, milliseconds]) {
  const percentile = (share) => (milliseconds.length * (1 - share) >= 1 ? quantile(milliseconds, share) : '');
  return [name, `${milliseconds.length}`, ...[0.5, 0.9, 0.99].map(percentile)];
}

for (const tower of options.towers.split(',')) await measureTower(tower);
notes.push(
  'Medians; in brackets the range of the middle 60 % of the rounds. Ratios are taken within each round, so a load that all contestants meet cancels.',
  'In CPU time: work of all threads for the same batch, peer ÷ siglip2; other processes on the machine change it little.',
);
await report(
  {
    name: `throughput-${settings.checkpoint}${dtype === 'float32' ? '' : `-${dtype}`}`,
    title: `Throughput of ${settings.checkpoint} in ${dtype}`,
    settings,
    checks,
    limits,
    tables,
    notes,
    raw,
  },
  options.results,
);
