// Training steps against PyTorch, their memory, and what micro-batches and checkpointing cost: see ../README.md.
import { readConfig } from '../../dist/esm/model/config.js';
import { parameterShapes } from '../../dist/esm/model/parameter-shapes.js';
import { cachedCheckpoint } from '../support/checkpoint.mjs';
import { compareRows, requirePassed } from '../support/compare.mjs';
import { patchInput, pixelInput, textInput } from '../support/inputs.mjs';
import { currentLoad } from '../support/machine.mjs';
import { forwardOperations } from '../support/operations.mjs';
import { readOptions } from '../support/options.mjs';
import { tinyCheckpoint } from '../support/paths.mjs';
import { openContest, ownProgram, peerOptions, torchProgram } from '../support/peers.mjs';
import { format, report } from '../support/results.mjs';
import { summarize } from '../support/statistics.mjs';
import { interleave, pairedRatios } from '../support/timing.mjs';

const { checkpoint: checkpointOption, python } = peerOptions;
const options = readOptions({
  checkpoint: checkpointOption,
  python,
  batches: { type: 'string' },
  dtype: { type: 'string', default: 'float32' },
  'torch-weights': { type: 'string' },
});
const { dtype } = options;
const torchWeights = options['torch-weights'] ?? dtype;
for (const [name, type] of Object.entries({ dtype, 'torch-weights': torchWeights }))
  if (type !== 'float32' && type !== 'bfloat16')
    throw new RangeError(`--${name}: expected float32 or bfloat16, got ${type}`);
if (dtype === 'float32' && torchWeights !== dtype)
  throw new RangeError('--torch-weights bfloat16 needs --dtype bfloat16');
// How far apart the contestants may be. In bfloat16 PyTorch rounds after every operation, logits of about 10 included.
const bounds =
  dtype === 'float32'
    ? { loss: 1e-5, norm: 1e-4, gradient: undefined, stepLoss: 1e-3 }
    : { loss: 0.05, norm: 0.05, gradient: { difference: Infinity, cosine: 0.02 }, stepLoss: 0.05 };
// This package's variants round the same operands, but sums of gradients are cut elsewhere.
const variantBounds = { loss: 1e-5, norm: 1e-4, gradient: undefined };
const batches = (options.batches ?? (options.smoke ? '1,3' : '1,8')).split(',').map(Number);
const checkpoint = options.checkpoint ?? (options.smoke ? tinyCheckpoint : await cachedCheckpoint('base-patch16-256'));
const config = await readConfig(checkpoint);
const { vision, text } = config;
const shapes = parameterShapes(config);
const side = options.smoke ? 4 : Math.round(Math.sqrt(vision.numPatches));
const length = text.maxPositionEmbeddings;
// So slow that loss and gradients keep their size: denormal numbers would be slow in some programs and not in others.
const optimizer = { learningRate: 1e-8, weightDecay: 1e-9, betas: [0.9, 0.95], epsilon: 1e-8, clipNorm: 1 };
const leastRatio = 0.5;
const peerName = options.smoke ? 'reference' : 'torch';

// The lowest layers' gradients depend on everything above them.
const compared = [
  'vision_model.embeddings.patch_embedding.weight',
  'vision_model.encoder.layers.0.self_attn.k_proj.weight',
  'vision_model.head.probe',
  'text_model.embeddings.position_embedding.weight',
  'text_model.encoder.layers.0.mlp.fc1.weight',
  'text_model.encoder.layers.0.layer_norm1.weight',
];

function makeInput(batch) {
  const images =
    config.architecture === 'fixed'
      ? pixelInput(batch, vision.imageSize, batch)
      : patchInput(new Array(batch).fill([side, side]), side * side, vision.patchSize, batch);
  const texts = textInput(batch, length, text.vocabSize, batch);
  return { ...images, arrays: { ...images.arrays, ...texts.arrays } };
}

const contest = openContest();
const own = ownProgram('model/training-contestant.mjs');
const settings = { checkpoint, threads: options.threads, optimizer, dtype };
const peerSettings = options.smoke ? { device: 'reference' } : { weights: torchWeights };
const checks = [];
const limits = [];
const notes = [];
const raw = {};
const gigabytes = (bytes) => bytes / 1e9;
const range = ({ median, low, high }, scale) =>
  `${format(median * scale)} (${format(low * scale)} to ${format(high * scale)})`;

/** A contestant's training steps, for `interleave`. */
const steps = (contestant) => ({
  name: contestant.name,
  time: (repeats) => contestant.time(repeats, { part: 'step' }),
});
/** This package's forward passes of both towers without anything kept for a backward pass. */
const forwards = (contestant) => ({
  name: `${contestant.name}, forward`,
  time: (repeats) => contestant.time(repeats, { part: 'forward' }),
});

