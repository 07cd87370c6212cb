// Calls the addon's own functions with arguments of every wrong kind. Arguments: seed, seconds, checkpoint folder.
// Anything but a result, a TypeError, a RangeError or a coded error is a failure; so is the end of this process. The
// call that is being made can be written to standard error first with SIGLIP2_FUZZ_TRACE=1.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import { inspect } from 'node:util';
import { ramp, root } from './package.mjs';

const [seed, seconds, folder] = [Number(process.argv[2]), Number(process.argv[3]), process.argv[4]];
const binary = process.env.SIGLIP2_NATIVE ?? path.join(root, 'build', 'Release', 'siglip2.node');
const addon = createRequire(import.meta.url)(binary);

let state = seed >>> 0;
function below(bound) {
  // mulberry32
  state = (state + 0x6d2b79f5) >>> 0;
  let t = state;
  t = Math.imul(t ^ (t >>> 15), t | 1);
  t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
  return ((t ^ (t >>> 14)) >>> 0) % bound;
}
const pick = (choices) => choices[below(choices.length)];

// A valid call of every function, to be damaged. Sizes are small, so that a damaged one is refused or quick.
const file = path.join(folder, 'model.safetensors');
const headerBytes = Number(readFileSync(file).readBigUInt64LE(0));
const header = JSON.parse(
  readFileSync(file)
    .subarray(8, 8 + headerBytes)
    .toString(),
);
const files = () => [
  {
    path: file,
    tensors: Object.entries(header)
      .filter(([name]) => name !== '__metadata__')
      .map(
        ([
          name,
          {
            dtype,
            shape,
            data_offsets: [begin, end],
          },
        ]) => ({
          name,
          dtype,
          shape: [...shape],
          begin: 8 + headerBytes + begin,
          end: 8 + headerBytes + end,
        }),
      ),
  },
];
const few = () => files().map(({ path: name, tensors }) => ({ path: name, tensors: tensors.slice(0, 2) }));
const { vision_config: vision, text_config: text } = JSON.parse(readFileSync(path.join(folder, 'config.json')));
const encoder = (config) => ({
  width: config.hidden_size,
  layers: config.num_hidden_layers,
  heads: config.num_attention_heads,
  intermediate: config.intermediate_size,
  epsilon: 1e-6,
});
const tower = {
  vision: () => ({
    ...encoder(vision),
    patchSize: 16,
    grid: Math.sqrt(header['vision_model.embeddings.position_embedding.weight'].shape[0]),
    fixedResolution: false,
    hasHead: true,
  }),
  text: () => ({
    ...encoder(text),
    vocabulary: header['text_model.embeddings.token_embedding.weight'].shape[0],
    positions: header['text_model.embeddings.position_embedding.weight'].shape[0],
    projection: header['text_model.head.bias'].shape[0],
  }),
};
const token = () => addon.createCancelToken();
const tensor = (shape, dtype = 'float32') => {
  const count = shape.reduce((product, size) => product * size, 1);
  const data = dtype === 'bfloat16' ? new Uint16Array(count) : ramp(count);
  return addon.createTensor(pick(['cpu', 'cpu', 'reference']), dtype, shape, data);
};
const picture = () => ({ data: new Uint8Array(40 * 24 * 3).fill(7), width: 40, height: 24, channels: 3 });
const images = () => ({
  images: [picture(), picture()],
  targetSizes: Int32Array.of(32, 32, 16, 48),
  mean: [0.5, 0.5, 0.5],
  deviation: [0.5, 0.5, 0.5],
  rescale: 1 / 255,
  mode: pick(['pil', 'float']),
  filter: pick(['bilinear', 'bicubic']),
});
const wanted = () => ({ pooled: true, normalize: true, lastHiddenState: true, hiddenStates: true });
const checkpoint = addon.openCheckpoint(files());
const model = await addon.loadModel(
  checkpoint,
  { device: 'cpu', dtype: 'float32', threads: 2, vision: tower.vision(), text: tower.text(), packedFolder: '' },
  token(),
);
const parameters = () =>
  Object.entries(header)
    .filter(([name]) => name !== '__metadata__')
    .map(([name, { shape }]) => ({
      name,
      shape: [...shape],
      trainable: true,
      learningRateScale: 1,
      decayScale: 0,
      initialization: { kind: 'normal', scale: 0.1 },
    }));
