// This package's preparation of pictures as a contestant; see ../peers/README.md.
import { naflexPatchify } from 'siglip2/kernels';
import { decodeImage } from '../../dist/esm/processing/decode.js';
import { answerRequests } from '../support/answer.mjs';

let options;

await answerRequests({
  async load({ patchSize, maxPatches, threads, device }) {
    options = { patchSize, maxPatches, threads, device: device ?? 'cpu', mode: 'pil' };
    return { description: `siglip2, ${options.device}` };
  },
  prepare(kind, [count, height, width], arrays) {
    if (kind === 'jpeg') return { jpeg: new Uint8Array(arrays.bytes) };
    const size = height * width * 3;
    return Array.from({ length: count }, (_, i) => ({
      data: new Uint8Array(arrays.pixels, i * size, size),
      width,
      height,
      channels: 3,
    }));
  },
  /** As raw pixels and tensors, not as `Float32Array`, which only the check needs. */
  async forward(input, { checked }) {
    if (input.jpeg !== undefined) {
      const { data } = await decodeImage(input.jpeg);
      return checked ? Float32Array.from(data) : data;
    }
    const { patches } = await naflexPatchify(input, options);
    const values = checked ? await patches.read() : undefined;
    patches.dispose();
    return values;
  },
});
