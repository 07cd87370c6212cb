/** Which emoji there are: those that CLDR names, by their keys. */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { hasSkinTone, keyOfCharacters } from './keys.mjs';

/**
 * Every emoji that CLDR names in English, without skin tones. CLDR also names punctuation and currency signs: an emoji is
 * what emojibase lists (1,597 with annotations of their own and 326 with derived ones: flags, people, keycaps).
 *
 * @param {string} modules `node_modules` of the packages
 * @returns {{ keys: Set<string>, derived: Set<string> }} all keys, and those of them with derived annotations
 */
export function listEmoji(modules) {
  const known = new Set(emojibase(modules).map(({ key }) => key));
  const read = (name, folder, field) => {
    const file = path.join(modules, name, folder, 'en', 'annotations.json');
    const { annotations } = JSON.parse(readFileSync(file, 'utf8'))[field];
    return Object.keys(annotations)
      .map(keyOfCharacters)
      .filter((key) => known.has(key) && !hasSkinTone(key));
  };
  const own = new Set(read('cldr-annotations-full', 'annotations', 'annotations'));
  const derived = read('cldr-annotations-derived-full', 'annotationsDerived', 'annotationsDerived');
  return { keys: new Set([...own, ...derived]), derived: new Set(derived.filter((key) => !own.has(key))) };
}

/**
 * Keys and English labels of emojibase, without skin tones.
 *
 * @param {string} modules `node_modules` of the packages
 * @returns {{ key: string, label: string }[]}
 */
export function emojibase(modules) {
  const data = JSON.parse(readFileSync(path.join(modules, 'emojibase-data', 'en', 'data.json'), 'utf8'));
  return data.map(({ hexcode, label }) => ({ key: hexcode.replaceAll('-FE0F', ''), label }));
}