const training = () => ({
  device: 'cpu',
  dtype: 'float32',
  threads: 2,
  vision: tower.vision(),
  text: tower.text(),
  parameters: parameters(),
  seed: 1,
  average: pick([true, false]),
  checkpoint: pick([checkpoint, undefined]),
  trainingState: false,
});
const trainer = await addon.createTrainer(training(), token());
const batch = () => ({
  images: { kind: 'patches', patches: ramp(10 * 768), spatialShapes: Int32Array.of(2, 3, 1, 4) },
  ...pick([
    () => ({ inputIds: Int32Array.from({ length: 32 }, (_, i) => i) }),
    () => ({
      inputIds: Int32Array.from({ length: 48 }, (_, i) => i),
      positives: { offsets: Int32Array.of(0, 1, 3), texts: Int32Array.of(1, 0, 2) },
    }),
  ])(),
  length: 16,
});
const plan = () => ({ microBatch: pick([0, 1, 2]), checkpointing: pick([true, false]) });
const update = () => ({
  ...{ updates: 1, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, learningRate: 1e-5, decay: 0, averageDecay: 0.9 },
  clipNorm: 1,
});
const valid = {
  describe: () => [],
  openDevice: () => [pick(['cpu', 'simt', 'cuda', 'cuda:0', 'cuda:99'])],
  simtControl: () => ['statistics'],
  createCancelToken: () => [],
  cancel: () => [token()],
  release: () => [pick([tensor([2]), token(), addon.openCheckpoint(few())])],
  openCheckpoint: () => [few()],
  readTensor: () => [checkpoint, 'logit_scale', 'F32'],
  checkpointStatistics: () => [addon.openCheckpoint(few()), token()],
  loadModel: () => [
    checkpoint,
    { device: 'cpu', dtype: 'float32', threads: 2, vision: tower.vision(), text: tower.text(), packedFolder: '' },
    token(),
  ],
  describeModel: () => [model],
  visionForward: () => [
    model,
    pick([
      () => ({ kind: 'images', ...images() }),
      () => ({ kind: 'pixels', pixelValues: ramp(2 * 3 * 32 * 48), shape: [2, 3, 32, 48] }),
      () => ({ kind: 'patches', patches: ramp(10 * 768), spatialShapes: Int32Array.of(2, 3, 1, 4) }),
    ])(),
    { ...wanted(), layer: pick([-1, 0, 1]) },
    token(),
  ],
  textForward: () => [model, Int32Array.from({ length: 32 }, (_, i) => i), 16, wanted(), token()],
  createTrainer: () => [training(), token()],
  trainerModel: () => [trainer],
  trainerGradients: () => [trainer, batch(), plan(), token()],
  trainerStep: () => [trainer, batch(), plan(), update(), token()],
  trainerPlan: () => [trainer, { spatialShapes: Int32Array.of(2, 3, 1, 4), texts: pick([2, 5]), length: 16 }, plan()],
  readParameter: () => [trainer, 'text_model.head.bias', pick(['value', 'gradient', 'average']), 'F32'],
  touchedRows: () => [trainer],
  similarity: () => [ramp(12), ramp(16), 4, 1, -1],
  prepareImages: () => [
    { ...images(), targetSizes: Int32Array.of(32, 32, 32, 32) },
    { device: pick(['cpu', 'reference']), threads: 2, patchSize: 16, layout: pick(['patches', 'planar']) },
    token(),
  ],
  naflexTargetSize: () => [480, 640, 16, 256],
  createTensor: () => ['cpu', 'float32', [2, 3], ramp(6)],
  readTensorValues: () => [tensor([2, 3])],
  linear: () => [
    {
      input: tensor([3, 5]),
      weight: tensor([4, 5]),
      bias: tensor([4]),
      residual: tensor([3, 4]),
      activation: 'gelu',
      threads: 2,
    },
  ],
  selfAttention: () => [
    {
      ...{ input: tensor([5, 6]), offsets: Int32Array.of(0, 2, 2, 5), heads: 2, epsilon: 1e-6 },
      ...{ normWeight: tensor([6]), normBias: tensor([6]), queryKeyValueWeight: tensor([18, 6]) },
      ...{ queryKeyValueBias: tensor([18]), outWeight: tensor([6, 6]), outBias: tensor([6]), residual: tensor([5, 6]) },
      ...{ weightDtype: pick(['float32', 'bfloat16', 'int8']), threads: 2 },
    },
  ],
  mlp: () => [
    {
      ...{ input: tensor([3, 5]), normWeight: tensor([5]), normBias: tensor([5]), epsilon: 1e-6 },
      ...{ fc1Weight: tensor([4, 5]), fc1Bias: tensor([4]), fc2Weight: tensor([5, 4]), fc2Bias: tensor([5]) },
      ...{ residual: tensor([3, 5]), weightDtype: pick(['float32', 'bfloat16', 'int8']), threads: 2 },
    },
  ],
  arithmeticRoof: () => [{ dtype: pick(['float32', 'bfloat16', 'int8']), turns: 10, threads: 2 }],
  layerNorm: () => [{ input: tensor([3, 5]), weight: tensor([5]), bias: tensor([5]), epsilon: 1e-6, threads: 2 }],
  gelu: () => [{ input: tensor([3, 5]), threads: 2 }],
  convert: () => [{ input: tensor([3, 5]), dtype: pick(['float32', 'bfloat16']), threads: 2 }],
  l2Normalize: () => [{ input: tensor([3, 5]), threads: 2 }],
  attention: () => [
    {
      query: tensor([5, 2, 8]),
      key: tensor([7, 2, 8]),
      value: tensor([7, 2, 8]),
      queryOffsets: Int32Array.of(0, 2, 5),
      keyOffsets: Int32Array.of(0, 4, 7),
      causal: pick([true, false]),
      scale: 0.3,
      threads: 2,
    },
  ],
  mapPool: () => [
    {
      tokens: tensor([6, 8]),
      offsets: Int32Array.of(0, 2, 6),
      probeKeys: tensor([2, 8]),
      valueWeight: tensor([8, 8]),
      valueBias: tensor([8]),
      threads: 2,
    },
  ],
  attentionBackward: () => [
    {
      query: tensor([5, 2, 8]),
      key: tensor([7, 2, 8]),
      value: tensor([7, 2, 8]),
      queryOffsets: Int32Array.of(0, 2, 5),
      keyOffsets: Int32Array.of(0, 4, 7),
      causal: pick([true, false]),
      scale: 0.3,
      output: tensor([5, 2, 8]),
      logSumExp: tensor([5, 2]),
      gradOutput: tensor([5, 2, 8]),
      threads: 2,
    },
  ],
  mapPoolBackward: () => [
    {
      tokens: tensor([6, 8]),
      offsets: Int32Array.of(0, 2, 6),
      probeKeys: tensor([2, 8]),
      valueWeight: tensor([8, 8]),
      gradOutput: tensor([2, 8]),
      threads: 2,
    },
  ],
  probeKeys: () => [
    {
      probe: tensor([8]),
      queryWeight: tensor([8, 8]),
      queryBias: tensor([8]),
      keyWeight: tensor([8, 8]),
      heads: 2,
      threads: 2,
    },
  ],
  probeKeysBackward: () => [
    {
      probe: tensor([8]),
      queryWeight: tensor([8, 8]),
      queryBias: tensor([8]),
      keyWeight: tensor([8, 8]),
      gradProbeKeys: tensor([2, 8]),
      threads: 2,
    },
  ],
  positionEmbedding: () => [{ table: tensor([3, 3, 4096]), spatialShapes: Int32Array.of(2, 3, 4, 1), threads: 2 }],
  tokenEmbedding: () => [
    {
      ids: Int32Array.of(0, 3, 1, 2),
      length: 2,
      table: tensor([4, 6], pick(['float32', 'bfloat16'])),
      positions: tensor([2, 6]),
      threads: 2,
    },
  ],
  sigmoidLoss: () => [
    {
      ...pick([
        () => ({ images: tensor([5, 8]), texts: tensor([5, 8]) }),
        () => ({
          images: tensor([3, 8]),
          texts: tensor([5, 8]),
          positives: { offsets: Int32Array.of(0, 2, 2, 4), texts: Int32Array.of(0, 3, 0, 4) },
        }),
      ])(),
      logitScale: pick([0, 2.3, 79]),
      logitBias: -10,
      gradients: pick([true, false]),
      threads: 2,
    },
  ],
  tokenEmbeddingBackward: () => [
    { ids: Int32Array.of(0, 3, 1, 3), length: 2, vocabularySize: 5, gradOutput: tensor([4, 6]), threads: 2 },
  ],
  positionEmbeddingBackward: () => [
    { gradTokens: tensor([10, 7]), spatialShapes: Int32Array.of(2, 3, 4, 1), tableShape: [3, 2], threads: 2 },
  ],
  adam: () => [
    {
      parameter: tensor([4, 5]),
      firstMoment: tensor([4, 5]),
      secondMoment: tensor([4, 5]),
      average: tensor([4, 5]),
      gradient: tensor([2, 5]),
      gradientRows: Int32Array.of(1, -1, -2, 0),
      ...{ step: 3, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, stepSize: 1e-3, decay: 0 },
      ...{ gradientScale: 1, averageDecay: 0.99, threads: 2 },
    },
  ],
  sumOfSquares: () => [{ values: tensor([3, 5]), threads: 2 }],
  initialize: () => [
    {
      kind: pick(['constant', 'uniform', 'normal', 'truncated_normal']),
      ...{ scale: 0.1, seed: 1, stream: 2, count: 9, device: pick(['cpu', 'reference']), threads: 2 },
    },
  ],
  naflexPatchify: () => [{ ...images(), patchSize: 16, device: 'cpu', threads: 2 }],
  linearBackward: () => [{ input: tensor([3, 5]), weight: tensor([4, 5]), gradOutput: tensor([3, 4]), threads: 2 }],
  layerNormBackward: () => [
    { input: tensor([3, 5]), weight: tensor([5]), gradOutput: tensor([3, 5]), epsilon: 1e-6, threads: 2 },
  ],
  geluBackward: () => [{ input: tensor([3, 5]), gradOutput: tensor([3, 5]), threads: 2 }],
  l2NormalizeBackward: () => [{ input: tensor([3, 5]), gradOutput: tensor([3, 5]), threads: 2 }],
};
const forgotten = Object.keys(addon).filter((name) => !(name in valid));
if (forgotten.length > 0) throw new Error(`add these functions to the fuzz program: ${forgotten.join(', ')}`);

