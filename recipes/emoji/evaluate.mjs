/**
 * Measures how well a model finds emoji by words, and words for emoji: `npm run eval:emoji -- [OPTIONS]`.
 *
 *   --model FOLDER   default models/siglip2-emoji; several, separated by commas, are reported with their spread
 *   --style STYLE    default fluent, the drawings that nothing was trained on and nothing chosen by; openmoji for choosing
 *   --trained A,B    styles that the pixel neighbour knows; default all training styles
 *   --patches N      of a picture at most; default the model's own number
 *   --dtype DTYPE    float32 (default), bfloat16 or int8: what the model computes in
 *   --json FILE      writes every number to a file
 *   --write FILE     puts the tables between <!-- evaluation --> and <!-- end of evaluation --> of a Markdown file
 *
 * Needs `npm run data:emoji`.
 */
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { Siglip2 } from '../../dist/esm/index.js';
import { cacheFolder, readMade, writeWhole } from './data/cache.mjs';
import { stylesFor } from './data/styles.mjs';
import { openGallery } from './evaluation/gallery.mjs';
import { pixelNeighbour } from './evaluation/pixels.mjs';
import { chance, rankOf, recalls } from './evaluation/ranking.mjs';
import { renderReport } from './evaluation/report.mjs';

const root = fileURLToPath(new URL('../..', import.meta.url));
const { values: options } = parseArgs({
  options: {
    model: { type: 'string', default: path.join(root, 'models', 'siglip2-emoji') },
    style: { type: 'string', default: 'fluent' },
    trained: { type: 'string', default: stylesFor('training').join(',') },
    patches: { type: 'string' },
    dtype: { type: 'string', default: 'float32' },
    json: { type: 'string' },
    write: { type: 'string' },
  },
});

const cache = cacheFolder();
const manifest = readMade(path.join(cache, 'pictures', 'manifest.json'), 'pictures');
const texts = readMade(path.join(cache, 'texts.json'), 'texts');
const cropped = options.style;
const uncropped = `${cropped}-uncropped`;
const gallery = await openGallery(cache, manifest, Object.hasOwn(manifest.styles, uncropped) ? uncropped : cropped);
const count = gallery.keys.length;

const results = {
  style: options.style,
  dtype: options.dtype,
  pictures: count,
  chance: chance(
    count,
    gallery.same.map(({ size }) => size),
  ),
  neighbour: await measureNeighbour(options.trained.split(',')),
  models: [],
};
for (const folder of options.model.split(',')) results.models.push(await measureModel(path.resolve(folder)));

if (options.json !== undefined) writeWhole(options.json, `${JSON.stringify(results, undefined, 1)}\n`);
const report = renderReport(results, texts);
console.log(report);
if (options.write !== undefined) putInto(options.write, report);

/** Recalls of the pixel neighbour, which is the same in every language. */
async function measureNeighbour(trained) {
  const { keys, nearness } = await pixelNeighbour(cache, manifest, cropped, gallery.keys, trained);
  const numbers = new Map(keys.map((key, number) => [key, number]));
  // An emoji of which it knows no drawing is found by chance at best; it counts as not found.
  const ranks = (rank) =>
    gallery.keys.map((key, picture) => (numbers.has(key) ? rank(picture, numbers.get(key)) : count));
  return {
    trained,
    textToImage: recalls(
      ranks((picture, emoji) => rankOf(count, (other) => nearness(other, emoji), gallery.same[picture])),
    ),
    imageToText: recalls(
      ranks((picture) => {
        const right = new Set(
          [...gallery.same[picture]].map((other) => numbers.get(gallery.keys[other])).filter((n) => n !== undefined),
        );
        return rankOf(keys.length, (emoji) => nearness(picture, emoji), right);
      }),
    ),
  };
}

async function measureModel(folder) {
  const model = await Siglip2.load(folder, { dtype: options.dtype });
  try {
    const images = await model.embedImages(gallery.images, {
      maxPatches: Number(options.patches ?? model.config.vision.numPatches),
    });
    const languages = {};
    for (const language of [...texts.seen, ...texts.unseen])
      languages[language] = await measureNames(model, images, language);
    const keywords = {};
    for (const language of texts.seen) keywords[language] = await measureKeywords(model, images, language);
    return { folder: path.relative(root, folder), languages, keywords };
  } finally {
    model.dispose();
  }
}

/** Names of all emoji of the gallery against all of its pictures. */
async function measureNames(model, images, language) {
  const named = gallery.keys.flatMap((key, picture) => {
    const entry = texts.languages[language][key];
    return entry === undefined ? [] : [{ picture, name: entry.name }];
  });
  const { logits } = model.similarity(images, await model.embedTexts(named.map(({ name }) => name)));
  const score = (picture, text) => logits[picture * named.length + text];
  const textOf = new Map(named.map(({ picture }, text) => [picture, text]));
  return {
    texts: named.length,
    textToImage: recalls(
      named.map(({ picture }, text) => rankOf(count, (other) => score(other, text), gallery.same[picture])),
    ),
    imageToText: recalls(
      named.map(({ picture }) => {
        const right = new Set(
          [...gallery.same[picture]].filter((other) => textOf.has(other)).map((other) => textOf.get(other)),
        );
        return rankOf(named.length, (text) => score(picture, text), right);
      }),
    ),
  };
}

/** Keywords that were never trained in a language: whether a picture of any emoji that has the keyword is found. */
async function measureKeywords(model, images, language) {
  const numbers = new Map(gallery.keys.map((key, picture) => [key, picture]));
  const owners = new Map(texts.neverTrained[language].map((keyword) => [keyword, new Set()]));
  for (const [key, { keywords }] of Object.entries(texts.languages[language]))
    for (const keyword of keywords) if (numbers.has(key)) owners.get(keyword)?.add(numbers.get(key));
  const asked = [...owners].filter(([, pictures]) => pictures.size > 0);
  const { logits } = model.similarity(images, await model.embedTexts(asked.map(([keyword]) => keyword)));
  return {
    texts: asked.length,
    textToImage: recalls(
      asked.map(([, right], text) => rankOf(count, (picture) => logits[picture * asked.length + text], right)),
    ),
    chance: chance(
      count,
      asked.map(([, right]) => right.size),
    ),
  };
}

function putInto(file, report) {
  const [start, end] = ['<!-- evaluation -->', '<!-- end of evaluation -->'];
  const text = existsSync(file) ? readFileSync(file, 'utf8') : '';
  const [from, to] = [text.indexOf(start), text.indexOf(end)];
  if (from < 0 || to < from) throw new Error(`${file} has no place for the tables, between ${start} and ${end}`);
  writeWhole(file, `${text.slice(0, from + start.length)}\n\n${report}\n${text.slice(to)}`);
}