/** Loss, global norm and some gradients at a contestant's present weights, one after the other. */
const gradients = (contestant) => contestant.run({ part: 'gradients', parameters: compared });

/** Gradients at the same weights must agree. */
function gate(label, actual, expected, allowed) {
  const close = (what, at, bound) => {
    const difference = Math.abs(actual[at] - expected[at]) / Math.abs(expected[at]);
    return {
      name: `${label}: ${what}`,
      passed: difference <= bound,
      detail: `${format(actual[at])}, relative difference ${difference.toExponential(1)}`,
    };
  };
  const found = [close('loss', 0, allowed.loss), close('global norm of the gradients', 1, allowed.norm)];
  let at = 2;
  for (const name of compared) {
    const size = shapes.get(name).reduce((product, extent) => product * extent, 1);
    const of = (all) => all.subarray(at, at + size);
    found.push(compareRows(`${label}: gradient of ${name}`, of(actual), of(expected), size, allowed.gradient));
    at += size;
  }
  checks.push(...found);
  requirePassed(found);
}

/** Updates must agree: losses of two steps from the same weights, of which the second depends on the first update. */
async function gateSteps(batch, ours, peer) {
  for (const step of [1, 2]) {
    const losses = [];
    for (const contestant of [ours, peer]) losses.push((await contestant.run({ part: 'step' }))[0]);
    const difference = Math.abs(losses[0] - losses[1]) / losses[1];
    checks.push({
      name: `batch ${batch}: loss of siglip2 against ${peer.name} in step ${step}`,
      passed: difference <= bounds.stepLoss,
      detail: `${format(losses[0])}, relative difference ${difference.toExponential(1)}`,
    });
  }
  requirePassed(checks);
}

/**
 * Bytes of a program's steps on a batch: `held` between them, and the `peak` of two. Its process is a new one, in which
 * nothing else has left anything behind.
 */
async function measureMemory(program, batch, plan = {}) {
  const contestant = await contest.start('memory', program, { ...settings, ...plan });
  delete contest.descriptions.memory;
  await contestant.input(makeInput(batch));
  await contestant.time(1, { part: 'step' });
  const { current } = await contestant.memory({ reset: true });
  await contestant.time(2, { part: 'step' });
  const { peak } = await contestant.memory();
  const planned = program === own ? [...(await contestant.run({ part: 'plan' }))] : [];
  await contestant.close();
  return { held: current, peak, planned };
}

const ratioText = ({ median, low, high }) => `**${format(median)}** (${format(low)} to ${format(high)})`;
const speedRows = [];
const memoryRows = [];
const partRows = [];
const variantRows = [];

async function timeSteps(batch, ours, peer) {
  const label = `batch ${batch}`;
  process.stderr.write(`${label} (load ${currentLoad().toFixed(1)})\n`);
  const { samples, cpu, rounds } = await interleave([steps(ours), steps(peer), forwards(ours)], options.plan);
  raw[label] = { milliseconds: Object.fromEntries(samples), cpuMilliseconds: Object.fromEntries(cpu) };
  const [step, peerStep, forward] = [ours.name, peer.name, `${ours.name}, forward`].map((name) => samples.get(name));
  const ratio = summarize(pairedRatios(peerStep, step));
  const operations = batch * forwardOperations(config, side * side, length);
  speedRows.push([
    `${batch}`,
    `${rounds}`,
    range(summarize(step), 1e-3),
    (batch / summarize(step).median) * 1000,
    summarize(peerStep).median / 1000,
    ratioText(ratio),
    summarize(pairedRatios(cpu.get(peer.name), cpu.get(ours.name))).median,
    summarize(step.map((time) => (3 * operations) / time / 1e6)).median,
    summarize(forward.map((time) => operations / time / 1e6)).median,
    summarize(pairedRatios(forward, step)).median * 300,
  ]);
  limits.push({
    name: `${label}: a step against ${peer.name}`,
    value: ratio.median,
    unit: '×',
    limit: `≥ ${leastRatio} ×`,
    met: ratio.median >= leastRatio,
  });
  const { parts } = await peer.time(2, { part: 'step' });
  if (parts !== undefined)
    partRows.push([`${batch}`, ...Object.values(parts).map((times) => summarize(times).median / 1000)]);
}

