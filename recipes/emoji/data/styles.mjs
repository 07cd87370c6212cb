/** The sets of drawings: where each comes from, what it is used for, its licence, and its drawings by key. */
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { emojibase } from './emoji.mjs';
import { fxemojiKeys } from './fxemoji-names.mjs';
import { charactersOfKey, hasSkinTone, isLetterFlag, keyOfHexadecimal } from './keys.mjs';
import { englishNames, fluentFiles, iconKeys, olderNotoIcons } from './names.mjs';
import { packages } from './packages.mjs';

/**
 * A set of drawings.
 *
 * @typedef {object} Style
 * @property {string} title
 * @property {'training' | 'validation' | 'test'} use
 * @property {string} package
 * @property {string} version of the package
 * @property {string} licence of the drawings, an SPDX identifier
 * @property {string} licenceSource where that is stated
 * @property {string} author whom an attribution names
 * @property {(modules: string) => Map<string, Drawing>} open the drawings by key
 * @property {((modules: string) => Map<string, Drawing>) | null} [vectors] the same drawings as SVG, where `open` has pixels
 *   alone; null where there are none
 * @property {boolean} [late] trained on from the third stage on: what is hard to recognise slows the beginning
 */

/**
 * A drawing as it is stored: a file with pixels, SVG with the length of its longer side in its own units, or characters
 * with the file and the name of a font that has one glyph for them.
 *
 * @typedef {{ file: string } | { svg: string, size: number } | { characters: string, fontFile: string, font: string }} Drawing
 */

/** @type {Record<string, Omit<Style, 'version'>>} */
const sets = {
  noto: {
    title: 'Noto Emoji',
    use: 'training',
    package: 'emoji-datasource-google',
    licence: 'Apache-2.0',
    licenceSource: "the package's README",
    author: 'Google',
    open: (modules) => hexadecimalFiles(path.join(modules, 'emoji-datasource-google', 'img', 'google', '64'), '.png'),
    vectors: (modules) => namedIcons(modules, 'noto', olderNotoIcons),
  },
  twemoji: {
    title: 'Twemoji',
    use: 'training',
    package: '@twemoji/svg',
    licence: 'CC-BY-4.0',
    licenceSource: 'https://github.com/jdecked/twemoji/blob/v15.0.2/LICENSE-GRAPHICS',
    author: 'Twitter, Inc and other contributors',
    open: (modules) => hexadecimalFiles(path.join(modules, '@twemoji', 'svg'), '.svg'),
  },
  emojione: {
    title: 'EmojiOne 2',
    use: 'training',
    package: '@iconify-json/emojione',
    licence: 'CC-BY-4.0',
    licenceSource: 'https://github.com/EmojiTwo/emojitwo/blob/master/LICENSE.md',
    author: 'EmojiOne',
    open: (modules) => namedIcons(modules, 'emojione'),
  },
  'noto-v1': {
    title: 'Noto Emoji, the drawings before 2017',
    use: 'training',
    package: '@iconify-json/noto-v1',
    licence: 'Apache-2.0',
    licenceSource: "the package's info.json",
    author: 'Google',
    open: (modules) => namedIcons(modules, 'noto-v1'),
  },
  fxemoji: {
    title: 'Firefox OS Emoji',
    use: 'training',
    package: '@iconify-json/fxemoji',
    // The package says Apache 2.0, which is the licence of Mozilla's code alone.
    licence: 'CC-BY-4.0',
    licenceSource: 'https://github.com/mozilla/fxemoji/blob/gh-pages/LICENSE.md',
    author: 'Mozilla Foundation',
    open: (modules) => icons(modules, 'fxemoji', (name) => [fxemojiKeys.get(name)].filter(Boolean)),
  },
  streamline: {
    title: 'Streamline Emojis',
    use: 'training',
    package: '@iconify-json/streamline-emojis',
    licence: 'CC-BY-4.0',
    licenceSource: "the package's info.json",
    author: 'Streamline',
    open: (modules) => streamline(modules),
    late: true,
  },
  'noto-lines': {
    title: 'Noto Emoji, the font of lines',
    use: 'training',
    package: '@expo-google-fonts/noto-emoji',
    licence: 'OFL-1.1',
    licenceSource: "the package's LICENSE_FONT",
    author: 'Google',
    open: (modules) => notoLines(modules),
    vectors: null,
    late: true,
  },
  openmoji: {
    title: 'OpenMoji',
    use: 'validation',
    package: 'openmoji',
    licence: 'CC-BY-SA-4.0',
    licenceSource: "the package's README",
    author: 'OpenMoji',
    open: (modules) => hexadecimalFiles(path.join(modules, 'openmoji', 'color', 'svg'), '.svg'),
  },
  fluent: {
    title: 'Fluent Emoji, flat',
    use: 'test',
    package: 'fluentui-emoji',
    licence: 'MIT',
    licenceSource: 'https://github.com/microsoft/fluentui-emoji/blob/main/LICENSE',
    author: 'Microsoft',
    open: (modules) => fluent(modules),
  },
};