class Hostile extends Error {}
const detached = (array) => {
  if (array.buffer instanceof ArrayBuffer) structuredClone(array.buffer, { transfer: [array.buffer] });
  return array;
};
const shared = (array) => {
  const copy = new array.constructor(new SharedArrayBuffer(array.byteLength));
  copy.set(array);
  return copy;
};
const shrunk = () => {
  const buffer = new ArrayBuffer(64, { maxByteLength: 128 });
  const array = pick([() => new Float32Array(buffer), () => new Int32Array(buffer, 32, 8)])();
  buffer.resize(16);
  return array;
};
const released = () => {
  const handle = tensor([3, 5]);
  addon.release(handle);
  return handle;
};
// Small or absurd, never in between: an absurd size that is accepted would fill any machine, and so must be refused.
const numbers = [
  -1,
  -0,
  0,
  1,
  2,
  3,
  5,
  7,
  16,
  17,
  2 ** 31 - 1,
  2 ** 31,
  -(2 ** 31),
  2 ** 32,
  2 ** 32 + 3,
  2 ** 53 - 1,
].concat([-(2 ** 53), 1e19, 1e300, Number.NaN, Number.POSITIVE_INFINITY, 0.5, -1.5, 1e-320]);
const strings = ['', 'x', 'cpu', 'reference', 'float32', 'F32', 'BF16', 'planar', 'images', 'pixels', '/', '/nowhere'];
const values = [
  () => pick([undefined, null, true, false, Symbol('s'), 10n, 2n ** 70n, () => {}, /x/, new Date(0)]),
  () => pick(numbers),
  () => pick(numbers),
  () => pick([...strings, file, 'a\u0000b', '\ud800', 'é'.repeat(3000)]),
  () => pick([[], {}, [[]], [1, 2, 3], [pick(numbers), pick(numbers)], new Array(2 ** 32 - 1), new Proxy([], {})]),
  () => new (pick([Float32Array, Int32Array, Uint8Array, Float64Array, Uint16Array, BigInt64Array]))(below(20)),
  () => pick([new ArrayBuffer(8), new SharedArrayBuffer(8), new DataView(new ArrayBuffer(8))]),
  () => Int32Array.from({ length: below(6) }, () => pick(numbers)),
  () => Float32Array.from({ length: below(20) }, () => pick(numbers)),
  () => shared(pick([ramp(6), Int32Array.of(0, 2, 5), new Uint8Array(2880)])),
  () => detached(pick([ramp(6), Int32Array.of(0, 2, 5), new Uint8Array(2880)])),
  shrunk,
  () => pick([model, checkpoint, token(), tensor([3, 5]), tensor([0, 5]), tensor([5]), tensor([]), released()]),
  () =>
    new Proxy(
      {},
      {
        get() {
          throw new Hostile();
        },
      },
    ),
];
const isPlain = (value) => Array.isArray(value) || Object.getPrototypeOf(value) === Object.prototype;

