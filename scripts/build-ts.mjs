// Compiles lib/ twice: dist/esm for `import` and dist/cjs for `require`, each with its own declarations.
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const require = createRequire(import.meta.url);
const compiler = require.resolve('typescript/bin/tsc');

function compile(...options) {
  const result = spawnSync(process.execPath, [compiler, '-p', 'tsconfig.build.json', ...options], {
    cwd: root,
    stdio: 'inherit',
  });
  if (result.status !== 0) process.exit(result.status ?? 1);
}

rmSync(path.join(root, 'dist'), { recursive: true, force: true });
compile();

// TypeScript picks the module format from the nearest package.json, so the CommonJS pass runs over the same sources
// under a configuration whose nearest package.json says "commonjs".
const manifest = path.join(root, 'lib', 'package.json');
writeFileSync(manifest, '{ "type": "commonjs" }\n');
try {
  compile('--outDir', 'dist/cjs');
} finally {
  rmSync(manifest, { force: true });
}
mkdirSync(path.join(root, 'dist', 'cjs'), { recursive: true });
writeFileSync(path.join(root, 'dist', 'cjs', 'package.json'), '{ "type": "commonjs" }\n');

const command = path.join(root, 'dist', 'esm', 'cli', 'main.js');
try {
  readFileSync(command);
  chmodSync(command, 0o755);
} catch {
  // The command line is absent only while it is being built from nothing.
}