async function compareWithPeer() {
  const program = options.smoke ? own : torchProgram('torch_training.py', options);
  if (program.missing !== undefined) {
    notes.push(`${peerName} was not measured: ${program.missing}.`);
    return;
  }
  for (const batch of batches) {
    const ours = await measureMemory(own, batch);
    const peer = await measureMemory(program, batch, peerSettings);
    memoryRows.push([
      `${batch}`,
      ...[ours.held, ours.peak, peer.held, peer.peak].map(gigabytes),
      peer.peak / ours.peak,
    ]);
  }
  const ours = await contest.start('siglip2', own, settings);
  const peer = await contest.start(peerName, program, { ...settings, ...peerSettings });
  // First gradients of all batches at the weights of the checkpoint: after a step every program has weights of its own.
  for (const batch of batches) {
    const results = [];
    for (const contestant of [ours, peer]) {
      await contestant.input(makeInput(batch));
      results.push(await gradients(contestant));
    }
    gate(`batch ${batch}: siglip2 against ${peer.name}`, ...results, bounds);
  }
  for (const batch of batches) {
    for (const contestant of [ours, peer]) await contestant.input(makeInput(batch));
    if (batch === batches[0]) await gateSteps(batch, ours, peer);
    await timeSteps(batch, ours, peer);
  }
  await Promise.all([ours.close(), peer.close()]);
}

/** Ways to take the same step in less memory. */
const variants = new Map([
  ['checkpointing', { checkpointing: true }],
  ['micro-batches of 2, checkpointing', { microBatchSize: 2, checkpointing: true }],
]);

/** The largest batch at once against the same batch in less memory. */
async function compareVariants() {
  const batch = Math.max(...batches);
  const bytes = async (plan) => {
    const { planned, peak } = await measureMemory(own, batch, plan);
    return [...planned, peak].map(gigabytes);
  };
  variantRows.push(['all at once', '1', '', ...(await bytes({}))]);
  const whole = await contest.start('all at once', own, settings);
  await whole.input(makeInput(batch));
  const expected = await gradients(whole);
  for (const [name, plan] of variants) {
    const memory = await bytes(plan);
    const variant = await contest.start(name, own, { ...settings, ...plan });
    await variant.input(makeInput(batch));
    gate(`batch ${batch}: ${name} against all at once`, await gradients(variant), expected, variantBounds);
    process.stderr.write(`${name} (load ${currentLoad().toFixed(1)})\n`);
    const { samples, cpu } = await interleave([steps(whole), steps(variant)], options.plan);
    raw[name] = { milliseconds: Object.fromEntries(samples), cpuMilliseconds: Object.fromEntries(cpu) };
    variantRows.push([
      name,
      ratioText(summarize(pairedRatios(samples.get(name), samples.get(whole.name)))),
      summarize(pairedRatios(cpu.get(name), cpu.get(whole.name))).median,
      ...memory,
    ]);
    await variant.close();
  }
}

try {
  await compareWithPeer();
  await compareVariants();
} finally {
  await contest.close();
}

const name = checkpoint.split('/').at(-1);
const tables = [
  {
    title: 'Steps',
    columns: [
      'batch',
      'rounds',
      'siglip2, s',
      'siglip2, examples/s',
      `${peerName}, s`,
      `${peerName} ÷ siglip2`,
      'in CPU time',
      'siglip2, GFLOP/s',
      'its forward pass alone, GFLOP/s',
      'step, % of the forward rate',
    ],
    rows: speedRows,
  },
  {
    title: 'Resident memory, GB',
    columns: [
      'batch',
      'siglip2, between steps',
      'siglip2, peak',
      `${peerName}, between steps`,
      `${peerName}, peak`,
      `peak, ${peerName} ÷ siglip2`,
    ],
    rows: memoryRows,
  },
  {
    title: `Less memory, batch ${Math.max(...batches)}`,
    columns: [
      '',
      'time, of that all at once',
      'in CPU time',
      'planned for activations, GB',
      'planned in all, GB',
      'peak, GB',
    ],
    rows: variantRows,
  },
];
if (partRows.length > 0)
  tables.push({
    title: 'Parts of a step of torch, s',
    columns: ['batch', 'forward', 'backward', 'clipping', 'optimizer'],
    rows: partRows,
  });
notes.push(
  'A step is forward pass, sigmoid loss, backward pass, clipping to a global norm of 1 and Adam with decay of linear weights. Medians; in brackets the range of the middle 60 % of the rounds. Ratios are taken within each round.',
  'Operations of a step are three times those of the matrix products of the forward pass; what a program computes besides or again has no credit. The forward pass alone is that of `vision.forward` and `text.forward` with the same weights in the same process.',
  'torch updates every row of the token table in every step, siglip2 those that have ever had a gradient: the result is the same.',
  'Memory is the resident set with Node or Python included: held before a step, when memory of the load has been given back, and the high-water mark of two steps. GB are 10⁹ bytes.',
);
await report(
  {
    name: `training-${name}${dtype === 'float32' ? '' : `-${dtype}`}`,
    title: `Training steps of ${name} in ${dtype}`,
    settings: {
      checkpoint: name,
      dtype,
      threads: options.threads,
      'tokens of a pair': `${side * side} patches, ${length} of text`,
      ...contest.descriptions,
    },
    checks,
    limits,
    tables: tables.filter(({ rows }) => rows.length > 0),
    notes,
    raw,
  },
  options.results,
);
