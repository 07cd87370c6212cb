// The sigmoid loss of this package as a contestant; see ../peers/README.md.
import { sigmoidLoss, Tensor } from 'siglip2/kernels';
import { answerRequests } from '../support/answer.mjs';

let threads;
let device;

await answerRequests({
  async load(settings) {
    ({ threads, device = 'cpu' } = settings);
    return { description: `siglip2, ${device}, float32` };
  },
  prepare(_kind, shape, arrays) {
    const tensor = (bytes) => Tensor.from(new Float32Array(bytes), shape, { device });
    return {
      images: tensor(arrays.images),
      texts: tensor(arrays.texts),
      logitScale: Math.log(100),
      logitBias: -12,
      gradients: true,
      threads,
    };
  },
  async forward(input, { part }) {
    const result = await sigmoidLoss(input);
    const { gradImages, gradTexts } = result;
    let values;
    if (part === 'values') {
      const [images, texts] = [await gradImages.read(), await gradTexts.read()];
      values = new Float32Array(3 + 2 * images.length);
      values.set([result.loss, result.gradLogitScale, result.gradLogitBias]);
      values.set(images, 3);
      values.set(texts, 3 + images.length);
    }
    gradImages.dispose();
    gradTexts.dispose();
    return values;
  },
});
