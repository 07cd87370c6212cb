// The fused MLP of a transformer block at the model's shapes: see ../README.md.
import { mlp } from 'siglip2/kernels';
import { casesOfLayers, options, randomTensor, runCases } from '../support/kernels.mjs';

const scale = options.smoke ? 16 : 1;
const models = [
  { model: 'B', width: 768, intermediate: 3072 },
  { model: 'L', width: 1024, intermediate: 4096 },
  { model: 'So400m', width: 1152, intermediate: 4304 },
].map(({ model, width, intermediate }) => ({ model, width: width / scale, intermediate: intermediate / scale }));

const rows = 2048 / scale;

function argumentsOf({ width, intermediate }, device, few) {
  const tensor = (shape, seed, deviation = 1) => randomTensor(shape, seed, { device, deviation });
  const count = few ? 19 : rows;
  return {
    input: tensor([count, width], 1),
    norm: { weight: tensor([width], 2), bias: tensor([width], 3, 0.1) },
    fc1Weight: tensor([intermediate, width], 4, width ** -0.5),
    fc1Bias: tensor([intermediate], 5, 0.1),
    fc2Weight: tensor([width, intermediate], 6, intermediate ** -0.5),
    fc2Bias: tensor([width], 7, 0.1),
    residual: tensor([count, width], 8),
  };
}

const { checks, cases } = await casesOfLayers(models, mlp, argumentsOf, ({ width, intermediate }) => ({
  shape: `${rows} × ${width} → ${intermediate} → ${width}`,
  operations: 4 * rows * width * intermediate,
}));
await runCases({
  name: 'mlp',
  title: 'MLP of a block',
  roof: 'arithmetic',
  checks,
  cases,
  notes: [
    'Operations are those of the two products; layer norm, GELU, packing and the residual are extra work without credit. Weights are packed before, as when a model is loaded.',
  ],
});
