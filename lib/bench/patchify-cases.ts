import { naflexPatchify } from '../kernels/index.js';
import type { CaseSettings, KernelCase, Prepared } from './case.js';

/** Pictures in, their size, patches of 16 out. */
const shapes: [width: number, height: number, maxPatches: number, patches: number][] = [
  [1024, 768, 256, 252],
  [640, 480, 256, 252],
  [1920, 1080, 1024, 1008],
];
const batch = 256;
const patchSize = 16;

/** Decoded pictures to packed patches, Pillow's resampling to the bit. */
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
  const images = Array.from({ length: settings.batch ?? batch }, () => ({ data, width, height, channels: 3 as const }));
  const { device, dtype } = settings;
  return {
    run: async () => {
      const { patches } = await naflexPatchify(images, { patchSize, maxPatches, device, dtype });
      return { patches };
    },
    dispose: () => {},
  };
}
