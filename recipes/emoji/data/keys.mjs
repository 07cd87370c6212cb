/**
 * Keys: one name for an emoji across every source. A key is its code points in upper-case hexadecimal of at least four
 * digits, joined by "-", without the variation selector FE0F, which sources write or leave out as they please:
 * ❤️ is `2764`, 👩‍🚒 is `1F469-200D-1F692`.
 */

const variationSelector = 'FE0F';

/**
 * The key of an emoji.
 *
 * @param {string} characters for example '❤️'
 * @returns {string} for example '2764'
 */
export function keyOfCharacters(characters) {
  return joinCodes([...characters].map((character) => character.codePointAt(0).toString(16)));
}

/**
 * The key that a file name or an identifier spells: hexadecimal code points joined by "-", in either case, padded or not,
 * with or without FE0F.
 *
 * @param {string} name without folder and ending, for example '00a9-fe0f'
 * @returns {string | undefined} for example '00A9'; nothing when the name spells no code points
 */
export function keyOfHexadecimal(name) {
  return /^[0-9a-f]{1,6}(-[0-9a-f]{1,6})*$/i.test(name) ? joinCodes(name.split('-')) : undefined;
}

/**
 * The characters of a key, without FE0F.
 *
 * @param {string} key for example '2764'
 * @returns {string} for example '❤'
 */
export function charactersOfKey(key) {
  return String.fromCodePoint(...key.split('-').map((code) => Number.parseInt(code, 16)));
}

/** Whether a key has a skin tone beside something that has the tone: `1F44B-1F3FD`, but not the swatch `1F3FD`. */
export function hasSkinTone(key) {
  return /-1F3F[B-F](-|$)/.test(key);
}

/** Whether a key is the flag of a country or of a part of one, spelled by its code: `1F1EB-1F1F7`, `1F3F4-E0067-…-E007F`. */
export function isLetterFlag(key) {
  return /^1F1(E[6-9A-F]|F[0-9A-F])|-E007F$/.test(key);
}

function joinCodes(codes) {
  return codes
    .map((code) => code.toUpperCase().replace(/^0+/, '').padStart(4, '0'))
    .filter((code) => code !== variationSelector)
    .join('-');
}
