// Linear layers at the model's shapes: see ../README.md.
import { linear } from 'siglip2/kernels';
import { againstReference, discard, options, randomTensor, runCases, threads } from '../support/kernels.mjs';

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
for (const { model, layer, inputs, outputs, residual, activation } of layers) {
  const shape = { inputs: inputs / scale, outputs: outputs / scale, residual, activation };
  const label = `${model} ${layer}`;
  checks.push(
    await againstReference(label, shape.outputs, async (device) => {
      const { output } = await linear({ ...makeArguments(shape, 19, device), threads });
      return output;
    }),
  );
  for (const rows of [256, 2048]) {
    const args = makeArguments(shape, rows / scale, 'cpu');
    cases.push({
      name: `${label}, ${rows} rows`,
      shape: `${rows / scale} × ${shape.inputs} → ${shape.outputs}`,
      operations: (2 * rows * shape.inputs * shape.outputs) / scale,
      run: () => discard(linear({ ...args, threads })),
      ...(rows === 2048 ? { less: `${label}, 256 rows` } : {}),
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
    '256 rows are one picture of a B/16-256 model, 2048 rows eight.',
    'A call by itself packs its weight first, which a model does once, when it is loaded. The last column takes the time of 256 rows from that of 2048: the layer without packing.',
  ],
});
