import { expect, it, vi } from 'vitest';
import { decodeImage } from '../../lib/processing/decode.js';

vi.mock('sharp', () => {
  throw new Error('Could not load the "sharp" module using the linux-x64 runtime');
});

it('raw pixels need no sharp; an encoded picture says that it is missing', async () => {
  const image = await decodeImage({ data: Uint8Array.of(7, 200), width: 1, height: 1, channels: 2 });
  expect([...image.data]).toEqual([7, 7, 7]);
  await expect(decodeImage(Buffer.from('\x89PNG\r\n\x1a\n', 'latin1'))).rejects.toMatchObject({
    code: 'ERR_SIGLIP_UNSUPPORTED',
    message: expect.stringContaining('"sharp"'),
    cause: expect.anything(),
  });
});
