// One load in a fresh process, for load.mjs: prints times and memory as JSON.
import { readFileSync } from 'node:fs';

const { checkpoint, towers, threads, dtype, images, texts } = JSON.parse(process.argv[2]);

/** Bytes: the peak of resident memory, and what is resident now, of the process itself and of mapped files. */
function memory() {
  const status = readFileSync('/proc/self/status', 'utf8');
  const field = (name) => Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, 'm').exec(status)[1]) * 1024;
  return { peak: field('VmHWM'), anonymous: field('RssAnon'), file: field('RssFile') };
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
  const { pixelInput, textInput } = await import('../support/inputs.mjs');
  const { vision, text } = model.config;
  const input =
    images > 0
      ? pixelInput(images, vision.imageSize ?? 64, 1)
      : textInput(texts, text.maxPositionEmbeddings, text.vocabSize, 1);
  const { shape, arrays } = input;
  const called = performance.now();
  const { pooled } =
    images > 0 ? await model.vision.forward({ ...arrays, shape }) : await model.text.forward(arrays.inputIds, shape);
  const done = performance.now();
  result.firstBatch = done - called;
  // From the start of the process, but for making the input.
  result.startUp = done - (called - loaded);
  result.finite = pooled.data.every(Number.isFinite);
  result.rootMeanSquare = Math.sqrt(pooled.data.reduce((sum, value) => sum + value * value, 0) / pooled.data.length);
  result.afterBatch = memory();
}
process.stdout.write(JSON.stringify(result));
