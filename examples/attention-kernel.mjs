// A kernel by itself: attention over sequences of different lengths, packed one after the other.
import { attention, devices, Tensor } from 'siglip2/kernels';

console.log(
  devices()
    .map(({ name, description }) => `${name} (${description})`)
    .join(', '),
);

const [heads, headDim] = [12, 64];
const lengths = [196, 256, 64, 144];
const offsets = Int32Array.from([0, ...lengths]);
for (let i = 1; i < offsets.length; i++) offsets[i] += offsets[i - 1];
const tokens = offsets[lengths.length];

const shape = [tokens, heads, headDim];
const random = () =>
  Tensor.from(
    Float32Array.from({ length: tokens * heads * headDim }, () => Math.random() - 0.5),
    shape,
  );
const [query, key, value] = [random(), random(), random()];

await attention({ query, key, value, queryOffsets: offsets }); // the first call warms up
const start = performance.now();
const { output, logSumExp } = await attention({ query, key, value, queryOffsets: offsets });
const milliseconds = performance.now() - start;
const operations = 4 * heads * headDim * lengths.reduce((sum, length) => sum + length ** 2, 0);
console.log(`output [${output.shape}], logSumExp [${logSumExp.shape}]`);
console.log(`${milliseconds.toFixed(2)} ms, ${(operations / milliseconds / 1e6).toFixed(1)} GFLOP/s`);
