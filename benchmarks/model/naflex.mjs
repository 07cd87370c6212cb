// NaFlex batches of a realistic mix of shapes: packed, against the same engine on padded input and against peers, which
// compute padding: see ../README.md.
import { readConfig } from '../../dist/esm/model/config.js';
import { cachedCheckpoint } from '../support/checkpoint.mjs';
import { boundsOf, compareRows, distinctRows, requirePassed } from '../support/compare.mjs';
import { patchInput } from '../support/inputs.mjs';
import { currentLoad } from '../support/machine.mjs';
import { readOptions } from '../support/options.mjs';
import { tinyCheckpoint } from '../support/paths.mjs';
import { peerOptions, startContestants } from '../support/peers.mjs';
import { drawGrids, mixes } from '../support/pictures.mjs';
import { format, report } from '../support/results.mjs';
import { summarize } from '../support/statistics.mjs';
import { interleave, pairedRatios } from '../support/timing.mjs';

const options = readOptions({
  ...peerOptions,
  peers: { type: 'string', default: 'torch' },
  size: { type: 'string', default: 'base-patch16-naflex' },
  batch: { type: 'string' },
  dtype: { type: 'string', default: 'float32' },
});
const { dtype } = options;
const bounds = boundsOf(dtype);
const batch = Number(options.batch ?? (options.smoke ? 3 : 8));
const checkpoint =
  options.checkpoint ?? (options.smoke ? tinyCheckpoint : await cachedCheckpoint(options.size, ['vision']));
const { vision } = await readConfig(checkpoint);
const name = checkpoint.split('/').at(-1);
const seed = 1;

const { ours, peers, descriptions, missing, close } = await startContestants(
  { checkpoint, tower: 'vision', dtype, threads: options.threads },
  options,
);
/** The same pictures, packed by us and padded by the peers; and as many full rows of patches, which we compute. */
async function measureMix(label, { most, ...mix }) {
  const padded = options.smoke ? most / 16 : most;
  const smaller = { ...mix, budget: (uniform) => Math.ceil(mix.budget(uniform) * (padded / most)) };
  const grids = drawGrids(smaller, batch, vision.patchSize, seed);
  const side = Math.sqrt(padded);
  const input = patchInput(grids, padded, vision.patchSize, seed);
  const full = patchInput(new Array(batch).fill([side, side]), padded, vision.patchSize, seed);
  await ours.input(input);
  const output = await ours.run();
  const gate = [distinctRows(`${label}: embeddings of the pictures`, output, vision.hiddenSize)];
  for (const peer of peers) {
    await peer.input(input);
    const expected = await peer.run();
    gate.push(compareRows(`${label}: siglip2 against ${peer.name}`, output, expected, vision.hiddenSize, bounds));
  }
  checks.push(...gate);
  requirePassed(gate);

  process.stderr.write(`${label} (load ${currentLoad().toFixed(1)})\n`);
  const withInput = (contestant, contestantName, given) => ({
    name: contestantName,
    async time(repeats) {
      await contestant.input(given);
      return contestant.time(repeats);
    },
  });
  const { samples, cpu, rounds } = await interleave(
    [
      withInput(ours, 'siglip2', input),
      withInput(ours, 'siglip2 padded', full),
      ...peers.map((peer) => withInput(peer, peer.name, input)),
    ],
    options.plan,
  );
  raw[label] = { milliseconds: Object.fromEntries(samples), cpuMilliseconds: Object.fromEntries(cpu) };
  const tokens = grids.reduce((sum, [rows, columns]) => sum + rows * columns, 0);
  const { median } = summarize(samples.get('siglip2'));
  const row = [label, `${rounds}`, `${tokens}`, `${batch * padded}`, (batch / median) * 1000];
  const ratios = new Map();
  for (const other of ['siglip2 padded', ...peers.map((peer) => peer.name)]) {
    const ratio = summarize(pairedRatios(samples.get(other), samples.get('siglip2')));
    ratios.set(other, ratio.median);
    row.push(`**${format(ratio.median)}** (${format(ratio.low)} to ${format(ratio.high)})`);
    row.push(summarize(pairedRatios(cpu.get(other), cpu.get('siglip2'))).median);
  }
  return { row, ratios };
}

const checks = [];
const raw = {};
const measured = [];
try {
  for (const [label, mix] of Object.entries(mixes)) measured.push(await measureMix(label, mix));
} finally {
  await close();
}
const limit = (other, least) => {
  const value = measured.at(-1).ratios.get(other);
  const wanted = `≥ ${least} ×`;
  return {
    name: `${Object.keys(mixes).at(-1)}: against ${other}`,
    value,
    unit: '×',
    limit: wanted,
    met: value >= least,
  };
};
await report(
  {
    name: `naflex-${name}${dtype === 'float32' ? '' : `-${dtype}`}`,
    title: `NaFlex batches of a mix of shapes, ${name} in ${dtype}`,
    settings: { checkpoint: name, dtype, batch, seed, threads: options.threads, ...descriptions },
    checks,
    limits: [limit('siglip2 padded', 1.5), ...peers.map((peer) => limit(peer.name, 8))],
    tables: [
      {
        title: `Batches of ${batch} pictures`,
        columns: [
          'mix',
          'rounds',
          'patches',
          'with padding',
          'siglip2, images/s',
          ...['siglip2 padded', ...peers.map((peer) => peer.name)].flatMap((other) => [
            `siglip2 ÷ ${other}`,
            'in CPU time',
          ]),
        ],
        rows: measured.map(({ row }) => row),
      },
    ],
    notes: [
      'Pictures have aspect ratios as cameras, telephones and web pages do, their longer side is from 64 to 2048 pixels, every octave as often: an assumption (`support/pictures.mjs`).',
      '“siglip2 padded” computes as many full rows of patches as the padded batch has; peers get the batch padded, with its mask.',
      'The processor of Hugging Face enlarges small pictures to the most patches; the second mix keeps their own size.',
      'Medians; in brackets the range of the middle 60 % of the rounds. Ratios are taken within each round.',
      ...missing,
    ],
    raw,
  },
  options.results,
);
