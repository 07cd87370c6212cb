/** From the names that sets of drawings give their files to keys. */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { emojibase } from './emoji.mjs';
import { hasSkinTone } from './keys.mjs';

/**
 * A name as file names have it: "Côte d’Ivoire" is "cote-divoire".
 *
 * @param {string} name
 * @returns {string} lower-case letters and digits joined by single hyphens
 */
export function slug(name) {
  return name
    .normalize('NFKD')
    .replace(/[\p{M}’'`]/gu, '')
    .toLowerCase()
    .replaceAll('&', ' and ')
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-|-$/g, '');
}

/**
 * Looks names up in lists, the first list first. A name that a list gives to several emoji is found in none.
 *
 * @param {[name: string, key: string][][]} lists
 * @returns {(name: string) => string | undefined} from a slug to a key
 */
export function nameIndex(lists) {
  const tables = lists.map((pairs) => {
    const table = new Map();
    for (const [name, key] of pairs) {
      const spelled = slug(name);
      if (!table.has(spelled)) table.set(spelled, key);
      else if (table.get(spelled) !== key) table.set(spelled, undefined);
    }
    return table;
  });
  return (name) => tables.find((table) => table.has(name))?.get(name);
}

/**
 * The names of today and those that Unicode gave first, which older sets use: emojibase's labels, CLDR's names, and the
 * names in the Unicode character database.
 *
 * @param {string} modules `node_modules` of the packages
 * @returns {(name: string) => string | undefined} from a slug to a key
 */
export function englishNames(modules) {
  const read = (...names) => JSON.parse(readFileSync(path.join(modules, ...names), 'utf8'));
  const labels = emojibase(modules).map(({ key, label }) => [label, key]);
  const shortcodes = Object.entries(read('emojibase-data', 'en', 'shortcodes', 'cldr.json'))
    .map(([hexadecimal, codes]) => [hexadecimal.replaceAll('-FE0F', ''), codes])
    .filter(([key]) => !hasSkinTone(key))
    .flatMap(([key, codes]) => [codes].flat().map((code) => [code, key]));
  const unicode = read('emoji-datasource-google', 'emoji.json')
    .filter(({ name }) => name)
    .map(({ name, unified }) => [name, unified.replaceAll('-FE0F', '')]);
  return nameIndex([labels, shortcodes, unicode]);
}

/** Fluent's names of skin tones, at the end of a file name. */
const fluentTone = /-(default|light|medium-light|medium|medium-dark|dark)$/;

/** Fluent's own names. `woman-with-bunny-ears` is the old Unicode name of people with bunny ears of no gender. */
const fluentNames = {
  blackbird: '1F426-200D-2B1B',
  'keycap-asterisk': '002A-20E3',
  'keycap-hashtag': '0023-20E3',
  'knocked-out-face': '1F635',
  'man-blonde-hair': '1F471-200D-2642',
  'man-deaf': '1F9CF-200D-2642',
  'man-merpeople': '1F9DC-200D-2642',
  'man-with-bunny-ears': '1F46F-200D-2642',
  'man-wrestling': '1F93C-200D-2642',
  'person-blonde-hair': '1F471',
  'person-deaf': '1F9CF',
  'person-elf': '1F9DD',
  'person-fairy': '1F9DA',
  'person-genie': '1F9DE',
  'person-mage': '1F9D9',
  'person-merpeople': '1F9DC',
  'person-superhero': '1F9B8',
  'person-supervillain': '1F9B9',
  'person-vampire': '1F9DB',
  'person-with-bunny-ears': '1F46F',
  'person-wrestling': '1F93C',
  'person-zombie': '1F9DF',
  'phoenix-bird': '1F426-200D-1F525',
  'red-triangle': '1F53A',
  'stuffedbread-flat': '1F959',
  'woman-blonde-hair': '1F471-200D-2640',
  'woman-deaf': '1F9CF-200D-2640',
  'woman-merpeople': '1F9DC-200D-2640',
  'woman-with-bunny-ears': '1F46F-200D-2640',
  'woman-wrestling': '1F93C-200D-2640',
};

/**
 * Fluent's files by key, without skin tones. What ends like a tone need not be one: `police-car-light` is no light police
 * car. So an ending counts as a tone only where the same name comes with `-default`, and that file is the one taken.
 *
 * @param {string[]} files names of files without ending
 * @param {(name: string) => string | undefined} index see {@link englishNames}
 * @returns {{ files: Map<string, string>, unknown: string[] }} file names by key; names of no known emoji
 */
export function fluentFiles(files, index) {
  const all = new Set(files);
  const found = new Map();
  const unknown = [];
  for (const file of [...all].sort()) {
    const tone = fluentTone.exec(file)?.[1];
    const base = tone === undefined ? file : file.slice(0, -tone.length - 1);
    const toned = tone !== undefined && all.has(`${base}-default`);
    if (toned && tone !== 'default') continue;
    const name = toned ? base : file;
    const key = Object.hasOwn(fluentNames, name) ? fluentNames[name] : index(name);
    if (key === undefined) unknown.push(file);
    else if (found.has(key)) throw new Error(`Fluent's ${found.get(key)} and ${file} would both be ${key}`);
    else found.set(key, file);
  }
  return { files: found, unknown };
}

/**
 * Names in Iconify's sets that are no longer, or never were, those of Unicode. An empty key leaves an icon out: `asterisk`
 * is the sign without a key around it.
 */
const iconNames = {
  asterisk: '',
  'a-button': '1F170',
  'ab-button': '1F18E',
  'b-button': '1F171',
  'o-button': '1F17E',
  'blond-haired-person': '1F471',
  'cricket-game': '1F3CF',
  'exclamation-mark': '2757',
  'flag-for-black-flag': '1F3F4',
  'flag-for-chequered-flag': '1F3C1',
  'flag-for-cocos-islands': '1F1E8-1F1E8',
  'flag-for-crossed-flags': '1F38C',
  'flag-for-myanmar': '1F1F2-1F1F2',
  'flag-for-rainbow-flag': '1F3F3-200D-1F308',
  'flag-for-triangular-flag': '1F6A9',
  'flag-for-turkey': '1F1F9-1F1F7',
  'flag-for-white-flag': '1F3F3',
  'hand-with-fingers-splayed': '1F590',
  'heart-exclamation': '2763',
  'heavy-heart-exclamation': '2763',
  'keycap-pound': '0023-20E3',
  'man-in-suit-levitating': '1F574',
  'man-in-tuxedo': '1F935',
  'man-with-chinese-cap': '1F472',
  'men-with-bunny-ears': '1F46F-200D-2642',
  'people-with-bunny-ears': '1F46F',
  'person-blond-hair': '1F471',
  'person-in-suit-levitating': '1F574',
  'person-in-tuxedo': '1F935',
  'person-with-skullcap': '1F472',
  'question-mark': '2753',
  'smiling-cat-face-with-heart-eyes': '1F63B',
  'up-exclamation-button': '1F199',
  'up-text-button': '1F199',
  'upwards-button': '1F53C',
  'woman-blond-hair': '1F471-200D-2640',
};

/**
 * The keys of an icon. Its own name decides; where that is unknown, its other names do. Flags have all of their names'
 * keys: Iconify keeps one icon for territories of the same flag.
 *
 * @param {string} name
 * @param {string[]} aliases other names of the same icon
 * @param {(name: string) => string | undefined} index see {@link englishNames}
 * @returns {string[]} distinct keys, maybe none
 */
export function iconKeys(name, aliases, index) {
  if (/(-skin-tone|-tone[1-5])$/.test(name)) return [];
  const keyOf = (spelled) => {
    if (Object.hasOwn(iconNames, spelled)) return iconNames[spelled];
    return index(spelled) ?? index(spelled.replace(/^flag-for-(flag-)?/, 'flag-'));
  };
  const own = keyOf(name);
  if (own === '') return [];
  if (own !== undefined && !name.startsWith('flag-')) return [own];
  const keys = [name, ...aliases].map(keyOf).filter((key) => key !== undefined && key !== '');
  return [...new Set(keys)];
}

/** Icons of Iconify's `noto` that are older drawings: the same emoji has another icon, under the name of today. */
export const olderNotoIcons = new Set([
  'disappointed-but-relieved-face',
  'face-savouring-delicious-food',
  'face-with-cold-sweat',
  'face-with-open-mouth-and-cold-sweat',
  'face-with-stuck-out-tongue',
  'face-with-stuck-out-tongue-and-winking-eye',
  'first-quarter-moon-with-face',
  'full-moon-with-face',
  'last-quarter-moon-with-face',
  'left-pointing-magnifying-glass',
  'man-in-tuxedo',
  'right-pointing-magnifying-glass',
  'smiling-face-with-open-hands',
  'smiling-face-with-open-mouth',
  'smiling-face-with-open-mouth-and-cold-sweat',
  'smiling-face-with-open-mouth-and-smiling-eyes',
]);
