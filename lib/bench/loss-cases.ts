import { l2Normalize, type SigmoidLossArguments, sigmoidLoss, type Tensor } from '../kernels/index.js';
import type { CaseSettings, KernelCase, Prepared } from './case.js';
import { RandomInputs } from './random.js';

/** Pairs and width; 32,768 is the batch that SigLIP 2 was trained with. */
const shapes: [pairs: number, width: number][] = [
  [4096, 1152],
  [16_384, 1152],
  [32_768, 768],
  [32_768, 1152],
];

/** The sigmoid loss with all gradients. */
export function lossCases(): KernelCase[] {
  return shapes.map(([pairs, width]) => ({
    kernel: 'sigmoidLoss',
    name: `${pairs} pairs`,
    shape: { pairs, width, gradients: true },
    batch: pairs,
    cpuBatch: 1024,
    operations: (batch) => 6 * batch * batch * width,
    // Both embeddings in, both gradients out, float32.
    bytes: (batch, size) => 2 * batch * width * (size + 4),
    checkBatch: 192,
    tolerance: 0.02,
    prepare: (settings) => prepare(settings, pairs, width),
  }));
}

async function prepare(settings: CaseSettings, pairs: number, width: number): Promise<Prepared> {
  const batch = settings.batch ?? pairs;
  const random = new RandomInputs(settings.device, settings.dtype, width);
  const images = await unitRows(random, batch, width);
  const texts = await unitRows(random, batch, width);
  const args: SigmoidLossArguments = { images, texts, logitScale: Math.log(10), logitBias: -10, gradients: true };
  return {
    run: async () => ({ ...(await sigmoidLoss(args)) }),
    dispose: () => {
      images.dispose();
      texts.dispose();
    },
  };
}

async function unitRows(random: RandomInputs, rows: number, width: number): Promise<Tensor> {
  const values = random.parameter([rows, width]);
  const { output } = await l2Normalize({ input: values });
  values.dispose();
  return random.toActivation(output);
}
