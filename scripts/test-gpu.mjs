// Runs the tests of kernels and models on a CUDA device: vitest with SIGLIP2_TEST_DEVICE=cuda (test/support/devices.ts).
// Where there is none it says why and succeeds. Arguments go to vitest. Needs the addon, the CUDA library and the
// installed packages, no network and no other part of npm. SIGLIP2_TEST_DEVICE=simt rehearses it on the emulated GPU.
import { spawnSync } from 'node:child_process';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const require = createRequire(import.meta.url);
const addon = process.env.SIGLIP2_NATIVE ?? path.join(root, 'build', 'Release', 'siglip2.node');

const device = process.env.SIGLIP2_TEST_DEVICE ?? 'cuda';
const { noCuda } = require(addon).describe();
if (device === 'cuda' && noCuda !== undefined) {
  console.log(`skipped: there is no CUDA device here: ${noCuda}`);
  process.exit(0);
}
const vitest = path.join(path.dirname(require.resolve('vitest/package.json')), 'vitest.mjs');
const { status } = spawnSync(process.execPath, [vitest, 'run', ...process.argv.slice(2)], {
  cwd: root,
  stdio: 'inherit',
  env: { ...process.env, SIGLIP2_TEST_DEVICE: device },
});
process.exit(status ?? 1);
