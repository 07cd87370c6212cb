import {
  gelu,
  geluBackward,
  layerNorm,
  layerNormBackward,
  linear,
  linearBackward,
  mapPool,
  mapPoolBackward,
  type Tensor,
} from '../kernels/index.js';
import type { CaseSettings, KernelCase, Prepared } from './case.js';
import { RandomInputs } from './random.js';

const sequences = 256;
const tokensOfSequence = 256;

type Inputs = Record<string, Tensor>;

/** What the cases of this file share: inputs made by `make`, run by `run`. */
function prepareWith<Made extends Inputs>(
  make: (random: RandomInputs, batch: number) => Promise<Made>,
  run: (inputs: Made, batch: number) => Promise<Record<string, Tensor>>,
  defaultBatch: number,
): (settings: CaseSettings) => Promise<Prepared> {
  return async (settings) => {
    const batch = settings.batch ?? defaultBatch;
    const inputs = await make(new RandomInputs(settings.device, settings.dtype, 7), batch);
    return {
      run: () => run(inputs, batch),
      dispose: () => {
        for (const tensor of Object.values(inputs)) tensor.dispose();
      },
    };
  };
}

/** Products, layer norms, activations and pooling of a batch of 256 images of 256 tokens. */
export function layerCases(): KernelCase[] {
  const rows = sequences * tokensOfSequence;
  return [
    linearCase('QKV, B', rows, 768, 2304, false),
    linearCase('fc1 + GELU, B', rows, 768, 3072, true),
    linearCase('QKV, So400m', rows, 1152, 3456, false),
    linearCase('fc1 + GELU, So400m', rows, 1152, 4304, true),
    linearCase('fc2, So400m', rows, 4304, 1152, false),
    linearBackwardCase('fc1, So400m', rows, 1152, 4304),
    layerNormCase('So400m', rows, 1152),
    layerNormBackwardCase('So400m', rows, 1152),
    geluCase('So400m', rows, 4304),
    geluBackwardCase('So400m', rows, 4304),
    mapPoolCase('So400m', 1152, 16),
    mapPoolBackwardCase('So400m', 1152, 16),
  ];
}

function linearCase(
  name: string,
  rows: number,
  inFeatures: number,
  outFeatures: number,
  activated: boolean,
): KernelCase {
  return {
    kernel: 'linear',
    name,
    shape: { rows, inFeatures, outFeatures, activation: activated ? 'gelu' : 'none' },
    batch: rows,
    cpuBatch: 1024,
    operations: (batch) => 2 * batch * inFeatures * outFeatures,
    bytes: (batch, size) => size * (batch * (inFeatures + outFeatures) + inFeatures * outFeatures),
    checkBatch: 300,
    tolerance: 0.02,
    prepare: prepareWith(
      async (random, batch) => ({
        input: await random.activation([batch, inFeatures]),
        weight: await random.activation([outFeatures, inFeatures], inFeatures ** -0.5),
        bias: random.parameter([outFeatures]),
      }),
      (inputs) => linear({ ...inputs, activation: activated ? 'gelu' : 'none' }),
      rows,
    ),
  };
}

function linearBackwardCase(name: string, rows: number, inFeatures: number, outFeatures: number): KernelCase {
  return {
    kernel: 'linearBackward',
    name,
    shape: { rows, inFeatures, outFeatures },
    batch: rows,
    cpuBatch: 1024,
    operations: (batch) => 4 * batch * inFeatures * outFeatures,
    bytes: (batch, size) => size * 2 * batch * (inFeatures + outFeatures) + (size + 4) * inFeatures * outFeatures,
    checkBatch: 300,
    tolerance: 0.02,
    prepare: prepareWith(
      async (random, batch) => ({
        input: await random.activation([batch, inFeatures]),
        weight: await random.activation([outFeatures, inFeatures], inFeatures ** -0.5),
        gradOutput: await random.activation([batch, outFeatures]),
      }),
      (inputs) => linearBackward(inputs),
      rows,
    ),
  };
}

