/** Files that appear whole, packages that are installed once, and the list of emoji, all without a network. */
import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it, vi } from 'vitest';
import { writeWhole, writeWholeFolder } from '../../../recipes/emoji/data/cache.mjs';
import { listEmoji } from '../../../recipes/emoji/data/emoji.mjs';
import { fxemojiKeys } from '../../../recipes/emoji/data/fxemoji-names.mjs';
import { keyOfHexadecimal } from '../../../recipes/emoji/data/keys.mjs';
import { installPackages, packages } from '../../../recipes/emoji/data/packages.mjs';
import { styles, stylesFor } from '../../../recipes/emoji/data/styles.mjs';
import { temporaryFolder } from '../../support/folders.js';

const script = path.resolve(import.meta.dirname, '../../../recipes/emoji/data/make.mjs');

describe('files of the cache', () => {
  it('take the place of older ones whole', async () => {
    const folder = temporaryFolder({ 'made/old.txt': 'old' });
    const result = await writeWholeFolder(path.join(folder, 'made'), async (partial: string) => {
      expect(existsSync(path.join(folder, 'made/old.txt'))).toBe(true);
      writeWhole(path.join(partial, 'deep/new.txt'), 'new');
      return 7;
    });
    expect(result).toBe(7);
    expect(readdirSync(path.join(folder, 'made'))).toEqual(['deep']);
    expect(readdirSync(path.join(folder, 'made/deep'))).toEqual(['new.txt']);
    expect(readdirSync(folder)).toEqual(['made']);
  });

  it('stay as they were when making new ones fails, and what is left over is cleared', async () => {
    const folder = temporaryFolder({ 'made/old.txt': 'old', 'made.partial/left.txt': 'left' });
    const fail = async (partial: string) => {
      expect(readdirSync(partial)).toEqual([]);
      throw new Error('no room');
    };
    await expect(writeWholeFolder(path.join(folder, 'made'), fail)).rejects.toThrow('no room');
    expect(readFileSync(path.join(folder, 'made/old.txt'), 'utf8')).toBe('old');
  });
});

describe('packages', () => {
  /** A cache in which every package is installed, some in another version, and an npm that only leaves a note. */
  function installation(others: Record<string, string> = {}, status = 0) {
    const manifests = Object.entries({ ...packages, ...others }).map(([name, version]) => [
      `packages/node_modules/${name}/package.json`,
      { version },
    ]);
    const folder = temporaryFolder({
      ...Object.fromEntries(manifests),
      'packages/node_modules/.package-lock.json': {},
      'bin/npm': `#!/bin/sh\necho "$@" > called\nexit ${status}\n`,
    });
    chmodSync(path.join(folder, 'bin/npm'), 0o755);
    vi.stubEnv('PATH', `${path.join(folder, 'bin')}:/usr/bin:/bin`);
    return { folder, called: path.join(folder, 'packages/called') };
  }

  it('are used as they are when all are there', () => {
    const { folder, called } = installation();
    const modules = path.join(folder, 'packages', 'node_modules');
    expect(installPackages(folder)).toEqual({ folder: modules, installed: false });
    expect(existsSync(called)).toBe(false);
    vi.unstubAllEnvs();
  });

  it('are installed in exact versions and without their scripts otherwise', () => {
    const { folder, called } = installation({ openmoji: '16.0.0' });
    // This npm changes nothing, and that is noticed.
    expect(() => installPackages(folder)).toThrow(/installed other versions/);
    expect(readFileSync(called, 'utf8')).toContain('--ignore-scripts');
    const { dependencies } = JSON.parse(readFileSync(path.join(folder, 'packages/package.json'), 'utf8'));
    expect(dependencies).toEqual(packages);
    for (const version of Object.values(packages)) expect(version).toMatch(/^\d+\.\d+\.\d+$/);
    vi.unstubAllEnvs();
  });

  it('are not there when npm fails', () => {
    const { folder } = installation({ openmoji: '16.0.0' }, 1);
    expect(() => installPackages(folder)).toThrow(/npm install .* failed in /);
    vi.unstubAllEnvs();
  });
});

