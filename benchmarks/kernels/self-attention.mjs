// The fused first half of a transformer block at the model's shapes: see ../README.md.
import { selfAttention } from 'siglip2/kernels';
import { againstReference, options, randomTensor, runCases, threads } from '../support/kernels.mjs';

const models = [
  { model: 'B/16-256', width: 768, heads: 12, sequences: 8, tokens: 256 },
  { model: 'B, texts', width: 768, heads: 12, sequences: 32, tokens: 64 },
  { model: 'L/16-256', width: 1024, heads: 16, sequences: 8, tokens: 256 },
  { model: 'So400m/14-384', width: 1152, heads: 16, sequences: 4, tokens: 729 },
].map((each) => ({ ...each, width: options.smoke ? 2 * each.heads : each.width }));

function makeArguments({ width, heads }, sequences, tokens, device) {
  const tensor = (shape, seed, deviation = 1) => randomTensor(shape, seed, { device, deviation });
  const rows = sequences * tokens;
  return {
    input: tensor([rows, width], 1),
    heads,
    offsets: Int32Array.from({ length: sequences + 1 }, (_, sequence) => sequence * tokens),
    norm: { weight: tensor([width], 2), bias: tensor([width], 3, 0.1) },
    queryKeyValueWeight: tensor([3 * width, width], 4, width ** -0.5),
    queryKeyValueBias: tensor([3 * width], 5, 0.1),
    outWeight: tensor([width, width], 6, width ** -0.5),
    outBias: tensor([width], 7, 0.1),
    residual: tensor([rows, width], 8),
  };
}

const checks = [];
const cases = [];
// Queries, keys, values and weights are rounded, too, and may be rounded the other way.
const bounds = { bfloat16: { difference: 5e-2, cosine: 1e-5 }, int8: { difference: 0.1, cosine: 1e-4 } };
for (const shape of models)
  for (const dtype of ['float32', 'bfloat16', 'int8']) {
    const { model, width } = shape;
    const label = `${model}, ${dtype}`;
    const run = async (device) =>
      (await selfAttention({ ...makeArguments(shape, 2, 19, device), weightDtype: dtype, threads })).output;
    checks.push(await againstReference(label, width, run, bounds[dtype]));
    const sequences = shape.sequences;
    const tokens = options.smoke ? 9 : shape.tokens;
    const args = makeArguments(shape, sequences, tokens, 'cpu');
    const rows = sequences * tokens;
    cases.push({
      name: label,
      shape: `${sequences} × ${tokens}, ${shape.heads} heads, width ${width}`,
      operations: 8 * rows * width * width + 4 * rows * tokens * width,
      dtype,
      kernel: () => selfAttention({ ...args, weightDtype: dtype, threads }),
    });
  }
await runCases({
  name: 'self-attention',
  title: 'Attention of a block',
  roof: 'arithmetic',
  checks,
  cases,
  notes: [
    'Operations are those of the four products of layers and the two of attention; layer norm, softmax, packing and the residual are extra work without credit. Weights are packed before, as when a model is loaded.',
    "In int8 attention's own products are in bfloat16, and counted against the rate of int8.",
  ],
});