function layerNormCase(name: string, rows: number, width: number): KernelCase {
  return {
    kernel: 'layerNorm',
    name,
    shape: { rows, width },
    batch: rows,
    cpuBatch: 1024,
    operations: (batch) => 8 * batch * width,
    bytes: (batch, size) => 2 * size * batch * width,
    checkBatch: 300,
    tolerance: 0.02,
    prepare: prepareWith(
      async (random, batch) => ({
        input: await random.activation([batch, width]),
        weight: random.parameter([width]),
        bias: random.parameter([width]),
      }),
      (inputs) => layerNorm(inputs),
      rows,
    ),
  };
}

function layerNormBackwardCase(name: string, rows: number, width: number): KernelCase {
  return {
    kernel: 'layerNormBackward',
    name,
    shape: { rows, width },
    batch: rows,
    cpuBatch: 1024,
    operations: (batch) => 16 * batch * width,
    bytes: (batch, size) => 3 * size * batch * width,
    checkBatch: 300,
    tolerance: 0.02,
    prepare: prepareWith(
      async (random, batch) => ({
        input: await random.activation([batch, width]),
        weight: random.parameter([width]),
        gradOutput: await random.activation([batch, width]),
      }),
      (inputs) => layerNormBackward(inputs),
      rows,
    ),
  };
}

function geluCase(name: string, rows: number, columns: number): KernelCase {
  return {
    kernel: 'gelu',
    name,
    shape: { rows, columns },
    batch: rows,
    cpuBatch: 1024,
    operations: (batch) => 10 * batch * columns,
    bytes: (batch, size) => 2 * size * batch * columns,
    checkBatch: 100,
    tolerance: 0.02,
    prepare: prepareWith(
      async (random, batch) => ({ input: await random.activation([batch, columns]) }),
      (inputs) => gelu(inputs),
      rows,
    ),
  };
}

function geluBackwardCase(name: string, rows: number, columns: number): KernelCase {
  return {
    kernel: 'geluBackward',
    name,
    shape: { rows, columns },
    batch: rows,
    cpuBatch: 1024,
    operations: (batch) => 20 * batch * columns,
    bytes: (batch, size) => 3 * size * batch * columns,
    checkBatch: 100,
    tolerance: 0.02,
    prepare: prepareWith(
      async (random, batch) => ({
        input: await random.activation([batch, columns]),
        gradOutput: await random.activation([batch, columns]),
      }),
      (inputs) => geluBackward(inputs),
      rows,
    ),
  };
}

const offsetsOf = (batch: number): Int32Array =>
  Int32Array.from({ length: batch + 1 }, (_, index) => index * tokensOfSequence);

async function poolingInputs(random: RandomInputs, batch: number, width: number, heads: number) {
  return {
    tokens: await random.activation([batch * tokensOfSequence, width]),
    probeKeys: random.parameter([heads, width], width ** -0.5),
    valueWeight: random.parameter([width, width], width ** -0.5),
  };
}

function mapPoolCase(name: string, width: number, heads: number): KernelCase {
  return {
    kernel: 'mapPool',
    name,
    shape: { tokens: tokensOfSequence, width, heads },
    batch: sequences,
    cpuBatch: 8,
    operations: (batch) => 4 * batch * tokensOfSequence * width * heads + 2 * batch * width * width,
    bytes: (batch, size) => size * batch * tokensOfSequence * width,
    checkBatch: 2,
    tolerance: 0.02,
    prepare: prepareWith(
      async (random, batch) => ({
        ...(await poolingInputs(random, batch, width, heads)),
        valueBias: random.parameter([width]),
      }),
      (inputs, batch) => mapPool({ ...inputs, offsets: offsetsOf(batch) }),
      sequences,
    ),
  };
}

function mapPoolBackwardCase(name: string, width: number, heads: number): KernelCase {
  return {
    kernel: 'mapPoolBackward',
    name,
    shape: { tokens: tokensOfSequence, width, heads },
    batch: sequences,
    cpuBatch: 8,
    operations: (batch) => 10 * batch * tokensOfSequence * width * heads + 4 * batch * width * width,
    bytes: (batch, size) => 2 * size * batch * tokensOfSequence * width,
    checkBatch: 2,
    tolerance: 0.03,
    prepare: prepareWith(
      async (random, batch) => ({
        ...(await poolingInputs(random, batch, width, heads)),
        gradOutput: await random.activation([batch, width]),
      }),
      (inputs, batch) => mapPoolBackward({ ...inputs, offsets: offsetsOf(batch) }),
      sequences,
    ),
  };
}