describe('the list of emoji', () => {
  it('is what both CLDR and emojibase have, without skin tones', () => {
    const annotations = (...characters: string[]) => Object.fromEntries(characters.map((text) => [text, {}]));
    const known = ['1F436', '2764-FE0F', '1F44B', '1F3FD', '1F1E9-1F1EA', '1F431'];
    const modules = temporaryFolder({
      'emojibase-data/en/data.json': known.map((hexcode) => ({ hexcode, label: hexcode })),
      'cldr-annotations-full/annotations/en/annotations.json': {
        annotations: { annotations: annotations('🐶', '❤', '👋', '🏽', '{', '€') },
      },
      'cldr-annotations-derived-full/annotationsDerived/en/annotations.json': {
        annotationsDerived: { annotations: annotations('👋🏽', '🇩🇪', '₭', '🐶') },
      },
    });
    const { keys, derived } = listEmoji(modules);
    expect([...keys].sort()).toEqual(['1F1E9-1F1EA', '1F3FD', '1F436', '1F44B', '2764']);
    expect([...derived]).toEqual(['1F1E9-1F1EA']);
  });
});

describe('styles', () => {
  it('have a use each: the test and the validation style are never trained on', () => {
    expect(stylesFor('test')).toEqual(['fluent']);
    expect(stylesFor('validation')).toEqual(['openmoji']);
    const training = ['noto', 'twemoji', 'emojione', 'noto-v1', 'fxemoji', 'streamline', 'noto-lines'];
    expect(stylesFor('training')).toEqual(training);
  });

  it('that are trained on have no share-alike licence', () => {
    for (const name of stylesFor('training'))
      expect(styles[name]!.licence).toMatch(/^(Apache-2\.0|CC-BY-4\.0|OFL-1\.1)$/);
    for (const style of Object.values(styles))
      expect(style.version).toBe(packages[style.package as keyof typeof packages]);
  });

  it('have one drawing of an emoji where a set has several, by the name that CLDR gives it', () => {
    const icons = ['dog-face', 'dog-face-1', 'robot-face-2', 'robot-face-3', 'france', 'old-man-1', 'robot-face-1'];
    const modules = temporaryFolder({
      'emojibase-data/en/data.json': [
        { hexcode: '1F436', label: 'dog face' },
        { hexcode: '1F916', label: 'robot face' },
        { hexcode: '1F1EB-1F1F7', label: 'flag: France' },
        { hexcode: '1F474', label: 'older man' },
        { hexcode: '1F44B-1F3FD', label: 'waving hand: medium skin tone' },
        { hexcode: '1F6B6-200D-27A1-FE0F', label: 'person walking facing right' },
      ],
      'emojibase-data/en/shortcodes/cldr.json': {},
      'emoji-datasource-google/emoji.json': [],
      '@iconify-json/streamline-emojis/icons.json': {
        width: 48,
        height: 48,
        icons: Object.fromEntries(icons.map((name) => [name, { body: `<path id="${name}"/>` }])),
      },
    });
    const drawings = styles.streamline!.open(modules) as Map<string, { svg: string; size: number }>;
    const ids = [...drawings].map(([key, { svg, size }]) => [key, /id="([^"]*)"/.exec(svg)?.[1], size]);
    expect(ids).toEqual([
      ['1F436', 'dog-face', 48],
      ['1F916', 'robot-face-2', 48],
      ['1F1EB-1F1F7', 'france', 48],
    ]);
    // Of the font neither flags, which are letters there, nor tones, nor what turns to the right.
    const glyphs = styles['noto-lines']!.open(modules) as Map<string, { characters: string }>;
    expect([...glyphs].map(([key, { characters }]) => [key, characters])).toEqual([
      ['1F436', '🐶'],
      ['1F916', '🤖'],
      ['1F474', '👴'],
    ]);
  });

  it('know the icons of Firefox OS by name', () => {
    expect(fxemojiKeys.get('dog')).toBe('1F436');
    expect(fxemojiKeys.get('germanyflag')).toBeUndefined();
    expect(fxemojiKeys.get('japanflag')).toBe('1F1EF-1F1F5');
    expect(fxemojiKeys.get('beating-heart')).toBe('1F493');
    expect(fxemojiKeys.size).toBe(894);
    expect(new Set(fxemojiKeys.values()).size).toBe(894);
    for (const key of fxemojiKeys.values()) expect(keyOfHexadecimal(key!)).toBe(key);
  });
});

describe('make.mjs', () => {
  it('names the parts when another is asked for', () => {
    const { status, stderr } = spawnSync(process.execPath, [script, 'texts', 'dance'], { encoding: 'utf8' });
    expect(status).toBe(2);
    expect(stderr).toBe('"dance" is no part; there are packages, pictures, texts, shards, sheets\n');
  });
});
