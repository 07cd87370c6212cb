// Repeats calls in rounds, until they have gained less memory than the limit, five at most. Needs --expose-gc. Arguments:
// scenario, calls in a round, limit in bytes a call, checkpoint folder. Prints JSON: after each round, the bytes gained
// per call since the first, outside and inside of JavaScript's heap.
import { existsSync, readFileSync } from 'node:fs';
import { setImmediate as turn } from 'node:timers/promises';
import { getHeapStatistics } from 'node:v8';
import { loadNative, loadPackage, ramp, textInput, visionInput } from './package.mjs';

const [scenario, calls, limit, folder] = [
  process.argv[2],
  Number(process.argv[3]),
  Number(process.argv[4]),
  process.argv[5],
];
const { esm } = await loadPackage();
const { Siglip2 } = esm;
const { Tensor, attention, layerNorm, linear } = esm.kernels;
const model = await Siglip2.load(folder);
const controller = new AbortController();
const pixels = { data: new Uint8Array(32 * 24 * 3).fill(100), width: 32, height: 24, channels: 3 };
const vision = visionInput(model.config, 1, [2, 2]);
const [ids, shape] = textInput(model.config, 1);

const fails = async (work) => {
  const error = await work().then(
    () => undefined,
    (reason) => reason,
  );
  if (error === undefined) throw new Error('a call that had to fail did not');
};

const scenarios = {
  embedImages: () => model.embedImages(pixels, { maxPatches: 8 }),
  visionForward: () => model.vision.forward(vision, { hiddenStates: true, signal: controller.signal }),
  textForward: () => model.text.forward(ids, shape, { hiddenStates: true, signal: controller.signal }),
  async kernels() {
    const input = Tensor.from(ramp(4 * 8 * 16), [4, 8, 16]);
    const { output, logSumExp } = await attention({ query: input, key: input, value: input });
    await output.read();
    for (const tensor of [input, output, logSumExp]) tensor.dispose();
    const matrix = Tensor.from(ramp(256), [16, 16]);
    const product = await linear({ input: matrix, weight: matrix });
    for (const tensor of [matrix, product.output]) tensor.dispose();
  },
  tensors() {
    Tensor.from(ramp(1024), [32, 32]).dispose();
  },
  // Left to garbage collection, at a size that would fill the machine if nothing were freed.
  async abandonedTensors() {
    Tensor.from(new Float32Array(1 << 18), [1 << 18]);
    await turn();
  },
  async failures() {
    const matrix = Tensor.from(ramp(256), [16, 16]);
    const vector = Tensor.from(ramp(8), [8]);
    await fails(() => layerNorm({ input: matrix, weight: vector, bias: vector }));
    await fails(() => model.text.forward(ids, [1, 3]));
    await fails(() => model.vision.forward(vision, { signal: AbortSignal.abort() }));
    await fails(async () => (await loadNative()).openCheckpoint([{ path: '/nowhere', tensors: [] }]));
    // Fails on the executor's thread.

    const wrong = Tensor.from(ramp(300), [1, 1, 300]);
    await fails(() => attention({ query: wrong, key: wrong, value: wrong }));
    for (const tensor of [matrix, vector, wrong]) tensor.dispose();
  },
  async models() {
    const other = await Siglip2.load(folder, { towers: ['text'] });
    other.dispose();
  },
};

async function measure() {
  for (let i = 0; i < 4; i++) {
    globalThis.gc();
    await turn(); // finalizers run between two turns of the event loop
  }
  const { rss, heapUsed } = process.memoryUsage();
  const heapResident = getHeapStatistics().total_physical_size;
  // Pages of files come and go with the system's needs; what this process has allocated does not.
  const status = existsSync('/proc/self/status') ? readFileSync('/proc/self/status', 'latin1') : '';
  const anonymous = /^RssAnon:\s*(\d+) kB$/m.exec(status);
  return { native: (anonymous === null ? rss : Number(anonymous[1]) * 1024) - heapResident, heap: heapUsed };
}

async function repeat(count) {
  for (let i = 0; i < count; i++) await scenarios[scenario]();
}

// What leaks keeps growing; what only settles (allocator, compiled code) becomes less per call with every round.
await repeat(calls);
const before = await measure();
const gained = [];
for (let round = 1; round <= 5; round++) {
  await repeat(calls);
  const after = await measure();
  const native = (after.native - before.native) / (round * calls);
  const heap = (after.heap - before.heap) / (round * calls);
  gained.push({ native, heap });
  if (native < limit && heap < limit) break;
}
console.log(JSON.stringify(gained));
