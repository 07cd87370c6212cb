// Training steps of this package as a contestant; see ../peers/README.md.
import { Siglip2 } from 'siglip2';
import { Trainer } from 'siglip2/training';
import { answerRequests } from '../support/answer.mjs';

let trainer;

/** Loss, global norm of the gradients, and some gradients one after the other. */
async function gradients(batch, parameters) {
  const { loss, gradients: all } = await trainer.gradients(batch);
  let square = 0;
  for (const { data } of all.values()) for (const value of data) square += value * value;
  return Float32Array.from([loss, Math.sqrt(square), ...parameters.flatMap((name) => [...all.get(name).data])]);
}

await answerRequests({
  async load({ checkpoint, threads, device = 'cpu', dtype = 'float32', optimizer, microBatchSize, checkpointing }) {
    const model = await Siglip2.load(checkpoint, { threads, device, dtype });
    const { learningRate, weightDecay, betas, epsilon, clipNorm } = optimizer;
    trainer = await Trainer.create(model, {
      threads,
      device,
      dtype,
      optimizer: { name: 'adam', learningRate, weightDecay, betas, epsilon, clipNorm },
      ...(microBatchSize === undefined ? {} : { microBatchSize }),
      checkpointing: checkpointing ?? false,
    });
    model.dispose();
    return { description: `siglip2, ${trainer.model.device}, ${trainer.model.dtype}` };
  },
  prepare(_kind, shape, { inputIds, ...arrays }) {
    const images =
      arrays.pixelValues === undefined
        ? {
            patches: new Float32Array(arrays.patches),
            shape,
            mask: new Int32Array(arrays.mask),
            spatialShapes: new Int32Array(arrays.spatialShapes),
          }
        : { pixelValues: new Float32Array(arrays.pixelValues), shape };
    const ids = new Int32Array(inputIds);
    return { images, texts: { inputIds: ids, shape: [shape[0], ids.length / shape[0]] } };
  },
  async forward(batch, { part, parameters }) {
    if (part === 'gradients') return gradients(batch, parameters);
    if (part === 'plan') {
      const { activationBytes, totalBytes } = await trainer.memory({ examples: batch.texts.shape[0] });
      return Float32Array.of(activationBytes, totalBytes);
    }
    if (part === 'step') {
      const { loss, gradNorm, updated } = await trainer.step(batch);
      if (!updated) throw new Error('the step has changed nothing');
      return Float32Array.of(loss, gradNorm);
    }
    await trainer.model.vision.forward(batch.images);
    return (await trainer.model.text.forward(batch.texts.inputIds, batch.texts.shape)).pooled.data;
  },
});