// Every place in the arguments where a value can be put.
function places(value, found) {
  for (const key of Object.keys(value)) {
    found.push([value, key]);
    const inner = value[key];
    if (typeof inner === 'object' && inner !== null && isPlain(inner)) places(inner, found);
  }
  return found;
}

function damage(args) {
  for (let count = below(4); count > 0; count--) {
    const all = places(args, []);
    if (all.length === 0) {
      args.push(pick(values)());
      continue;
    }
    const [parent, key] = pick(all);
    const old = parent[key];
    if (ArrayBuffer.isView(old) && old.length > 0 && below(2) === 0) {
      if (old instanceof Int32Array) old[below(old.length)] = pick(numbers);
      else parent[key] = pick([shared, detached, (array) => array.subarray(0, below(array.length))])(old);
    } else if (below(12) === 0) delete parent[key];
    else parent[key] = pick(values)();
  }
  return args;
}

const counts = { results: 0, refused: 0 };
function judge(name, args, error) {
  const coded = typeof error?.code === 'string' && error.code.startsWith('ERR_SIGLIP_');
  if (coded || error instanceof TypeError || error instanceof RangeError || error instanceof Hostile) {
    counts.refused++;
    return;
  }
  console.error(`seed ${seed}: ${name}(${inspect(args, { depth: 5, maxArrayLength: 12 })}) gave`, error);
  process.exit(1);
}

const end = performance.now() + seconds * 1000;
const running = new Set();
for (let call = 0; performance.now() < end; call++) {
  const name = pick(Object.keys(valid));
  const args = damage(valid[name]());
  if (name === 'release' && (args[0] === model || args[0] === checkpoint)) continue; // the other calls need them
  if (process.env.SIGLIP2_FUZZ_TRACE === '1')
    console.error(call, name, inspect(args, { depth: 5, maxArrayLength: 12 }));
  try {
    const result = addon[name](...args);
    if (result instanceof Promise) {
      const settled = result.then(
        () => counts.results++,
        (error) => judge(name, args, error),
      );
      const tracked = settled.finally(() => running.delete(tracked));
      running.add(tracked);
      if (running.size > 8) await Promise.race(running);
    } else counts.results++;
  } catch (error) {
    judge(name, args, error);
  }
  if (call % 16 === 0) await turn(); // finalizers of abandoned handles run between turns of the event loop
}
await Promise.all(running);
// The addon still works.
const { pooled } = await addon.textForward(...valid.textForward());
if (!(pooled.length > 0) || !pooled.every(Number.isFinite)) throw new Error(`seed ${seed}: the model is broken`);
console.log(JSON.stringify(counts));
