// Backward passes and the update, as far as memory traffic bounds them: see ../README.md.
import { adamw, gelu, geluBackward, layerNorm, layerNormBackward, sumOfSquares } from 'siglip2/kernels';
import { againstReference, discard, options, randomTensor, runCases, threads } from '../support/kernels.mjs';

const scale = options.smoke ? 16 : 1;
const checks = [];
const cases = [];

function normArguments(rows, width, device) {
  return {
    input: randomTensor([rows, width], 1, { device, mean: 0.3 }),
    weight: randomTensor([width], 2, { device, mean: 1, deviation: 0.1 }),
    gradOutput: randomTensor([rows, width], 3, { device }),
    threads,
  };
}

/** Checks one output of a kernel against the reference device; `run` resolves to tensors by name. */
async function check(label, name, width, run) {
  checks.push(
    await againstReference(`${label}, ${name}`, width, async (device) => {
      const outputs = await run(device);
      for (const [other, tensor] of Object.entries(outputs)) if (other !== name) tensor.dispose();
      return outputs[name];
    }),
  );
}

for (const [fullRows, width] of [
  [2048, 768],
  [5832, 1152],
]) {
  const rows = Math.ceil(fullRows / scale);
  for (const name of ['gradInput', 'gradWeight', 'gradBias'])
    await check(`layer norm backward, width ${width}`, name, width, (device) =>
      layerNormBackward(normArguments(37, width, device)),
    );
  const { gradOutput, ...forward } = normArguments(rows, width, 'cpu');
  const bias = randomTensor([width], 4, {});
  const shape = `[${rows}, ${width}]`;
  const bytes = 4 * rows * width;
  cases.push(
    {
      name: `layer norm forward, ${fullRows} rows of ${width}`,
      shape,
      bytes: 2 * bytes,
      run: () => discard(layerNorm({ ...forward, bias })),
    },
    {
      name: `layer norm backward, ${fullRows} rows of ${width}`,
      shape,
      bytes: 3 * bytes,
      run: () => discard(layerNormBackward({ ...forward, gradOutput })),
    },
  );
}

for (const [fullRows, width] of [
  [2048, 3072],
  [5832, 4304],
]) {
  const rows = Math.ceil(fullRows / scale);
  const make = (count, device) => ({
    input: randomTensor([count, width], 1, { device }),
    gradOutput: randomTensor([count, width], 2, { device }),
  });
  await check(`GELU backward, width ${width}`, 'gradInput', width, (device) =>
    geluBackward({ ...make(19, device), threads }),
  );
  const { input, gradOutput } = make(rows, 'cpu');
  const shape = `[${rows}, ${width}]`;
  const bytes = 4 * rows * width;
  cases.push(
    {
      name: `GELU forward, ${fullRows} rows of ${width}`,
      shape,
      bytes: 2 * bytes,
      run: () => discard(gelu({ input, threads })),
    },
    {
      name: `GELU backward, ${fullRows} rows of ${width}`,
      shape,
      bytes: 3 * bytes,
      run: () => discard(geluBackward({ input, gradOutput, threads })),
    },
  );
}

function parameterArguments(count, device) {
  const square = randomTensor([count], 4, { device, mean: 1, deviation: 0.1 });
  return {
    parameter: randomTensor([count], 1, { device }),
    gradient: randomTensor([count], 2, { device }),
    firstMoment: randomTensor([count], 3, { device }),
    secondMoment: square,
    step: 10,
    learningRate: 1e-3,
    weightDecay: 0.01,
    threads,
  };
}

for (const name of ['parameter', 'firstMoment', 'secondMoment'])
  await check('Adam', name, 1000, (device) => adamw(parameterArguments(1000, device)));
const count = 16_777_216 / scale ** 2;
const parameter = parameterArguments(count, 'cpu');
cases.push(
  {
    name: 'Adam, 16.8 M parameters',
    shape: `[${count}]`,
    bytes: 7 * 4 * count,
    run: () => discard(adamw(parameter)),
  },
  {
    name: 'sum of squares, 16.8 M values',
    shape: `[${count}]`,
    bytes: 4 * count,
    run: () => sumOfSquares({ values: parameter.gradient, threads }),
  },
);

await runCases({
  name: 'backward-memory',
  title: 'Backward passes and updates bound by memory',
  roof: 'memory',
  checks,
  cases,
  notes: [
    'Bytes are one reading of everything that goes in and one writing of what comes out, which is a new tensor in every call; Adam also copies what it changes, which training does not.',
  ],
});