/** @type {Record<string, Style>} */
export const styles = Object.fromEntries(
  Object.entries(sets).map(([name, style]) => [name, { ...style, version: packages[style.package] }]),
);

/** The names of the styles of one use, in a fixed order. */
export function stylesFor(use) {
  return Object.keys(styles).filter((name) => styles[name].use === use);
}

/** Files that are named by code points, one for each emoji without skin tones. */
function hexadecimalFiles(folder, ending) {
  const found = new Map();
  for (const name of readdirSync(folder).sort()) {
    if (!name.endsWith(ending)) continue;
    const key = keyOfHexadecimal(name.slice(0, -ending.length));
    if (key === undefined || hasSkinTone(key)) continue;
    if (found.has(key)) throw new Error(`${folder} has two drawings of ${key}; ${name} is the second`);
    const file = path.join(folder, name);
    found.set(key, ending === '.svg' ? svgDrawing(readFileSync(file, 'utf8'), file) : { file });
  }
  return found;
}

function fluent(modules) {
  const folder = path.join(modules, 'fluentui-emoji', 'icons', 'flat');
  const names = readdirSync(folder)
    .filter((name) => name.endsWith('.svg'))
    .map((name) => name.slice(0, -'.svg'.length));
  const { files, unknown } = fluentFiles(names, englishNames(modules));
  if (unknown.length > 0) throw new Error(`names in ${folder} of no known emoji: ${unknown.join(', ')}`);
  return new Map(
    [...files].map(([key, name]) => {
      const file = path.join(folder, `${name}.svg`);
      return [key, svgDrawing(readFileSync(file, 'utf8'), file)];
    }),
  );
}

/** Streamline's icons: of several drawings of an emoji the first, countries for their flags. */
function streamline(modules) {
  const index = englishNames(modules);
  const taken = new Set();
  return icons(modules, 'streamline-emojis', (name) => {
    const plainName = name.replace(/-\d$/, '');
    if (taken.has(plainName)) return [];
    const keys = iconKeys(plainName, [], (spelled) => index(spelled) ?? index(`flag-${spelled}`));
    if (keys.length > 0) taken.add(plainName);
    return keys;
  });
}

/** The glyphs of the font of lines. Its flags are letters, and what turns to the right has no glyph of its own. */
function notoLines(modules) {
  const fontFile = path.join(modules, '@expo-google-fonts', 'noto-emoji', '400Regular', 'NotoEmoji_400Regular.ttf');
  const keys = emojibase(modules).map(({ key }) => key);
  return new Map(
    keys
      .filter((key) => !hasSkinTone(key) && !key.endsWith('-27A1') && !isLetterFlag(key))
      .map((key) => [key, { characters: charactersOfKey(key), fontFile, font: 'Noto Emoji' }]),
  );
}

/** A set of Iconify's whose names are English, without some of its icons. */
function namedIcons(modules, set, without = new Set()) {
  const index = englishNames(modules);
  return icons(modules, set, (name, aliases) => (without.has(name) ? [] : iconKeys(name, aliases, index)));
}

const namespaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"';

/** The icons of one of Iconify's sets: SVG without its outermost element, in a common size or with one of their own. */
function icons(modules, set, keysOf) {
  const stored = JSON.parse(readFileSync(path.join(modules, '@iconify-json', set, 'icons.json'), 'utf8'));
  const aliases = new Map();
  for (const [alias, { parent }] of Object.entries(stored.aliases ?? {}))
    aliases.set(parent, [...(aliases.get(parent) ?? []), alias]);
  const found = new Map();
  const namesOf = new Map();
  const add = (name, icon, keys) => {
    const width = icon.width ?? stored.width;
    const height = icon.height ?? stored.height;
    const box = `${icon.left ?? 0} ${icon.top ?? 0} ${width} ${height}`;
    const svg = `<svg ${namespaces} viewBox="${box}">${icon.body}</svg>`;
    for (const key of keys) {
      if (found.has(key)) throw new Error(`${set}: the icons ${namesOf.get(key)} and ${name} would both be ${key}`);
      found.set(key, { svg, size: Math.max(width, height) });
      namesOf.set(key, name);
    }
  };
  const all = Object.entries(stored.icons);
  for (const [name, icon] of all) add(name, icon, keysOf(name, []));
  // Other names come second: what has an icon of its own name keeps that.
  for (const [name, icon] of all)
    add(
      name,
      icon,
      keysOf(name, aliases.get(name) ?? []).filter((key) => !found.has(key)),
    );
  return found;
}

/** SVG with its size, which is that of its view box; `width` and `height`, which would scale it, are taken away. */
function svgDrawing(svg, file) {
  const [root] = /<svg[^>]*>/.exec(svg) ?? [];
  const box = /\sviewBox="([^"]*)"/
    .exec(root ?? '')?.[1]
    .trim()
    .split(/[\s,]+/)
    .map(Number);
  if (root === undefined || box === undefined || box.length !== 4 || !box.every(Number.isFinite))
    throw new Error(`${file} is no SVG with a view box`);
  const size = Math.max(box[2], box[3]);
  return { svg: svg.replace(root, root.replace(/\s(width|height)="[^"]*"/g, '')), size };
}
