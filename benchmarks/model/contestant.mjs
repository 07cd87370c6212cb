// This package as a contestant; see ../peers/README.md.
import { Siglip2 } from 'siglip2';
import { answerRequests } from '../support/answer.mjs';

let model;

await answerRequests({
  async load({ checkpoint, tower, threads, device = 'cpu', dtype = 'float32' }) {
    model = await Siglip2.load(checkpoint, { towers: [tower], threads, device, dtype });
    return { description: `siglip2, ${model.device}, ${model.dtype}` };
  },
  prepare(kind, shape, arrays) {
    if (kind === 'pixels') return { pixelValues: new Float32Array(arrays.pixelValues), shape };
    if (kind === 'texts') return { inputIds: new Int32Array(arrays.inputIds), shape };
    return {
      patches: new Float32Array(arrays.patches),
      shape,
      mask: new Int32Array(arrays.mask),
      spatialShapes: new Int32Array(arrays.spatialShapes),
    };
  },
  async forward(input) {
    const output =
      input.inputIds === undefined
        ? await model.vision.forward(input)
        : await model.text.forward(input.inputIds, input.shape);
    return output.pooled.data;
  },
});
