// Zero-shot classification: how well does each label describe a picture?
import { fileURLToPath } from 'node:url';
import { Siglip2 } from 'siglip2';

const here = (name) => fileURLToPath(new URL(`../test/fixtures/${name}`, import.meta.url));
const model = await Siglip2.load(process.argv[2] ?? here('checkpoints/naflex_hd64'));

const labels = ['cat', 'cup of coffee', 'mountain'];
const template = ['a photo of a {}.', 'a close-up of a {}.']; // embeddings of both prompts are averaged
const picture = here('images/13_photo_coffee_240x240.png');

for (const { label, probability, logit } of await model.classify(picture, labels, { template }))
  console.log(`${label.padEnd(15)} ${(100 * probability).toFixed(3).padStart(8)} %   logit ${logit.toFixed(2)}`);
model.dispose();
