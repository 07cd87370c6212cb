/** The emulated GPU's memory is finite: what does not fit is refused before any work starts, as on a card. */
import { afterEach, describe, expect, it } from 'vitest';
import { Siglip2 } from '../../lib/index.js';
import { devices } from '../../lib/kernels/index.js';
import { native } from '../../lib/native.js';
import { expectSiglipError } from '../support/errors.js';
import { checkpointFolder } from '../support/golden.js';
import { madeUpBatch, tinyTrainer } from '../support/training.js';

const control = (command: string) => native().simtControl(command);
const whole = 2 ** 33;
const facts = () =>
  devices().find(({ name }) => name === 'simt')?.facts as NonNullable<ReturnType<typeof devices>[0]['facts']>;
const launches = () => Number(/^launches (\d+)$/m.exec(control('statistics'))?.[1]);
/** Leaves so many bytes free. */
const leave = (bytes: number) => control(`memory-limit ${facts().memoryBytes - facts().freeBytes + bytes}`);

async function expectRefusal(action: () => unknown): Promise<void> {
  const before = launches();
  const { freeBytes: free } = facts();
  const { details } = await expectSiglipError(action, 'ERR_SIGLIP_OUT_OF_MEMORY');
  const { requestedBytes, freeBytes } = details as { requestedBytes: number; freeBytes: number };
  expect(freeBytes).toBeLessThanOrEqual(facts().memoryBytes);
  expect(requestedBytes).toBeGreaterThan(freeBytes);
  expect(launches()).toBe(before);
  expect(facts().freeBytes).toBeGreaterThanOrEqual(free);
}

afterEach(() => {
  control(`memory-limit ${whole}`);
});

describe('on an emulated GPU with little memory', () => {
  it('inspect knows how much there is', () => {
    control(`memory-limit ${2 ** 30}`);
    expect(facts().memoryBytes).toBe(2 ** 30);
    expect(facts().freeBytes).toBeLessThanOrEqual(2 ** 30);
  });

  it.each(['float32', 'bfloat16'] as const)('a trainer that does not fit is refused, %s', async (dtype) => {
    control(`memory-limit ${whole}`);
    leave(2 ** 20);
    await expectRefusal(() => tinyTrainer({ device: 'simt', dtype }));
  });

  it('a batch that does not fit is refused, in training and inference, and a smaller one runs', async () => {
    using trainer = await tinyTrainer({ device: 'simt', dtype: 'bfloat16' });
    await trainer.gradients(madeUpBatch(trainer, 1));
    const few = await trainer.memory({ examples: 1, maxPatches: 16 });
    const many = await trainer.memory({ examples: 300, maxPatches: 16 });
    const spare = 4 * few.activationBytes;
    expect(many.activationBytes).toBeGreaterThan(2 * spare);
    leave(spare);
    await expectRefusal(() => trainer.gradients(madeUpBatch(trainer, 300)));
    await trainer.gradients(madeUpBatch(trainer, 1));

    control(`memory-limit ${whole}`);
    using model = await Siglip2.load(checkpointFolder('naflex_hd96'), { device: 'simt' });
    const pictures = (count: number) =>
      Array.from({ length: count }, () => ({
        data: new Uint8Array(48).fill(90),
        width: 4,
        height: 4,
        channels: 3 as const,
      }));
    leave(2 ** 21);
    await expectRefusal(() => model.embedImages(pictures(100), { maxPatches: 64, batchSize: 100 }));
  });
});
