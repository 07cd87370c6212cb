// Compiles lib/ twice: dist/esm for `import` and dist/cjs for `require`, each with its own declarations.
import { spawnSync } from 'node:child_process';
import { chmodSync, cpSync, existsSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const require = createRequire(import.meta.url);
const compiler = require.resolve('typescript/bin/tsc');
const dist = path.join(root, 'dist');
// Built beside dist/ and renamed at the end, so that a failed or interrupted build leaves the last one in place.
const building = path.join(root, `build-ts-${process.pid}`);

function compile(...options) {
  const result = spawnSync(process.execPath, [compiler, ...options], { cwd: root, stdio: 'inherit' });
  if (result.status !== 0) {
    rmSync(building, { recursive: true, force: true });
    process.exit(result.status ?? 1);
  }
}

const esm = path.join(building, 'esm');
compile('-p', 'tsconfig.build.json', '--outDir', esm);

// TypeScript takes the module format from the nearest package.json, so the CommonJS pass compiles a copy of the sources
// whose nearest package.json says "commonjs".
const source = path.join(building, 'source');
cpSync(path.join(root, 'lib'), source, { recursive: true });
writeFileSync(path.join(source, 'package.json'), '{ "type": "commonjs" }\n');
const cjs = path.join(building, 'cjs');
const settings = path.join(building, 'tsconfig.json');
writeFileSync(
  settings,
  JSON.stringify({
    extends: '../tsconfig.build.json',
    compilerOptions: { rootDir: './source', outDir: './cjs' },
    include: ['./source'],
  }),
);
compile('-p', settings);
writeFileSync(path.join(cjs, 'package.json'), '{ "type": "commonjs" }\n');
rmSync(source, { recursive: true });
rmSync(settings);

for (const folder of [esm, cjs])
  cpSync(path.join(root, 'lib', 'native-loader.cjs'), path.join(folder, 'native-loader.cjs'));
const command = path.join(esm, 'cli', 'main.js');
if (existsSync(command)) chmodSync(command, 0o755);

rmSync(dist, { recursive: true, force: true });
renameSync(building, dist);
