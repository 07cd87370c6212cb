/** The kernels and shapes of `siglip2 bench`: those of SigLIP 2's towers and its loss. */
import { attentionCases } from './attention-cases.js';
import type { KernelCase } from './case.js';
import { layerCases } from './layer-cases.js';
import { lossCases } from './loss-cases.js';
import { patchifyCases } from './patchify-cases.js';

/** All cases, in the order in which they run. */
export function allCases(): KernelCase[] {
  return [...attentionCases(), ...layerCases(), ...lossCases(), ...patchifyCases()];
}
