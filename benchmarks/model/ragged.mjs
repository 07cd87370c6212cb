// NaFlex batches of different lengths: time against real tokens and against padded length. See ../README.md.
import path from 'node:path';
import { readConfig } from '../../dist/esm/model/config.js';
import { cachedCheckpoint } from '../support/checkpoint.mjs';
import { compareRows, distinctRows, identical, requirePassed } from '../support/compare.mjs';
import { patchInput } from '../support/inputs.mjs';
import { currentLoad } from '../support/machine.mjs';
import { readOptions } from '../support/options.mjs';
import { tinyCheckpoint } from '../support/paths.mjs';
import { peerOptions, startContestants } from '../support/peers.mjs';
import { format, report } from '../support/results.mjs';
import { median, summarize } from '../support/statistics.mjs';
import { interleave, pairedRatios } from '../support/timing.mjs';

const options = readOptions({ ...peerOptions, peers: { type: 'string', default: 'torch' } });
const checkpoint =
  options.checkpoint ?? (options.smoke ? tinyCheckpoint : await cachedCheckpoint('base-patch16-naflex', ['vision']));
const { vision } = await readConfig(checkpoint);
const width = vision.hiddenSize;
const name = path.basename(checkpoint);

/** Eight pictures of very different size and shape; 1024 patches in all. */
const mixed = [
  [16, 16],
  [4, 8],
  [12, 18],
  [8, 4],
  [16, 14],
  [4, 4],
  [12, 14],
  [4, 20],
];
/** Eight equal pictures. */
const even = (rows, columns) => new Array(8).fill([rows, columns]);
const tokensOf = (grids) => grids.reduce((sum, [rows, columns]) => sum + rows * columns, 0);

const batches = [
  { group: 'padding', name: 'mixed, padded to 256', grids: mixed, padded: 256 },
  { group: 'padding', name: 'mixed, padded to 512', grids: mixed, padded: 512 },
  { group: 'padding', name: 'mixed, padded to 1024', grids: mixed, padded: 1024 },
  { group: 'tokens', name: '8 × 32 tokens, padded to 256', grids: even(4, 8), padded: 256 },
  { group: 'tokens', name: '8 × 64 tokens, padded to 256', grids: even(8, 8), padded: 256 },
  { group: 'tokens', name: '8 × 128 tokens, padded to 256', grids: even(8, 16), padded: 256 },
  { group: 'tokens', name: '8 × 256 tokens', grids: even(16, 16), padded: 256 },
];

const { ours, peers, descriptions, missing, close } = await startContestants(
  { checkpoint, tower: 'vision', dtype: 'float32', threads: options.threads },
  options,
);
const checks = [];
let timed;
try {
  const outputs = new Map();
  for (const batch of batches) {
    batch.input = patchInput(batch.grids, batch.padded, vision.patchSize, 1);
    await ours.input(batch.input);
    outputs.set(batch.name, await ours.run());
  }
  const first = outputs.get(batches[0].name);
  for (const { name: other } of batches.filter(({ group }) => group === 'padding').slice(1))
    checks.push(identical(`${other}: embeddings as with padding to 256`, outputs.get(other), first));
  checks.push(distinctRows('mixed: embeddings of the pictures', first, width));
  for (const peer of peers) {
    await peer.input(batches[0].input);
    checks.push(compareRows(`${batches[0].name}: siglip2 against ${peer.name}`, first, await peer.run(), width));
  }
  requirePassed(checks);

  // Every batch takes its turn in every round, as contestants do. Peers show what padding costs when it is computed.
  const contestants = batches.flatMap(({ group, name: batchName, input }) =>
    [ours, ...(group === 'padding' ? peers : [])].map((contestant) => ({
      name: `${contestant.name}: ${batchName}`,
      async time(repeats) {
        await contestant.input(input);
        return contestant.time(repeats);
      },
    })),
  );
  process.stderr.write(`${contestants.length} cases (load ${currentLoad().toFixed(1)})\n`);
  timed = await interleave(contestants, { ...options.plan, seconds: 3 * options.plan.seconds });
} finally {
  await close();
}

const { samples, cpu, rounds } = timed;
const timesOf = (contestant, batch) => samples.get(`${contestant.name}: ${batch.name}`);
const cpuOf = (contestant, batch) => cpu.get(`${contestant.name}: ${batch.name}`);
const ratio = (batch, base) => summarize(pairedRatios(timesOf(ours, batch), timesOf(ours, base)));
const padding = batches.filter(({ group }) => group === 'padding');
const tokens = batches.filter(({ group }) => group === 'tokens');
const sameTokens = tokens.find(({ grids }) => tokensOf(grids) === tokensOf(mixed));
const computedPadding = tokens.at(-1);

const paddingRows = padding.map((batch) => {
  const row = [`${batch.padded}`, `${tokensOf(batch.grids)}`, `${8 * batch.padded}`];
  for (const contestant of [ours, ...peers]) {
    row.push(median(timesOf(contestant, batch)), median(cpuOf(contestant, batch)));
    row.push(median(pairedRatios(timesOf(contestant, batch), timesOf(contestant, padding[0]))));
  }
  return row;
});
const tokenRows = [...tokens.slice(0, 3), padding[0], ...tokens.slice(3)].map((batch) => {
  const total = tokensOf(batch.grids);
  const time = median(timesOf(ours, batch));
  return [batch.name, `${total}`, time, median(cpuOf(ours, batch)), (time / total) * 1000];
});
const mostPadding = ratio(padding.at(-1), padding[0]).median;
const raggedness = ratio(padding[0], sameTokens).median;
const saved = ratio(padding[0], computedPadding).median;

await report(
  {
    name: `ragged-${name}`,
    title: `Ragged NaFlex batches, ${name}`,
    settings: { checkpoint: name, dtype: 'float32', threads: options.threads, rounds, ...descriptions },
    checks,
    limits: [
      {
        name: 'the same pictures padded to 1024 instead of 256',
        value: mostPadding,
        unit: '× the time',
        limit: '≤ 1.05 ×',
        met: mostPadding <= 1.05,
      },
      {
        name: 'mixed lengths against equal lengths of as many tokens in all',
        value: raggedness,
        unit: '× the time',
        limit: '≤ 1.10 ×',
        met: raggedness <= 1.1,
      },
    ],
    tables: [
      {
        title: 'Time against padded length, the same eight pictures',
        columns: [
          'padded length',
          'real tokens',
          'rows with padding',
          ...[ours, ...peers].flatMap((c) => [`${c.name}, ms`, 'CPU time, ms', '÷ padded to 256']),
        ],
        rows: paddingRows,
      },
      {
        title: 'Time against real tokens, siglip2',
        columns: ['batch of 8', 'Σ tokens', 'ms', 'CPU time, ms', 'ms for 1000 tokens'],
        rows: tokenRows,
      },
    ],
    notes: [
      `The mixed batch takes ${format(saved)} × the time of computing all 8 × 256 rows; its share of them is ${format(tokensOf(mixed) / 2048)}.`,
      'Time for 1000 tokens grows slowly with the length, because attention is quadratic in it.',
      'Times include copying the padded input in and the padded output out, which `vision.forward` does for its caller; `embedImages` packs from the start.',
      ...missing,
    ],
    raw: { milliseconds: Object.fromEntries(samples), cpuMilliseconds: Object.fromEntries(cpu) },
  },
  options.results,
);
