/** Keys of emoji, and the names of files and icons that become keys. */
import { describe, expect, it } from 'vitest';
import {
  charactersOfKey,
  hasSkinTone,
  isLetterFlag,
  keyOfCharacters,
  keyOfHexadecimal,
} from '../../../recipes/emoji/data/keys.mjs';
import { fluentFiles, iconKeys, nameIndex, slug } from '../../../recipes/emoji/data/names.mjs';
import { Random, runSeed } from '../../support/random.js';

const random = new Random(runSeed);

describe('keys', () => {
  it('are upper-case code points without the variation selector', () => {
    expect(keyOfCharacters('🐶')).toBe('1F436');
    expect(keyOfCharacters('❤️')).toBe('2764');
    expect(keyOfCharacters('❤')).toBe('2764');
    expect(keyOfCharacters('👩‍🚒')).toBe('1F469-200D-1F692');
    expect(keyOfCharacters('#️⃣')).toBe('0023-20E3');
  });

  it('are read from the file names of every set', () => {
    expect(keyOfHexadecimal('00a9-fe0f')).toBe('00A9');
    expect(keyOfHexadecimal('a9')).toBe('00A9');
    expect(keyOfHexadecimal('0023-FE0F-20E3')).toBe('0023-20E3');
    expect(keyOfHexadecimal('23-20e3')).toBe('0023-20E3');
    expect(keyOfHexadecimal('1f468-200d-2764-fe0f-200d-1f468')).toBe('1F468-200D-2764-200D-1F468');
    for (const name of ['', 'dog', '1F436-dog', '1F436-', '-1F436', '1F436.', '1234567'])
      expect(keyOfHexadecimal(name), name).toBeUndefined();
  });

  it('of flags that are spelled by letters are known from others', () => {
    const england = '🏴\u{E0067}\u{E0062}\u{E0065}\u{E006E}\u{E0067}\u{E007F}';
    for (const flag of ['🇫🇷', '🇿🇼', '🇦🇨', england]) expect(isLetterFlag(keyOfCharacters(flag)), flag).toBe(true);
    for (const other of ['🏴', '🏳️‍🌈', '🏴‍☠️', '🚩', '🔠', '🆎', '🈁'])
      expect(isLetterFlag(keyOfCharacters(other)), other).toBe(false);
  });

  it('are the same from characters and from any spelling of the code points', () => {
    for (let round = 0; round < 500; round++) {
      const codes = Array.from({ length: random.integer(1, 5) }, () => {
        const code = random.integer(0x20, 0x2001e);
        return code >= 0xd800 && code < 0xe000 ? 0x200d : code;
      });
      const spelled = codes.map((code) => {
        const digits = code.toString(16).padStart(random.integer(0, 5), '0');
        return (random.next() < 0.5 ? digits.toUpperCase() : digits) + (random.next() < 0.3 ? '-fe0f' : '');
      });
      const key = keyOfCharacters(String.fromCodePoint(...codes));
      expect(keyOfHexadecimal(spelled.join('-')), spelled.join('-')).toBe(key);
      expect(keyOfCharacters(charactersOfKey(key))).toBe(key);
      expect(key).not.toMatch(/FE0F/);
    }
  });

  it('tell skin tones from swatches', () => {
    expect(hasSkinTone(keyOfCharacters('👋🏽'))).toBe(true);
    expect(hasSkinTone(keyOfCharacters('👩🏿‍🚒'))).toBe(true);
    expect(hasSkinTone(keyOfCharacters('🏽'))).toBe(false);
    expect(hasSkinTone(keyOfCharacters('👋'))).toBe(false);
  });
});

describe('names', () => {
  it('become slugs', () => {
    expect(slug('flag: Côte d’Ivoire')).toBe('flag-cote-divoire');
    expect(slug('flag: Bosnia & Herzegovina')).toBe('flag-bosnia-and-herzegovina');
    expect(slug('UP! button')).toBe('up-button');
    expect(slug('man_dancing')).toBe('man-dancing');
  });

  it('are found in the first list that has them, and not where they are ambiguous', () => {
    const index = nameIndex([
      [
        ['dog face', '1F436'],
        ['twin', '1'],
        ['twin', '2'],
        ['same', '3'],
        ['same', '3'],
      ],
      [
        ['Dog Face', 'wrong'],
        ['twin', '4'],
        ['Hugging Face', '1F917'],
      ],
    ]);
    expect(index('dog-face')).toBe('1F436');
    expect(index('hugging-face')).toBe('1F917');
    expect(index('same')).toBe('3');
    expect(index('twin')).toBeUndefined();
    expect(index('constructor')).toBeUndefined();
  });
});

