import { expect, it, vi } from 'vitest';
import loader from '../../lib/native-loader.cjs';
import { decodeImage } from '../../lib/processing/decode.js';

it('raw pixels need no sharp; an encoded picture says that it is missing', async () => {
  const require = vi.spyOn(loader, 'requirePackage').mockImplementation(() => {
    throw new Error('Could not load the "sharp" module using the linux-x64 runtime');
  });
  const image = await decodeImage({ data: Uint8Array.of(7, 200), width: 1, height: 1, channels: 2 });
  expect([...image.data]).toEqual([7, 7, 7]);
  await expect(decodeImage(Buffer.from('\x89PNG\r\n\x1a\n', 'latin1'))).rejects.toMatchObject({
    code: 'ERR_SIGLIP_UNSUPPORTED',
    message: expect.stringContaining('"sharp"'),
    cause: expect.anything(),
  });
  expect(require).toHaveBeenCalledExactlyOnceWith('sharp');
});
