// Search: embed the pictures of a folder once, then find those that fit a text.
import { readdir } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { Siglip2 } from 'siglip2';

const here = (name) => fileURLToPath(new URL(`../test/fixtures/${name}`, import.meta.url));
const model = await Siglip2.load(process.argv[2] ?? here('checkpoints/naflex_hd64'));

const folder = here('images');
const names = (await readdir(folder)).filter((name) => name.endsWith('.png'));
const images = await model.embedImages(names.map((name) => path.join(folder, name)));

for (const query of ['a cat', 'a cup of coffee on a wooden table']) {
  const { logits } = model.similarity(images, await model.embedTexts(query));
  const best = names.map((name, i) => ({ name, logit: logits[i] })).sort((a, b) => b.logit - a.logit);
  console.log(`${query}:`);
  for (const { name, logit } of best.slice(0, 3)) console.log(`  ${logit.toFixed(2).padStart(7)}  ${name}`);
}
model.dispose();
