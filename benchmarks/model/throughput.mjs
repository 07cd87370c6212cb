// Images and texts per second of the two towers at several batch sizes, against the peers: see ../README.md.
import { readConfig } from '../../dist/esm/model/config.js';
import { cachedCheckpoint } from '../support/checkpoint.mjs';
import { compareRows, distinctRows, requirePassed } from '../support/compare.mjs';
import { patchInput, pixelInput, textInput } from '../support/inputs.mjs';
import { currentLoad } from '../support/machine.mjs';
import { readOptions } from '../support/options.mjs';
import { tinyCheckpoint } from '../support/paths.mjs';
import { peerOptions, startContestants } from '../support/peers.mjs';
import { format, report } from '../support/results.mjs';
import { summarize } from '../support/statistics.mjs';
import { interleave, pairedRatios } from '../support/timing.mjs';

const options = readOptions({
  ...peerOptions,
  batches: { type: 'string' },
  towers: { type: 'string', default: 'vision,text' },
  dtype: { type: 'string', default: 'float32' },
});
const { dtype } = options;
const bounds = {
  float32: undefined,
  // Each contestant rounds where it likes; onnxruntime stays in float32, which has no bfloat16 kernels.
  bfloat16: { difference: 0.15, cosine: 5e-4 },
  // The peers' type is then bfloat16.
  int8: { difference: 0.5, cosine: 5e-3 },
}[dtype];
if (!['float32', 'bfloat16', 'int8'].includes(dtype))
  throw new RangeError(`--dtype: expected float32, bfloat16 or int8, got ${dtype}`);
const batches = (options.batches ?? (options.smoke ? '1,2' : '1,8,32')).split(',').map(Number);
const checkpoint = options.checkpoint ?? (options.smoke ? tinyCheckpoint : await cachedCheckpoint('base-patch16-256'));
const config = await readConfig(checkpoint);
const leastRatio = 0.8;

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
  try {
    for (const batch of batches) {
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
      const { samples, cpu, rounds } = await interleave(contestants, options.plan);
      raw[`${tower}, batch ${batch}`] = {
        milliseconds: Object.fromEntries(samples),
        cpuMilliseconds: Object.fromEntries(cpu),
      };
      const { median, low, high } = summarize(samples.get('siglip2'));
      const perSecond = (milliseconds) => format((batch / milliseconds) * 1000);
      const row = [`${batch}`, `${rounds}`, `${perSecond(median)} (${perSecond(high)} to ${perSecond(low)})`];
      for (const peer of peers) {
        const ratio = summarize(pairedRatios(samples.get(peer.name), samples.get('siglip2')));
        row.push(perSecond(summarize(samples.get(peer.name)).median));
        row.push(`**${format(ratio.median)}** (${format(ratio.low)} to ${format(ratio.high)})`);
        row.push(summarize(pairedRatios(cpu.get(peer.name), cpu.get('siglip2'))).median);
        if (peer.name === 'onnxruntime')
          limits.push({
            name: `${tower}, batch ${batch}: throughput against onnxruntime-node`,
            value: ratio.median,
            unit: '×',
            limit: `≥ ${leastRatio} ×`,
            met: ratio.median >= leastRatio,
          });
      }
      rows.push(row);
    }
  } finally {
    await close();
  }
  const unit = tower === 'vision' ? 'images/s' : 'texts/s';
  const columns = ['batch', 'rounds', `siglip2, ${unit}`];
  for (const peer of peers) columns.push(`${peer.name}, ${unit}`, `siglip2 ÷ ${peer.name}`, 'in CPU time');
  tables.push({ title: tower === 'vision' ? 'Images' : 'Texts', columns, rows });
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
