// Attention at the model's shapes, equal and ragged: see ../README.md.
import { attention } from 'siglip2/kernels';
import { againstReference, options, randomTensor, runCases, threads } from '../support/kernels.mjs';

const scale = options.smoke ? 16 : 1;
const models = [
  { name: 'B/16-256, batch 1', heads: 12, headDim: 64, lengths: [256] },
  { name: 'B/16-256, batch 8', heads: 12, headDim: 64, lengths: new Array(8).fill(256) },
  { name: 'B text, batch 32', heads: 12, headDim: 64, lengths: new Array(32).fill(64) },
  { name: 'B NaFlex, mixed', heads: 12, headDim: 64, lengths: [256, 32, 216, 32, 224, 16, 168, 80] },
  { name: 'So400m/14-384, batch 1', heads: 16, headDim: 72, lengths: [729] },
  { name: 'B/16-512, batch 1', heads: 12, headDim: 64, lengths: [1024] },
];

function makeArguments({ heads, headDim }, lengths, device) {
  const offsets = Int32Array.from([0, ...lengths]);
  for (let i = 1; i < offsets.length; i++) offsets[i] += offsets[i - 1];
  const shape = [offsets[lengths.length], heads, headDim];
  const tensor = (seed) => randomTensor(shape, seed, { device });
  return { query: tensor(1), key: tensor(2), value: tensor(3), queryOffsets: offsets };
}

const checks = [];
const cases = [];
const types = ['float32', 'bfloat16'];
// Weights of the softmax near the middle of two numbers are rounded to the other one.
const bounds = { bfloat16: { difference: 2e-2, cosine: 1e-5 } };
for (const [model, dtype] of models.flatMap((model) => types.map((type) => [model, type]))) {
  const lengths = model.lengths.map((length) => Math.ceil(length / scale));
  const label = `${model.name}, ${dtype}`;
  checks.push(
    await againstReference(
      label,
      model.heads * model.headDim,
      async (device) => {
        const given = { ...makeArguments(model, [37, 1, 64], device), productDtype: dtype, threads };
        const { output, logSumExp } = await attention(given);
        logSumExp.dispose();
        return output;
      },
      bounds[dtype],
    ),
  );
  const args = makeArguments(model, lengths, 'cpu');
  cases.push({
    name: label,
    shape: `${lengths.length} sequences, ${lengths.reduce((a, b) => a + b, 0)} tokens, ${model.heads} heads of ${model.headDim}`,
    operations: 4 * model.heads * model.headDim * lengths.reduce((sum, length) => sum + length ** 2, 0),
    dtype,
    kernel: () => attention({ ...args, productDtype: dtype, threads }),
  });
}
await runCases({
  name: 'attention',
  title: 'Attention',
  roof: 'arithmetic',
  checks,
  cases,
  notes: [
    'Operations are those of the two products, 4 · heads · headDim · Σ length²; the softmax is extra work without credit.',
  ],
});
