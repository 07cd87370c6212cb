/** What gradients are after a batch that the native core has refused. */
import { expect, it, vi } from 'vitest';
import { native, type TrainerHandle } from '../../lib/native.js';
import { expectSiglipError } from '../support/errors.js';
import { madeUpBatch, tinyTrainer } from '../support/training.js';

it('the token table has none, whatever ids came before the one that is refused', async () => {
  const addon = native();
  const create = vi.spyOn(addon, 'createTrainer');
  using trainer = await tinyTrainer();
  const handle = (await create.mock.results[0]!.value) as TrainerHandle;
  const { patchSize } = trainer.model.config.vision;
  const batch = {
    images: { kind: 'patches', patches: new Float32Array(3 * patchSize ** 2), spatialShapes: Int32Array.of(1, 1) },
    inputIds: Int32Array.of(1, 2, 3, -1),
    length: 4,
  } as const;
  const gradients = async (): Promise<Uint8Array> =>
    addon.readParameter(handle, 'text_model.embeddings.token_embedding.weight', 'gradient', 'F32');
  const refused = () =>
    addon.trainerGradients(handle, batch, { microBatch: 0, checkpointing: false }, addon.createCancelToken());

  await expectSiglipError(refused, 'ERR_SIGLIP_SHAPE', 'inputIds');
  expect((await gradients()).some((byte) => byte !== 0)).toBe(false);
  await trainer.gradients(madeUpBatch(trainer, 2));
  expect((await gradients()).some((byte) => byte !== 0)).toBe(true);
  await expectSiglipError(refused, 'ERR_SIGLIP_SHAPE', 'inputIds');
  expect((await gradients()).some((byte) => byte !== 0)).toBe(false);
});
