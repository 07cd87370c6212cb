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
  type WeightDType,
} from '../kernels/index.js';
import type { CaseSettings, KernelCase, Prepared } from './case.js';
import { RandomInputs } from './random.js';

const sequences = 256;
const tokensOfSequence = 256;

type Inputs = Record<string, Tensor>;
type WeightOption = { weightDtype?: WeightDType };

/** What the cases of this file share: inputs made by `make`, run by `run`. */
function prepareWith<Made extends Inputs>(
  make: (random: RandomInputs, batch: number) => Promise<Made>,
  run: (inputs: Made, batch: number, weights: WeightOption) => Promise<Record<string, Tensor>>,
  defaultBatch: number,
): (settings: CaseSettings) => Promise<Prepared> {
  return async (settings) => {
    const batch = settings.batch ?? defaultBatch;
    const inputs = await make(new RandomInputs(settings.device, settings.dtype, 7), batch);
    const { weightDtype } = settings;
    return {
      run: () => run(inputs, batch, weightDtype === undefined ? {} : { weightDtype }),
      dispose: () => {
        for (const tensor of Object.values(inputs)) tensor.dispose();
      },
    };
  };
}

/** What a layer is measured on: its rows are the batch. */
interface RowsCase<Made extends Inputs> {
  kernel: string;
  name: string;
  shape: Record<string, number | string>;
  operations(rows: number): number;
  bytes(rows: number, size: number, weightSize: number): number;
  checkRows: number;
  weightTypes?: readonly WeightDType[];
  make(random: RandomInputs, rows: number): Promise<Made>;
  run(inputs: Made, weights: WeightOption): Promise<Record<string, Tensor>>;
}

const rows = sequences * tokensOfSequence;

function rowsCase<Made extends Inputs>(each: RowsCase<Made>): KernelCase {
  const { kernel, name, shape, operations, bytes, checkRows, weightTypes, make, run } = each;
  return {
    ...(weightTypes ? { weightTypes } : {}),
    kernel,
    name,
    shape: { rows, ...shape },
    batch: rows,
    cpuBatch: 1024,
    operations,
    bytes,
    checkBatch: checkRows,
    tolerance: 0.02,
    prepare: prepareWith(make, (inputs, _, weights) => run(inputs, weights), rows),
  };
}

/** Products, layer norms, activations and pooling of a batch of 256 images of 256 tokens. */
export function layerCases(): KernelCase[] {
  return [
    linearCase('QKV, B', 768, 2304, false),
    linearCase('fc1 + GELU, B', 768, 3072, true),
    linearCase('QKV, So400m', 1152, 3456, false),
    linearCase('fc1 + GELU, So400m', 1152, 4304, true),
    linearCase('fc2, So400m', 4304, 1152, false),
    linearBackwardCase('fc1, So400m', 1152, 4304),
    layerNormCase('So400m', 1152),
    layerNormBackwardCase('So400m', 1152),
    geluCase('So400m', 4304),
    geluBackwardCase('So400m', 4304),
    mapPoolCase('So400m', 1152, 16),
    mapPoolBackwardCase('So400m', 1152, 16),
  ];
}

function linearCase(name: string, inFeatures: number, outFeatures: number, activated: boolean): KernelCase {
  const activation = activated ? 'gelu' : 'none';
  return rowsCase({
    kernel: 'linear',
    name,
    shape: { inFeatures, outFeatures, activation },
    operations: (count) => 2 * count * inFeatures * outFeatures,
    bytes: (count, size, weightSize) =>
      size * count * (inFeatures + outFeatures) + weightSize * inFeatures * outFeatures,
    checkRows: 300,
    weightTypes: ['bfloat16', 'int8'],
    make: async (random, count) => ({
      input: await random.activation([count, inFeatures]),
      weight: await random.activation([outFeatures, inFeatures], inFeatures ** -0.5),
      bias: random.parameter([outFeatures]),
    }),
    run: (inputs, weights) => linear({ ...inputs, activation, ...weights }),
  });
}

function linearBackwardCase(name: string, inFeatures: number, outFeatures: number): KernelCase {
  return rowsCase({
    kernel: 'linearBackward',
    name,
    shape: { inFeatures, outFeatures },
    operations: (count) => 4 * count * inFeatures * outFeatures,
    bytes: (count, size, weightSize) =>
      size * 2 * count * (inFeatures + outFeatures) + (weightSize + 4) * inFeatures * outFeatures,
    checkRows: 300,
    weightTypes: ['bfloat16'],
    make: async (random, count) => ({
      input: await random.activation([count, inFeatures]),
      weight: await random.activation([outFeatures, inFeatures], inFeatures ** -0.5),
      gradOutput: await random.activation([count, outFeatures]),
    }),
    run: (inputs, { weightDtype }) => linearBackward(weightDtype === 'bfloat16' ? { ...inputs, weightDtype } : inputs),
  });
}

function layerNormCase(name: string, width: number): KernelCase {
  return rowsCase({
    kernel: 'layerNorm',
    name,
    shape: { width },
    operations: (count) => 8 * count * width,
    bytes: (count, size) => 2 * size * count * width,
    checkRows: 300,
    make: async (random, count) => ({
      input: await random.activation([count, width]),
      weight: random.parameter([width]),
      bias: random.parameter([width]),
    }),
    run: (inputs) => layerNorm(inputs),
  });
}

function layerNormBackwardCase(name: string, width: number): KernelCase {
  return rowsCase({
    kernel: 'layerNormBackward',
    name,
    shape: { width },
    operations: (count) => 16 * count * width,
    bytes: (count, size) => 3 * size * count * width,
    checkRows: 300,
    make: async (random, count) => ({
      input: await random.activation([count, width]),
      weight: random.parameter([width]),
      gradOutput: await random.activation([count, width]),
    }),
    run: (inputs) => layerNormBackward(inputs),
  });
}

function geluCase(name: string, columns: number): KernelCase {
  return rowsCase({
    kernel: 'gelu',
    name,
    shape: { columns },
    operations: (count) => 10 * count * columns,
    bytes: (count, size) => 2 * size * count * columns,
    checkRows: 100,
    make: async (random, count) => ({ input: await random.activation([count, columns]) }),
    run: (inputs) => gelu(inputs),
  });
}

function geluBackwardCase(name: string, columns: number): KernelCase {
  return rowsCase({
    kernel: 'geluBackward',
    name,
    shape: { columns },
    operations: (count) => 20 * count * columns,
    bytes: (count, size) => 3 * size * count * columns,
    checkRows: 100,
    make: async (random, count) => ({
      input: await random.activation([count, columns]),
      gradOutput: await random.activation([count, columns]),
    }),
    run: (inputs) => geluBackward(inputs),
  });
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
