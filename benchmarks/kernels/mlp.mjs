// The fused MLP of a transformer block at the model's shapes: see ../README.md.
import { mlp } from 'siglip2/kernels';
import { againstReference, options, randomTensor, runCases, threads } from '../support/kernels.mjs';

const scale = options.smoke ? 16 : 1;
const models = [
  { model: 'B', width: 768, intermediate: 3072 },
  { model: 'L', width: 1024, intermediate: 4096 },
  { model: 'So400m', width: 1152, intermediate: 4304 },
].map(({ model, width, intermediate }) => ({ model, width: width / scale, intermediate: intermediate / scale }));

function makeArguments({ width, intermediate }, rows, device) {
  const tensor = (shape, seed, deviation = 1) => randomTensor(shape, seed, { device, deviation });
  return {
    input: tensor([rows, width], 1),
    norm: { weight: tensor([width], 2), bias: tensor([width], 3, 0.1) },
    fc1Weight: tensor([intermediate, width], 4, width ** -0.5),
    fc1Bias: tensor([intermediate], 5, 0.1),
    fc2Weight: tensor([width, intermediate], 6, intermediate ** -0.5),
    fc2Bias: tensor([width], 7, 0.1),
    residual: tensor([rows, width], 8),
  };
}

const checks = [];
const cases = [];
// Hidden activations are rounded, too, and may be rounded the other way.
const bounds = { bfloat16: { difference: 5e-2, cosine: 1e-5 }, int8: { difference: 0.1, cosine: 1e-4 } };
for (const shape of models)
  for (const dtype of ['float32', 'bfloat16', 'int8']) {
    const label = `${shape.model}, ${dtype}`;
    const run = async (device) =>
      (await mlp({ ...makeArguments(shape, 19, device), weightDtype: dtype, threads })).output;
    checks.push(await againstReference(label, shape.width, run, bounds[dtype]));
    const rows = 2048 / scale;
    const args = makeArguments(shape, rows, 'cpu');
    cases.push({
      name: label,
      shape: `${rows} × ${shape.width} → ${shape.intermediate} → ${shape.width}`,
      operations: 4 * rows * shape.width * shape.intermediate,
      dtype,
      kernel: () => mlp({ ...args, weightDtype: dtype, threads }),
    });
  }
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
