// Layer normalisation, bound by memory traffic: see ../README.md.
import { layerNorm } from 'siglip2/kernels';
import { againstReference, discard, options, randomTensor, runCases, threads } from '../support/kernels.mjs';

const scale = options.smoke ? 16 : 1;

function makeArguments(rows, width, device) {
  return {
    input: randomTensor([rows, width], 1, { device, mean: 0.3 }),
    weight: randomTensor([width], 2, { device, mean: 1, deviation: 0.1 }),
    bias: randomTensor([width], 3, { device, deviation: 0.1 }),
  };
}

const checks = [];
const cases = [];
for (const [fullRows, width] of [
  [256, 768],
  [2048, 768],
  [8192, 768],
  [5832, 1152],
]) {
  const rows = Math.ceil(fullRows / scale);
  const name = `${fullRows} rows of ${width}`;
  checks.push(
    await againstReference(name, width, async (device) => {
      const { output } = await layerNorm({ ...makeArguments(5, width, device), threads });
      return output;
    }),
  );
  const args = makeArguments(rows, width, 'cpu');
  cases.push({
    name,
    shape: `[${rows}, ${width}]`,
    bytes: 2 * 4 * rows * width,
    run: () => discard(layerNorm({ ...args, threads })),
  });
}
await runCases({
  name: 'layer-norm',
  title: 'Layer normalisation',
  roof: 'memory',
  checks,
  cases,
  notes: ['Bytes are one reading of the input and one writing of the output, which is a new tensor in every call.'],
});
