// Backward passes bound by arithmetic, beside their forward passes: see ../README.md.
import { attention, attentionBackward, linear, linearBackward } from 'siglip2/kernels';
import { againstReference, options, randomTensor, runCases, threads } from '../support/kernels.mjs';

const scale = options.smoke ? 16 : 1;
const checks = [];
const cases = [];

/** Checks every output of a kernel against the reference device; `run` resolves to tensors by name. */
async function checkAll(label, names, width, run, bounds) {
  for (const name of names)
    checks.push(
      await againstReference(
        `${label}, ${name}`,
        width[name],
        async (device) => {
          const outputs = await run(device);
          for (const [other, tensor] of Object.entries(outputs)) if (other !== name) tensor.dispose();
          return outputs[name];
        },
        bounds,
      ),
    );
}

const layers = [
  { name: 'B fc1', inputs: 768, outputs: 3072 },
  { name: 'B fc2', inputs: 3072, outputs: 768 },
  { name: 'So400m fc1', inputs: 1152, outputs: 4304 },
  { name: 'So400m fc2', inputs: 4304, outputs: 1152 },
];

function layerArguments(rows, inputs, outputs, device) {
  return {
    input: randomTensor([rows, inputs], 1, { device }),
    weight: randomTensor([outputs, inputs], 2, { device, deviation: inputs ** -0.5 }),
    gradOutput: randomTensor([rows, outputs], 3, { device }),
  };
}

for (const { name, ...layer } of layers) {
  const [inputs, outputs] = [layer.inputs / scale, layer.outputs / scale];
  await checkAll(
    `${name} backward`,
    ['gradInput', 'gradWeight', 'gradBias'],
    { gradInput: inputs, gradWeight: inputs, gradBias: outputs },
    (device) => linearBackward({ ...layerArguments(19, inputs, outputs, device), threads }),
  );
  for (const fullRows of [512, 2048]) {
    const rows = fullRows / scale;
    const { input, weight, gradOutput } = layerArguments(rows, inputs, outputs, 'cpu');
    const work = 2 * rows * inputs * outputs;
    const shape = `${rows} × ${inputs} → ${outputs}`;
    cases.push(
      {
        name: `${name}, forward, ${fullRows} rows`,
        shape,
        operations: work,
        kernel: () => linear({ input, weight, threads }),
      },
      {
        name: `${name}, backward, ${fullRows} rows`,
        shape,
        operations: 2 * work,
        kernel: () => linearBackward({ input, weight, gradOutput, threads }),
      },
    );
  }
}

const models = [
  { name: 'B attention', heads: 12, headDim: 64, length: 256, sequences: 8 },
  { name: 'B text attention', heads: 12, headDim: 64, length: 64, sequences: 32 },
  { name: 'So400m attention', heads: 16, headDim: 72, length: 729, sequences: 2 },
];

async function attentionArguments({ heads, headDim }, lengths, device, productDtype) {
  const offsets = Int32Array.from([0, ...lengths]);
  for (let i = 1; i < offsets.length; i++) offsets[i] += offsets[i - 1];
  const tensor = (seed) => randomTensor([offsets[lengths.length], heads, headDim], seed, { device });
  const args = { query: tensor(1), key: tensor(2), value: tensor(3), queryOffsets: offsets, productDtype, threads };
  return { args, backwardArgs: { ...args, ...(await attention(args)), gradOutput: tensor(4) } };
}

// Weights of the softmax and slopes of scores near the middle of two numbers are rounded to the other one.
const bounds = { bfloat16: { difference: 2e-2, cosine: 1e-5 } };
for (const [model, dtype] of models.flatMap((model) => ['float32', 'bfloat16'].map((type) => [model, type]))) {
  const width = model.heads * model.headDim;
  const label = dtype === 'float32' ? model.name : `${model.name}, ${dtype}`;
  await checkAll(
    `${label} backward`,
    ['gradQuery', 'gradKey', 'gradValue'],
    { gradQuery: width, gradKey: width, gradValue: width },
    async (device) => attentionBackward((await attentionArguments(model, [37, 2, 64], device, dtype)).backwardArgs),
    bounds[dtype],
  );
  const length = Math.ceil(model.length / scale);
  const lengths = new Array(model.sequences).fill(length);
  const { args, backwardArgs } = await attentionArguments(model, lengths, 'cpu', dtype);
  const work = 4 * width * model.sequences * length ** 2;
  const shape = `${model.sequences} × ${length} tokens, ${model.heads} heads of ${model.headDim}`;
  cases.push(
    { name: `${label} forward`, shape, operations: work, dtype, kernel: () => attention(args) },
    { name: `${label} backward`, shape, operations: 2 * work, dtype, kernel: () => attentionBackward(backwardArgs) },
  );
}

await runCases({
  name: 'backward',
  title: 'Backward passes of linear layers and attention',
  roof: 'arithmetic',
  checks,
  cases,
  notes: [
    'Backward passes have the credit of twice the forward operations: two products for a linear layer (gradients of weight and input), four for attention, which computes a fifth one again without credit, and exponentials.',
    'The weight is packed before, forward or transposed, which training does once a step.',
  ],
});
