/** Checkpoint files that are not what they were, or never were what they should be. */
import { execFileSync } from 'node:child_process';
import { copyFileSync, cpSync, renameSync, statSync, truncateSync, unlinkSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { Siglip2 } from '../../lib/index.js';
import { native } from '../../lib/native.js';
import { expectSiglipError } from '../support/errors.js';
import { temporaryFolder } from '../support/folders.js';
import { checkpointFolder } from '../support/golden.js';
import { textInput, visionInput } from '../support/inputs.js';

function copiedModel(): { folder: string; weights: string } {
  const folder = `${temporaryFolder()}/model`;
  cpSync(checkpointFolder('naflex_hd64'), folder, { recursive: true });
  return { folder, weights: path.join(folder, 'model.safetensors') };
}

describe('a checkpoint file in use', () => {
  it('that is cut short gives an error, not the end of the process', async () => {
    const { folder, weights } = copiedModel();
    using model = await Siglip2.load(folder);
    const texts = textInput(model.config, [1, 2]);
    const image = visionInput(model.config, [1]);
    const expected = await model.vision.forward(image);
    truncateSync(weights, 4096);
    await expectSiglipError(() => model.text.forward(...texts), 'ERR_SIGLIP_CHECKPOINT', weights, 'cut to 4096 bytes');
    await expectSiglipError(() => model.save(`${folder}/saved`), 'ERR_SIGLIP_CHECKPOINT', weights);
    // Packed weights are in memory.
    expect(await model.vision.forward(image)).toEqual(expected);
  });

  it('may be renamed, deleted and replaced', async () => {
    const { folder, weights } = copiedModel();
    using model = await Siglip2.load(folder);
    const texts = textInput(model.config, [1, 2]);
    const expected = await model.text.forward(...texts);
    renameSync(weights, `${weights}.old`);
    copyFileSync(path.join(folder, 'config.json'), weights);
    unlinkSync(`${weights}.old`);
    expect(await model.text.forward(...texts)).toEqual(expected);
  });
});

describe('openCheckpoint', () => {
  const entry = (begin: number, end: number, shape = [(end - begin) / 4]) => ({
    name: 'x',
    dtype: 'F32',
    shape,
    begin,
    end,
  });
  const file = path.join(checkpointFolder('naflex_hd64'), 'model.safetensors');
  const size = statSync(file).size;
  const open = (name: string, ...tensors: ReturnType<typeof entry>[]) =>
    native().openCheckpoint([{ path: name, tensors }]);

  it.each([
    ['beyond the end', [entry(size - 4, size + 4)]],
    ['far beyond the end', [entry(2 ** 52, 2 ** 52 + 8)]],
    ['from before the start', [entry(-8, 0)]],
    ['backwards', [entry(8, 0, [2])]],
    ['of another size than the shape', [entry(0, 8, [3])]],
    ['of a shape that overflows', [entry(0, 0, [2 ** 32, 2 ** 32])]],
    ['of a shape with a negative size', [entry(0, 4, [-1])]],
    ['given twice', [entry(0, 4), entry(4, 8)]],
  ])('refuses a range %s', async (_, tensors) => {
    await expectSiglipError(() => open(file, ...tensors), 'ERR_SIGLIP_CHECKPOINT', file);
  });

  it('refuses what is no file, or not there', async () => {
    const folder = temporaryFolder({ empty: '' });
    const pipe = path.join(folder, 'pipe');
    execFileSync('mkfifo', [pipe]);
    await expectSiglipError(() => open(folder, entry(0, 4)), 'ERR_SIGLIP_CHECKPOINT', 'regular file');
    await expectSiglipError(() => open(pipe, entry(0, 4)), 'ERR_SIGLIP_CHECKPOINT', 'regular file');
    await expectSiglipError(
      () => open(path.join(folder, 'none'), entry(0, 4)),
      'ERR_SIGLIP_CHECKPOINT',
      'No such file',
    );
    await expectSiglipError(
      () => open(path.join(folder, 'empty'), entry(0, 4)),
      'ERR_SIGLIP_CHECKPOINT',
      'the file has 0',
    );
  });

  it('reads tensors without elements, even of an empty file', async () => {
    const folder = temporaryFolder({ empty: '' });
    const checkpoint = open(path.join(folder, 'empty'), entry(0, 0, [0, 4]));
    expect(await native().readTensor(checkpoint, 'x', 'F32')).toEqual(new Uint8Array(0));
  });
});
