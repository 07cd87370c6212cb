// Packs the package as it would be published and checks the result: publint for the manifest and files, "are the types
// wrong" for the declarations under every module resolution, and its size.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const require = createRequire(import.meta.url);
/** Largest size of the packed package: what people wait for when they install it. Most of it is the model. */
const maximumBytes = 25e6;
const folder = mkdtempSync(path.join(tmpdir(), 'siglip2-pack-'));

function run(command, options) {
  const result = spawnSync(command, options, { cwd: root, stdio: ['ignore', 'inherit', 'inherit'] });
  if (result.status !== 0) throw new Error(`${options[0]} failed`);
}

function binary(name, entry) {
  const manifest = require.resolve(`${name}/package.json`);
  const { bin } = require(manifest);
  return path.join(path.dirname(manifest), typeof bin === 'string' ? bin : bin[entry]);
}

try {
  run('npm', ['pack', '--silent', '--ignore-scripts', '--pack-destination', folder]);
  const tarball = path.join(
    folder,
    readdirSync(folder).find((file) => file.endsWith('.tgz')),
  );
  const { size } = statSync(tarball);
  console.log(`packed size: ${(size / 1e6).toFixed(1)} MB of at most ${maximumBytes / 1e6} MB`);
  if (size >= maximumBytes)
    throw new Error(`the packed package has ${size} bytes, and should have less than ${maximumBytes}`);
  run(process.execPath, [path.join(root, 'node_modules', 'publint', 'src', 'cli.js'), tarball, '--strict']);
  // Resolution of Node 10 knows no sub-path exports; the package needs Node 20.
  run(process.execPath, [binary('@arethetypeswrong/cli', 'attw'), tarball, '--profile', 'node16']);
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
} finally {
  rmSync(folder, { recursive: true, force: true });
}
