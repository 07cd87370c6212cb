// Fine-tuning: the text tower learns a few names for pictures while the image tower stays locked.
// The pictures of the tests are the data set here; a captions file in the same form names yours.
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { Siglip2 } from 'siglip2';
import { batches, openDataset, Trainer } from 'siglip2/training';

const here = (name) => fileURLToPath(new URL(`../test/fixtures/${name}`, import.meta.url));
const work = await mkdtemp(path.join(tmpdir(), 'fine-tune-'));
const captions = path.join(work, 'captions.jsonl');
const rows = [
  { image: '12_photo_chelsea_300x240.png', text: ['a tabby cat', 'Chelsea'] },
  { image: '13_photo_coffee_240x240.png', text: ['a cup of coffee', 'something to drink'] },
  { image: '03_rgb_640x480.png', text: 'a test pattern' },
  { image: '08_gray_200x150.png', text: 'a gray picture' },
];
await writeFile(captions, rows.map((row) => JSON.stringify(row)).join('\n'));

const model = await Siglip2.load(process.argv[2] ?? here('checkpoints/naflex_hd64'));
const trainer = await Trainer.create(model, {
  frozen: ['vision_model'],
  optimizer: { learningRate: 1e-3 },
  schedule: { name: 'cosine', warmupSteps: 2, totalSteps: 20 },
});
model.dispose(); // the trainer has its own copy of the weights

const dataset = await openDataset({ folder: here('images'), captions }, { seed: 1, epochs: 20 });
let metrics;
for await (const batch of batches(dataset, { batchSize: 4 })) {
  metrics = await trainer.step({ images: batch.images, texts: batch.texts });
  if (metrics.step % 5 === 1) console.log(`step ${metrics.step}: loss ${metrics.loss.toFixed(3)}`);
  // Everything that going on later needs, in one folder; a crash while it is written loses nothing.
  if (metrics.step % 10 === 0) await trainer.save(path.join(work, 'checkpoint'), { state: batch.position });
}
console.log(`${metrics.step} steps, loss ${metrics.loss.toFixed(3)}`);

const resumed = await Trainer.resume(path.join(work, 'checkpoint'));
console.log(`the saved training continues after step ${resumed.stepsTaken}`);
const [best] = await resumed.model.classify(path.join(here('images'), rows[0].image), [
  'a tabby cat',
  'a test pattern',
]);
console.log(`best label: ${best.label}`);
resumed.dispose();
trainer.dispose();
await rm(work, { recursive: true });
