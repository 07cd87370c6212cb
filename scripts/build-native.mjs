// Builds the addon with CMake through cmake-js into build/ (or build-sanitized/ with --sanitize).
import { spawnSync } from 'node:child_process';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const require = createRequire(import.meta.url);
const manifest = require.resolve('cmake-js/package.json');
const command = path.join(path.dirname(manifest), require(manifest).bin['cmake-js']);

const options = ['build', '--log-level', 'warn', '--parallel', String(availableParallelism()), '--CDSIGLIP2_SIMT=ON'];
if (process.argv.includes('--sanitize')) options.push('--out', 'build-sanitized', '--CDSIGLIP2_SANITIZE=ON');

const result = spawnSync(process.execPath, [command, ...options], { cwd: root, stdio: 'inherit' });
if (result.error !== undefined || result.status !== 0) {
  console.error(
    '\nThe native addon was not built. It needs CMake 3.22 or newer and a C++20 compiler (g++ 11, clang 14).',
  );
  process.exit(result.status ?? 1);
}
