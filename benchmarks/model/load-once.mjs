// One load in a fresh process, for load.mjs: prints times and memory as JSON.
import { readFileSync } from 'node:fs';

const { checkpoint, towers, threads, dtype, images, texts } = JSON.parse(process.argv[2]);

/** Bytes: the peak of resident memory, and what is resident now, of the process itself and of mapped files. */
function memory() {
  const status = readFileSync('/proc/self/status', 'utf8');
  const field = (name) => Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, 'm').exec(status)[1]) * 1024;
  return { peak: field('VmHWM'), anonymous: field('RssAnon'), file: field('RssFile') };
}

/** A picture of side × side pixels, made without garbage, which would count as memory of the model. */
function noise(side, seed) {
  const data = new Uint8Array(side * side * 3);
  for (let i = 0, state = seed; i < data.length; i++) {
    state = (Math.imul(state, 1_103_515_245) + 12_345) | 0;
    data[i] = state >> 16;
  }
  return { data, width: side, height: side, channels: 3 };
}

const before = memory();
const start = performance.now();
const { Siglip2 } = await import('siglip2');
const imported = performance.now();
const { model, weights, cpu } = await load();
const loaded = performance.now();

/** Loads, and keeps what the native core says of the weights, which the package does not pass on. */
async function load() {
  const addon = (await import('../../dist/esm/native.js')).native();
  const { loadModel } = addon;
  let handle;
  addon.loadModel = async (...args) => {
    handle = await loadModel(...args);
    return handle;
  };
  const cpuBefore = process.cpuUsage();
  const made = await Siglip2.load(checkpoint, { towers, threads, dtype });
  const { user, system } = process.cpuUsage(cpuBefore);
  return { model: made, weights: addon.describeModel(handle), cpu: (user + system) / 1000 };
}

const result = {
  importing: imported - start,
  loading: loaded - imported,
  loadingCpu: cpu,
  beforeLoading: before,
  afterLoading: memory(),
  packedBytes: weights.visionWeightBytes + weights.textWeightBytes,
};
if (images > 0 || texts > 0) {
  const { textInput } = await import('../support/inputs.mjs');
  const { vision, text } = model.config;
  const side = vision.imageSize ?? 64;
  const input =
    images > 0
      ? Array.from({ length: images }, (_, i) => noise(side, i + 1))
      : textInput(texts, text.maxPositionEmbeddings, text.vocabSize, 1);
  const called = performance.now();
  const { data } =
    images > 0
      ? await model.embedImages(input, { normalize: false })
      : (await model.text.forward(input.arrays.inputIds, input.shape)).pooled;
  const done = performance.now();
  result.firstBatch = done - called;
  // From the start of the process, but for making the input.
  result.startUp = done - (called - loaded);
  result.finite = data.every(Number.isFinite);
  result.rootMeanSquare = Math.sqrt(data.reduce((sum, value) => sum + value * value, 0) / data.length);
  result.afterBatch = memory();
}
process.stdout.write(JSON.stringify(result));
