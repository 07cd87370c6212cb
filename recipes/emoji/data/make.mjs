/**
 * Makes the data of the emoji model: `node recipes/emoji/data/make.mjs [PART…]`, all parts by default.
 *
 *   packages   installs drawings and words          pictures   renders every drawing
 *   texts      names, keywords, the held-out split  shards     what the trainer reads
 *   sheets     contact sheets to look at (only when asked for)
 */
import path from 'node:path';
import { cacheFolder, readMade } from './cache.mjs';
import { listEmoji } from './emoji.mjs';
import { installPackages } from './packages.mjs';
import { makePictures } from './pictures.mjs';
import { makeShards } from './shards.mjs';
import { makeSheets } from './sheets.mjs';
import { makeTexts } from './texts.mjs';

const cache = cacheFolder();
const started = Date.now();
const log = (text) => console.error(`${((Date.now() - started) / 1000).toFixed(1).padStart(7)} s  ${text}`);

/** What each part does. All but `packages` need what that one installs. */
const parts = {
  packages: () => {
    const { folder, installed } = installPackages(cache);
    log(`packages ${installed ? 'installed' : 'are complete'} in ${folder}`);
  },
  pictures: async () => {
    const { folder: modules } = installPackages(cache);
    const { keys, derived } = listEmoji(modules);
    log(`${keys.size} emoji, ${derived.size} of them with derived annotations`);
    await makePictures({ modules, cache, keys, log });
  },
  texts: () => {
    const { folder: modules } = installPackages(cache);
    const { languages } = makeTexts({ modules, cache, keys: listEmoji(modules).keys });
    log(`texts in ${Object.keys(languages).length} languages`);
  },
  shards: async () => {
    const sets = await makeShards({ cache, log });
    console.log('\nset            shards  pictures       texts      MB');
    for (const [set, { shards, pictures, texts, bytes }] of Object.entries(sets))
      console.log(row([set, 14], [shards, 7], [pictures, 10], [texts, 12], [(bytes / 1e6).toFixed(1), 8]));
  },
  sheets: async () => {
    const { files, compared, styles } = await makeSheets({ cache, seed: 'sheets' });
    log(`${files.length} sheets in ${path.dirname(files[0])}`);
    log(`columns of compared.png: ${styles.join(', ')}; rows: ${compared.join(' ')}`);
  },
};

const asked = process.argv.slice(2);
const unknown = asked.find((part) => !Object.hasOwn(parts, part));
if (unknown !== undefined) {
  console.error(`"${unknown}" is no part; there are ${Object.keys(parts).join(', ')}`);
  process.exit(2);
}
for (const [part, make] of Object.entries(parts))
  if (asked.length > 0 ? asked.includes(part) : part !== 'sheets') await make();
if (asked.length === 0) summarize();

function summarize() {
  const { styles } = readMade(path.join(cache, 'pictures', 'manifest.json'), 'pictures');
  console.log('\nstyle                pictures  groups of identical  use         licence');
  for (const [name, { count, identical, use, licence }] of Object.entries(styles))
    console.log(`${row([name, 20], [count, 9], [identical.length, 21])}  ${use.padEnd(10)}  ${licence}`);
  const { languages, heldOut, neverTrained } = readMade(path.join(cache, 'texts.json'), 'texts');
  console.log('\nlanguage   names  keywords  distinct  held out  trained in no language');
  for (const [language, texts] of Object.entries(languages)) {
    const keywords = Object.values(texts).flatMap((entry) => entry.keywords);
    const held = [heldOut[language]?.length ?? '-', neverTrained[language]?.length ?? '-'];
    const cells = [Object.keys(texts).length, keywords.length, new Set(keywords).size, ...held];
    console.log(row([language, 8], ...cells.map((cell, at) => [cell, [8, 10, 10, 10, 24][at]])));
  }
}

/** Cells of fixed widths, the first to the left and the others to the right. */
function row([first, width], ...cells) {
  return String(first).padEnd(width) + cells.map(([cell, size]) => String(cell).padStart(size)).join('');
}