describe('the names of Fluent', () => {
  const index = nameIndex([
    [
      ['person walking', '1F6B6'],
      ['police car', '1F693'],
      ['police car light', '1F6A8'],
      ['horizontal traffic light', '1F6A5'],
      ['woman with bunny ears', '1F46F'],
      ['x medium', 'wrong'],
      ['x', '1F44B'],
      ['Knocked out', '1'],
    ],
  ]);
  const tones = ['default', 'light', 'medium-light', 'medium', 'medium-dark', 'dark'];
  const toned = (name: string) => tones.map((tone) => `${name}-${tone}`);

  it('lose the tone, of which only the default is taken', () => {
    const { files, unknown } = fluentFiles([...toned('person-walking'), ...toned('x')], index);
    expect([...files].sort()).toEqual([
      ['1F44B', 'x-default'],
      ['1F6B6', 'person-walking-default'],
    ]);
    expect(unknown).toEqual([]);
  });

  it('keep an ending that only looks like a tone', () => {
    const { files } = fluentFiles(['police-car', 'police-car-light', 'horizontal-traffic-light'], index);
    expect(Object.fromEntries(files)).toEqual({
      '1F693': 'police-car',
      '1F6A8': 'police-car-light',
      '1F6A5': 'horizontal-traffic-light',
    });
  });

  it('follow the table of exceptions before any list', () => {
    const { files } = fluentFiles(['woman-with-bunny-ears', 'person-with-bunny-ears', 'red-triangle'], index);
    expect(files.get('1F46F-200D-2640')).toBe('woman-with-bunny-ears');
    expect(files.get('1F46F')).toBe('person-with-bunny-ears');
    expect(files.get('1F53A')).toBe('red-triangle');
  });

  it('are reported when unknown, and refused when two would be one emoji', () => {
    expect(fluentFiles(['no-such-emoji', 'x'], index).unknown).toEqual(['no-such-emoji']);
    const twice = nameIndex([
      [
        ['one', '1F600'],
        ['other', '1F600'],
      ],
    ]);
    expect(() => fluentFiles(['one', 'other'], twice)).toThrow(/one and other would both be 1F600/);
  });
});

describe('the names of icons', () => {
  const index = nameIndex([
    [
      ['grinning cat', '1F63A'],
      ['cricket game', '1F3CF'],
      ['cricket', '1F997'],
      ['flag: Norway', '1F1F3-1F1F4'],
      ['flag: Bouvet Island', '1F1E7-1F1FB'],
      ['flag: Svalbard & Jan Mayen', '1F1F8-1F1EF'],
      ['asterisk', '002A-20E3'],
    ],
  ]);

  it('decide alone where they are known, and aliases where not', () => {
    expect(iconKeys('cricket-game', ['cricket'], index)).toEqual(['1F3CF']);
    expect(iconKeys('smiling-cat', ['grinning-cat'], index)).toEqual(['1F63A']);
    expect(iconKeys('smiling-dog', ['grinning-dog'], index)).toEqual([]);
  });

  it('give flags of several territories all their keys', () => {
    expect(iconKeys('flag-for-bouvet-island', ['flag-for-flag-svalbard-and-jan-mayen'], index)).toEqual([
      '1F1E7-1F1FB',
      '1F1F8-1F1EF',
    ]);
  });

  it('leave out skin tones and signs that are no emoji', () => {
    expect(iconKeys('grinning-cat-dark-skin-tone', ['grinning-cat'], index)).toEqual([]);
    expect(iconKeys('grinning-cat-tone3', [], index)).toEqual([]);
    expect(iconKeys('asterisk', [], index)).toEqual([]);
  });
});
