import { naflexPatchify, Tensor } from '../kernels/index.js';
import type { CaseSettings, KernelCase, Prepared } from './case.js';

/** Pictures in, their size, patches of 16 out. */
const shapes: [width: number, height: number, maxPatches: number, patches: number][] = [
  [1024, 768, 256, 252],
  [640, 480, 256, 252],
  [1920, 1080, 1024, 1008],
];
const batch = 256;
const patchSize = 16;

/** Decoded pictures, on the device already, to packed patches, Pillow's resampling to the bit. */
export function patchifyCases(): KernelCase[] {
  return shapes.map(([width, height, maxPatches, patches]) => ({
    kernel: 'naflexPatchify',
    name: `${width}×${height} → ${maxPatches} patches`,
    shape: { width, height, maxPatches, patchSize, mode: 'pil' },
    batch,
    cpuBatch: 8,
    operations: () => 0,
    bytes: (batch, size) => batch * (3 * width * height + size * patches * 3 * patchSize * patchSize),
    checkBatch: 1,
    tolerance: 0.01,
    prepare: (settings) => prepare(settings, width, height, maxPatches),
  }));
}

async function prepare(settings: CaseSettings, width: number, height: number, maxPatches: number): Promise<Prepared> {
  // A gradient under noise, so that neighbours are alike as in photographs.
  const data = new Uint8Array(3 * width * height);
  let state = 1;
  for (let i = 0; i < data.length; i++) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    data[i] = ((i / 3 / width) % 192) + (state >>> 26);
  }
  const { device, dtype } = settings;
  // Each in memory of its own, so that none is read from a cache.
  const images = Array.from({ length: settings.batch ?? batch }, () => ({
    data: Tensor.from(data, [height, width, 3], { device }),
  }));
  return {
    run: async () => {
      const { patches } = await naflexPatchify(images, { patchSize, maxPatches, device, dtype });
      return { patches };
    },
    dispose: () => {
      for (const image of images) image.data.dispose();
    },
  };
}
