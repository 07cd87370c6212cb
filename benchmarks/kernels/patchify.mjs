// From decoded pixels to packed patches, resizing included: see ../README.md.
import { naflexPatchify } from 'siglip2/kernels';
import { againstReference, options, runCases, threads } from '../support/kernels.mjs';
import { picture } from '../support/random.mjs';

const scale = options.smoke ? 8 : 1;
const patchSize = 16;

const checks = [];
const cases = [];
for (const [label, count, width, height, maxPatches, mode] of [
  ['photograph of a telephone', 1, 4000, 3000, 256, 'pil'],
  ['full HD', 4, 1920, 1080, 256, 'pil'],
  ['web pictures', 16, 640, 480, 256, 'pil'],
  ['web pictures, unrounded', 16, 640, 480, 256, 'float'],
  ['web pictures, 1024 patches', 16, 640, 480, 1024, 'pil'],
  ['thumbnails, enlarged', 16, 128, 96, 256, 'pil'],
]) {
  const settings = { patchSize, maxPatches, mode };
  const small = picture(Math.ceil(width / 8), Math.ceil(height / 8), 3, 1);
  checks.push(
    await againstReference(label, 3 * patchSize * patchSize, async (device) => {
      const { patches } = await naflexPatchify([small], { ...settings, maxPatches: 64, device, threads });
      return patches;
    }),
  );
  const images = Array.from({ length: count }, (_, i) => picture(width / scale, height / scale, 3, i));
  const { patches, offsets } = await naflexPatchify(images, { ...settings, threads });
  patches.dispose();
  cases.push({
    name: label,
    shape: `${count} of ${width / scale} × ${height / scale} → ${offsets[count]} patches`,
    bytes: images.reduce((sum, { data }) => sum + data.length, 0) + offsets[count] * 3 * patchSize ** 2 * 4,
    run: async () => (await naflexPatchify(images, { ...settings, threads })).patches.dispose(),
  });
}
await runCases({
  name: 'patchify',
  title: 'NaFlex patches from pixels',
  roof: 'memory',
  checks,
  cases,
  notes: ['Bytes are the decoded pixels, read once, and the float32 patches, written once; pictures are RGB.'],
});
