// Formats the C++ sources with the pinned clang-format; with --check, only says which files are not formatted.
import { spawnSync } from 'node:child_process';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const require = createRequire(import.meta.url);
const manifest = require.resolve('clang-format-node/package.json');
const command = path.join(path.dirname(manifest), require(manifest).bin['clang-format']);

const listed = spawnSync('git', ['ls-files', '-co', '--exclude-standard', 'native'], { cwd: root, encoding: 'utf8' });
const files = listed.stdout.split('\n').filter((file) => /\.(h|cc|cu|cuh)$/.test(file));
const options = process.argv.includes('--check') ? ['--dry-run', '--Werror'] : ['-i'];
const { status } = spawnSync(process.execPath, [command, ...options, ...files], { cwd: root, stdio: 'inherit' });
process.exit(status ?? 1);
