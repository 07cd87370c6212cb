// Linear layers at the model's shapes: see ../README.md.
import { linear } from 'siglip2/kernels';
import { againstReference, options, randomTensor, runCases, threads } from '../support/kernels.mjs';

const dtypes = ['float32', 'bfloat16', 'int8'];
const scale = options.smoke ? 16 : 1;
const widths = { B: [768, 3072], So400m: [1152, 4304] };
const layers = Object.entries(widths).flatMap(([model, [width, intermediate]]) => [
  { model, layer: 'query, key, value', inputs: width, outputs: 3 * width },
  { model, layer: 'attention output + residual', inputs: width, outputs: width, residual: true },
  { model, layer: 'fc1 + GELU', inputs: width, outputs: intermediate, activation: 'gelu' },
  { model, layer: 'fc2 + residual', inputs: intermediate, outputs: width, residual: true },
]);

function makeArguments({ inputs, outputs, residual, activation = 'none' }, rows, device) {
  return {
    input: randomTensor([rows, inputs], 1, { device }),
    weight: randomTensor([outputs, inputs], 2, { device, deviation: inputs ** -0.5 }),
    bias: randomTensor([outputs], 3, { device, deviation: 0.1 }),
    ...(residual ? { residual: randomTensor([rows, outputs], 4, { device }) } : {}),
    activation,
  };
}

const checks = [];
const cases = [];
// Rounding is part of the contract, so the reference device rounds as well; a value on the edge may round either way.
const bounds = { bfloat16: { difference: 2e-2, cosine: 1e-6 }, int8: { difference: 5e-2, cosine: 1e-5 } };
for (const { model, layer, inputs, outputs, residual, activation } of layers)
  for (const dtype of dtypes) {
    const shape = { inputs: inputs / scale, outputs: outputs / scale, residual, activation };
    const label = `${model} ${layer}, ${dtype}`;
    checks.push(
      await againstReference(
        label,
        shape.outputs,
        async (device) => {
          const { output } = await linear({ ...makeArguments(shape, 19, device), weightDtype: dtype, threads });
          return output;
        },
        bounds[dtype],
      ),
    );
    for (const rows of [256, 2048]) {
      const args = makeArguments(shape, rows / scale, 'cpu');
      cases.push({
        name: `${label}, ${rows} rows`,
        shape: `${rows / scale} × ${shape.inputs} → ${shape.outputs}`,
        operations: (2 * rows * shape.inputs * shape.outputs) / scale,
        dtype,
        kernel: () => linear({ ...args, weightDtype: dtype, threads }),
      });
    }
  }
await runCases({
  name: 'linear',
  title: 'Linear layers',
  roof: 'arithmetic',
  checks,
  cases,
  notes: [
    '256 rows are one picture of a B/16-256 model, 2048 rows eight. The weight is packed before, as when a model is loaded; the input is packed in every call.',
  ],
});
