// The sigmoid loss with all gradients, time and memory, against PyTorch: see ../README.md.
import { compareRows, requirePassed } from '../support/compare.mjs';
import { currentLoad } from '../support/machine.mjs';
import { readOptions } from '../support/options.mjs';
import { openContest, ownProgram, peerOptions, torchProgram } from '../support/peers.mjs';
import { fillNormal, generator } from '../support/random.mjs';
import { format, report } from '../support/results.mjs';
import { summarize } from '../support/statistics.mjs';
import { interleave, pairedRatios } from '../support/timing.mjs';

const options = readOptions({ python: peerOptions.python, largest: { type: 'boolean', default: false } });
const cases = options.smoke
  ? [
      [8, 16],
      [24, 20],
    ]
  : [
      [1024, 768],
      [4096, 768],
      [4096, 1152],
    ];
/** The batch that SigLIP 2 was trained with, for which a matrix of all pairs would take 4 GiB. */
const largest = [32_768, 768];
const leastRatio = 0.5;
const mostExtra = 256;

/** Rows of unit length, images and then texts; a text resembles its image. */
function makeInput(n, width) {
  const next = generator(n + width);
  const images = fillNormal(new Float32Array(n * width), next, 0, 1);
  const texts = fillNormal(new Float32Array(n * width), next, 0, 1).map((value, i) => value + images[i] / 2);
  for (const rows of [images, texts])
    for (let start = 0; start < rows.length; start += width) {
      const row = rows.subarray(start, start + width);
      const norm = Math.sqrt(row.reduce((sum, value) => sum + value * value, 0));
      for (let i = 0; i < width; i++) row[i] /= norm;
    }
  return { kind: 'embeddings', shape: [n, width], arrays: { images, texts } };
}

const contest = openContest();
const checks = [];
const limits = [];
const notes = [];
const raw = {};
const rows = [];
const megabytes = (bytes) => bytes / 1e6;
const operations = (n, width) => 6 * n * n * width;

/** Bytes that the first call needs besides its input and its results, which are gradients of the input's size. */
async function extraMemory(contestant, [n, width]) {
  const before = await contestant.memory({ reset: true });
  await contestant.time(1);
  const { peak } = await contestant.memory();
  return peak - before.current - 2 * 4 * n * width;
}

/** Loss, gradients of scale and bias, and those of the embeddings. */
function gate(label, actual, expected, width) {
  const found = [];
  ['loss', 'gradient of the scale', 'gradient of the bias'].forEach((what, at) => {
    const difference = Math.abs(actual[at] - expected[at]) / Math.abs(expected[at]);
    found.push({
      name: `${label}: ${what}`,
      passed: difference <= 1e-5,
      detail: `${format(actual[at])}, relative difference ${difference.toExponential(1)}`,
    });
  });
  found.push(compareRows(`${label}: gradients`, actual.subarray(3), expected.subarray(3), width));
  checks.push(...found);
  requirePassed(found);
}

const own = ownProgram('kernels/sigmoid-loss-contestant.mjs');
const peerName = options.smoke ? 'reference' : 'torch';
const torch = options.smoke ? undefined : torchProgram('torch_sigmoid_loss.py', options);
if (torch?.missing !== undefined) throw new Error(`nothing to compare with: ${torch.missing}`);

async function start(shape, withPeer) {
  const settings = { threads: options.threads };
  const input = makeInput(...shape);
  const contestants = [await contest.start('siglip2', own, settings)];
  if (withPeer && options.smoke)
    contestants.push(await contest.start('reference', own, { ...settings, device: 'reference' }));
  else if (withPeer) contestants.push(await contest.start('torch', torch, settings));
  for (const contestant of contestants) await contestant.input(input);
  return contestants;
}

// Processes are new for each case, so that none keeps memory of the one before.
async function compare(shape) {
  const [n, width] = shape;
  const label = `${n} × ${width}`;
  const contestants = await start(shape, true);
  const [ours, peer] = contestants;
  const extra = [];
  for (const contestant of contestants) extra.push(megabytes(await extraMemory(contestant, shape)));
  const [actual, expected] = [await ours.run({ part: 'values' }), await peer.run({ part: 'values' })];
  gate(`${label}: siglip2 against ${peer.name}`, actual, expected, width);
  process.stderr.write(`${label} (load ${currentLoad().toFixed(1)})\n`);
  const { samples, cpu, rounds } = await interleave(contestants, options.plan);
  raw[label] = { milliseconds: Object.fromEntries(samples), cpuMilliseconds: Object.fromEntries(cpu) };
  const time = summarize(samples.get('siglip2'));
  const ratio = summarize(pairedRatios(samples.get(peer.name), samples.get('siglip2')));
  rows.push([
    label,
    `${rounds}`,
    time.median,
    operations(n, width) / time.median / 1e6,
    summarize(samples.get(peer.name)).median,
    `**${format(ratio.median)}** (${format(ratio.low)} to ${format(ratio.high)})`,
    summarize(pairedRatios(cpu.get(peer.name), cpu.get('siglip2'))).median,
    ...extra,
  ]);
  limits.push({
    name: `${label}: against ${peer.name}`,
    value: ratio.median,
    unit: '×',
    limit: `≥ ${leastRatio} ×`,
    met: ratio.median >= leastRatio,
  });
  await Promise.all(contestants.map((contestant) => contestant.close()));
}

/** Alone and once: a peer that forms the matrix would need some 20 GB. */
async function measureLargest(shape) {
  const [n, width] = shape;
  const [ours] = await start(shape, false);
  process.stderr.write(`${n} × ${width} (load ${currentLoad().toFixed(1)})\n`);
  const before = await ours.memory({ reset: true });
  const { milliseconds, cpuMilliseconds } = await ours.time(1);
  const extra = megabytes((await ours.memory()).peak - before.current - 2 * 4 * n * width);
  raw[`${n} × ${width}`] = { milliseconds, cpuMilliseconds };
  const rate = operations(n, width) / milliseconds[0] / 1e6;
  rows.push([`${n} × ${width}`, '1', milliseconds[0], rate, '', '', '', extra, '']);
  limits.push({
    name: `${n} × ${width}: memory besides input and results`,
    value: extra,
    unit: 'MB',
    limit: `< ${mostExtra} MB`,
    met: extra < mostExtra,
  });
}

try {
  for (const shape of cases) await compare(shape);
  if (options.largest) await measureLargest(largest);
} finally {
  await contest.close();
}
notes.push(
  'Loss and the gradients of images, texts, scale and bias. Operations are those of the three products, 6 · n² · width; logarithms and exponentials are extra work without credit.',
  'Medians; in brackets the range of the middle 60 % of the rounds. Ratios are taken within each round.',
  'Memory is what the first call in a fresh process adds to the resident set at its peak, without the gradients that it returns. MB are 10⁶ bytes.',
);
await report(
  {
    name: 'sigmoid-loss',
    title: 'Sigmoid loss and its gradients',
    settings: { dtype: 'float32', threads: options.threads, ...contest.descriptions },
    checks,
    limits,
    tables: [
      {
        title: 'Cases',
        columns: [
          'n × width',
          'rounds',
          'siglip2, ms',
          'GFLOP/s',
          `${peerName}, ms`,
          `${peerName} ÷ siglip2`,
          'in CPU time',
          'siglip2, memory, MB',
          `${peerName}, memory, MB`,
        ],
        rows,
      },
    ],
    notes,
    raw,
  },
  options.results,
);
