/** The packages that hold drawings and words, in exact versions, in a folder of their own beside the other cached files. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { writeWhole } from './cache.mjs';

/** Name and version of every package. None of them runs code; nothing of them is loaded except files. */
export const packages = {
  'emoji-datasource-google': '16.0.0',
  '@twemoji/svg': '15.0.0',
  '@iconify-json/emojione': '1.2.3',
  '@iconify-json/noto': '1.2.9',
  '@iconify-json/noto-v1': '1.2.5',
  '@iconify-json/fxemoji': '1.2.2',
  '@iconify-json/streamline-emojis': '1.2.4',
  '@expo-google-fonts/noto-emoji': '0.4.7',
  openmoji: '17.0.0',
  'fluentui-emoji': '1.3.0',
  'cldr-annotations-full': '48.2.0',
  'cldr-annotations-derived-full': '48.2.0',
  'emojibase-data': '17.0.0',
};

/** What `npm install` itself writes last; so where it is there, everything is. */
const installedList = path.join('node_modules', '.package-lock.json');

/**
 * Installs what is missing, without running any script of a package.
 *
 * @param {string} cache folder in which `packages/` is made
 * @returns {{ folder: string, installed: boolean }} `node_modules` of the packages; whether something had to be installed
 */
export function installPackages(cache) {
  const folder = path.join(cache, 'packages');
  const folderOfModules = path.join(folder, 'node_modules');
  if (isComplete(folder)) return { folder: folderOfModules, installed: false };
  mkdirSync(folder, { recursive: true });
  writeWhole(
    path.join(folder, 'package.json'),
    `${JSON.stringify({ private: true, dependencies: packages }, null, 2)}\n`,
  );
  const command = ['install', '--ignore-scripts', '--no-audit', '--no-fund', '--save-exact'];
  const { status, error } = spawnSync('npm', command, {
    cwd: folder,
    stdio: ['ignore', 'inherit', 'inherit'],
    shell: process.platform === 'win32',
  });
  if (error !== undefined || status !== 0)
    throw new Error(`npm ${command.join(' ')} failed in ${folder}`, { cause: error });
  if (!isComplete(folder)) throw new Error(`npm installed other versions than those asked for in ${folder}`);
  return { folder: folderOfModules, installed: true };
}

/** Whether every package is there in its version. */
function isComplete(folder) {
  if (!existsSync(path.join(folder, installedList))) return false;
  return Object.entries(packages).every(([name, version]) => {
    const manifest = path.join(folder, 'node_modules', name, 'package.json');
    return existsSync(manifest) && JSON.parse(readFileSync(manifest, 'utf8')).version === version;
  });
}
