// One load in a fresh process, for load.mjs: prints times and memory as JSON.
import { readFileSync } from 'node:fs';
import { pixelInput } from '../support/inputs.mjs';

const [checkpoint, towers, threads, images] = JSON.parse(process.argv[2]);
const start = performance.now();
const { Siglip2 } = await import('siglip2');
const imported = performance.now();
const cpuBefore = process.cpuUsage();
const model = await Siglip2.load(checkpoint, { towers, threads });
const loaded = performance.now();
const { user, system } = process.cpuUsage(cpuBefore);

/** Bytes: the peak of resident memory, and what is resident now, of the process itself and of mapped files. */
function memory() {
  const status = readFileSync('/proc/self/status', 'utf8');
  const field = (name) => Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, 'm').exec(status)[1]) * 1024;
  return { peak: field('VmHWM'), anonymous: field('RssAnon'), file: field('RssFile') };
}

const result = {
  importing: imported - start,
  loading: loaded - imported,
  loadingCpu: (user + system) / 1000,
  afterLoading: memory(),
};
if (images > 0) {
  const { kind: _, shape, arrays } = pixelInput(images, model.config.vision.imageSize ?? 64, 1);
  const before = performance.now();
  const { pooled } = await model.vision.forward({ ...arrays, shape });
  result.firstBatch = performance.now() - before;
  result.finite = pooled.data.every(Number.isFinite);
  result.rootMeanSquare = Math.sqrt(pooled.data.reduce((sum, value) => sum + value * value, 0) / pooled.data.length);
  result.afterBatch = memory();
}
process.stdout.write(JSON.stringify(result));
