import { attention, attentionBackward, type Tensor } from '../kernels/index.js';
import type { CaseSettings, KernelCase, Prepared } from './case.js';
import { RandomInputs } from './random.js';

/** Heads, head dimension and tokens of the towers, as far as they differ. */
const shapes: [name: string, heads: number, headDim: number, tokens: number][] = [
  ['text B', 12, 64, 64],
  ['text L', 16, 64, 64],
  ['text So400m', 16, 72, 64],
  ['vision B/16-224', 12, 64, 196],
  ['vision B/16-256', 12, 64, 256],
  ['vision L/16-256', 16, 64, 256],
  ['vision So400m/16-256', 16, 72, 256],
  ['vision g/16-256', 16, 96, 256],
  ['vision L/16-384', 16, 64, 576],
  ['vision So400m/16-384', 16, 72, 576],
  ['vision g/16-384', 16, 96, 576],
  ['vision So400m/14-384', 16, 72, 729],
  ['vision So400m/16-512', 16, 72, 1024],
];
const batch = 256;

const offsetsOf = (sequences: number, tokens: number): Int32Array =>
  Int32Array.from({ length: sequences + 1 }, (_, index) => index * tokens);

/** The fused attention of every tower, forward and backward, 256 sequences. */
export function attentionCases(): KernelCase[] {
  return shapes.flatMap(([name, heads, headDim, tokens]) => [
    makeCase(name, heads, headDim, tokens, false),
    makeCase(name, heads, headDim, tokens, true),
  ]);
}

function makeCase(name: string, heads: number, headDim: number, tokens: number, backward: boolean): KernelCase {
  const products = backward ? 10 : 4;
  const row = heads * headDim;
  return {
    // Beside float32 activations the operands of its products may be in bfloat16, as weights of layers may.
    weightTypes: ['bfloat16'],
    kernel: backward ? 'attentionBackward' : 'attention',
    name,
    shape: { heads, headDim, tokens, causal: false },
    batch,
    cpuBatch: 4,
    operations: (sequences) => products * sequences * tokens * tokens * row,
    // Query, key, value, output; and their gradients. The log-sum-exps, float32.
    bytes: (sequences, size) => sequences * tokens * ((backward ? 8 : 4) * row * size + 4 * heads),
    checkBatch: 2,
    // Weights and, backward, slopes are rounded to bfloat16 for the second product.
    tolerance: backward ? 0.08 : 0.05,
    prepare: (settings) => prepare(settings, heads, headDim, tokens, backward),
  };
}

async function prepare(
  settings: CaseSettings,
  heads: number,
  headDim: number,
  tokens: number,
  backward: boolean,
): Promise<Prepared> {
  const sequences = settings.batch ?? batch;
  const random = new RandomInputs(settings.device, settings.dtype, headDim * tokens);
  const shape = [sequences * tokens, heads, headDim];
  const queryOffsets = offsetsOf(sequences, tokens);
  const query = await random.activation(shape);
  const key = await random.activation(shape);
  const value = await random.activation(shape);
  const forward = { query, key, value, queryOffsets };
  const inputs = [query, key, value];
  const products = settings.weightDtype === 'bfloat16' ? { productDtype: settings.weightDtype } : {};
  if (!backward)
    return {
      run: async () => ({ ...(await attention({ ...forward, ...products })) }),
      dispose: () => dispose(inputs),
    };
  const { output, logSumExp } = await attention({ ...forward, ...products });
  const gradOutput = await random.activation(shape);
  return {
    run: async () => ({ ...(await attentionBackward({ ...forward, ...products, output, logSumExp, gradOutput })) }),
    dispose: () => dispose([...inputs, output, logSumExp, gradOutput]),
  };
}

function dispose(tensors: Tensor[]): void {
  for (const tensor of tensors) tensor.dispose();
}
