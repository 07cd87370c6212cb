// Runs after `npm ci` in a checkout, never when the published package is installed: builds the addon and dist/.
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const scripts = path.dirname(fileURLToPath(import.meta.url));

function run(script) {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [path.join(scripts, script)], { stdio: 'inherit' });
    child.on('error', reject);
    child.on('exit', (code) => (code === 0 ? resolve() : reject(new Error(`${script} failed (exit code ${code})`))));
  });
}

// `npx siglip2` in a checkout runs this, too, and shows nothing of it: minutes of silence for what is there already.
const root = path.dirname(scripts);
const built = ['build/Release/siglip2.node', 'dist/esm/cli/main.js'].every((file) => existsSync(path.join(root, file)));
if (process.env.npm_command === 'exec' && built) process.exit();

const results = await Promise.allSettled([run('build-native.mjs'), run('build-ts.mjs')]);
const failures = results.filter((result) => result.status === 'rejected');
for (const { reason } of failures) console.error(reason.message);
if (failures.length > 0) process.exitCode = 1;
