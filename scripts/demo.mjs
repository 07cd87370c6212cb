// The demo: a search in several languages, a classification and a map of similar patches, with the model of the package.
//
//   npm run demo                          writes build/demo.png
//   node scripts/demo.mjs MODEL FILE.png  with another model, to another file
import { mkdirSync, readdirSync, renameSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { defaultModel, Siglip2 } from '../dist/esm/index.js';
import { drawContactSheet } from './demo/contact-sheet.mjs';
import { canDraw } from './demo/fonts.mjs';
import { drawHeatMap, similarityToPatch } from './demo/heat-map.mjs';
import { classification, comparison, queries } from './demo/questions.mjs';
import { formatTable } from './demo/terminal-table.mjs';

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const folder = path.join(root, 'examples', 'emoji');
const [source = defaultModel, output = path.join(root, 'build', 'demo.png')] = process.argv.slice(2);
const milliseconds = (since) => performance.now() - since;

let started = performance.now();
const model = await Siglip2.load(source);
const { architecture, vision } = model.config;
console.log(`Loaded ${path.relative(process.cwd(), source) || source} in ${milliseconds(started).toFixed(0)} ms.`);

// The model's own number of patches; one of fixed resolution takes no such option.
const limits = architecture === 'naflex' ? { maxPatches: vision.numPatches } : {};

// Every picture once.
const files = readdirSync(folder)
  .filter((name) => name.endsWith('.png'))
  .map((name) => path.join(folder, name));
started = performance.now();
const images = await model.embedImages(files, { ...limits, batchSize: 32 });
const seconds = milliseconds(started) / 1000;
console.log(`Embedded ${files.length} pictures in ${seconds.toFixed(2)} s on ${model.device}, in ${model.dtype}.\n`);

// Every query is one short text through the model, and a product with all pictures.
const searches = [];
for (const query of queries) {
  started = performance.now();
  const texts = await model.embedTexts(query.text);
  const { logits, probabilities } = model.similarity(images, texts);
  const best = files
    .map((file, i) => ({ file, logit: logits[i], probability: probabilities[i] }))
    .sort((a, b) => b.logit - a.logit)
    .slice(0, 7);
  searches.push({ query, best, time: milliseconds(started) });
}

const name = (file) => path.basename(file, '.png').replaceAll('-', ' ');
const percent = (probability) => `${(100 * probability).toFixed(1)} %`;
console.log(
  formatTable(
    ['Query', 'Language', 'Best', '>', 'Second', '>', 'Third', '>', '>ms'],
    searches.map(({ query, best, time }) => [
      query.text,
      query.meaning === undefined ? query.language : `${query.language}: ${query.meaning}`,
      ...best.slice(0, 3).flatMap(({ file, probability }) => [name(file), percent(probability)]),
      time.toFixed(1),
    ]),
  ),
);

// Labels are judged one by one, so their probabilities need not sum to one.
const classified = path.join(folder, classification.picture);
const labels = await model.classify(classified, classification.labels, { template: '{}', ...limits });
console.log(`\nWhich label fits ${name(classified)}?\n`);
console.log(
  formatTable(
    ['Label', '>Probability'],
    labels.map(({ label, probability }) => [label, percent(probability)]),
  ),
);

// The features of every patch, rather than one embedding of the whole.
const compared = path.join(folder, comparison.picture);
const [features] = await model.denseFeatures(compared, limits);
const similarity = similarityToPatch(features, comparison.spot);
const heatMap = await drawHeatMap(compared, similarity, 380);
model.dispose();

const sheet = await drawContactSheet({
  title: `${files.length} pictures, ${new Set(queries.map(({ language }) => language)).size} languages, one small model`,
  subtitle: `Drawings: Fluent emoji, Microsoft. All pictures embedded in ${seconds.toFixed(2)} s, on ${model.device}.`,
  searches,
  classification: { file: classified, labels },
  comparison: { file: compared, similarity, heatMap },
});
mkdirSync(path.dirname(output), { recursive: true });
writeFileSync(`${output}.new`, sheet);
renameSync(`${output}.new`, output);
const silent = (await canDraw('abc')) ? '' : ', without words, because this machine has no fonts';
console.log(`\nAll of it as a picture: ${path.relative(process.cwd(), output)}${silent}`);
