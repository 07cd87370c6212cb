// Progress, a time limit, and telling errors apart by their code.
import { fileURLToPath } from 'node:url';
import { Siglip2 } from 'siglip2';

const here = (name) => fileURLToPath(new URL(`../test/fixtures/${name}`, import.meta.url));
const model = await Siglip2.load(process.argv[2] ?? here('checkpoints/naflex_hd64'));
const pictures = new Array(64).fill(here('images/13_photo_coffee_240x240.png'));

const embeddings = await model.embedImages(pictures.slice(0, 16), {
  onProgress: (done, total) => console.log(`${done} of ${total}`),
});
console.log('shape', embeddings.shape);

try {
  await model.embedImages(pictures, { maxPatches: 1024, signal: AbortSignal.timeout(20) });
  console.log('finished within the limit');
} catch (error) {
  if (error.code !== 'ERR_SIGLIP_ABORTED') throw error;
  console.log(`stopped: ${error.cause.message}`);
}
model.dispose();
