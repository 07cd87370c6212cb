// The fused first half of a transformer block at the model's shapes: see ../README.md.
import { selfAttention } from 'siglip2/kernels';
import { casesOfLayers, options, randomTensor, runCases } from '../support/kernels.mjs';

const models = [
  { model: 'B/16-256', width: 768, heads: 12, sequences: 8, tokens: 256 },
  { model: 'B, texts', width: 768, heads: 12, sequences: 32, tokens: 64 },
  { model: 'L/16-256', width: 1024, heads: 16, sequences: 8, tokens: 256 },
  { model: 'So400m/14-384', width: 1152, heads: 16, sequences: 4, tokens: 729 },
].map((each) => (options.smoke ? { ...each, width: 2 * each.heads, tokens: 9 } : each));

function argumentsOf({ width, heads, ...sizes }, device, few) {
  const tensor = (shape, seed, deviation = 1) => randomTensor(shape, seed, { device, deviation });
  const { sequences, tokens } = few ? { sequences: 2, tokens: 19 } : sizes;
  return {
    input: tensor([sequences * tokens, width], 1),
    heads,
    offsets: Int32Array.from({ length: sequences + 1 }, (_, sequence) => sequence * tokens),
    norm: { weight: tensor([width], 2), bias: tensor([width], 3, 0.1) },
    queryKeyValueWeight: tensor([3 * width, width], 4, width ** -0.5),
    queryKeyValueBias: tensor([3 * width], 5, 0.1),
    outWeight: tensor([width, width], 6, width ** -0.5),
    outBias: tensor([width], 7, 0.1),
    residual: tensor([sequences * tokens, width], 8),
  };
}

const { checks, cases } = await casesOfLayers(models, selfAttention, argumentsOf, (model) => ({
  shape: `${model.sequences} × ${model.tokens}, ${model.heads} heads, width ${model.width}`,
  operations: model.sequences * model.tokens * (8 * model.width ** 2 + 4 * model.tokens * model.width),
}));
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
