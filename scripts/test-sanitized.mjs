// Runs the test suite on the addon that `npm run build:sanitized` built, with AddressSanitizer and
// UndefinedBehaviorSanitizer. Arguments are passed on to vitest.
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const addon = path.join(root, 'build-sanitized', 'Release', 'siglip2.node');
if (process.platform !== 'linux') fail('the sanitized tests run on Linux only: they need LD_PRELOAD');
if (!existsSync(addon)) fail(`${addon} is missing; build it with: npm run build:sanitized`);

function fail(message) {
  console.error(message);
  process.exit(1);
}

// The runtime of the compiler that built the addon must be in the process before anything else allocates.
function runtimeOf(library) {
  const compiler = process.env.CXX ?? 'c++';
  const file = execFileSync(compiler, [`-print-file-name=${library}`], { encoding: 'utf8' }).trim();
  if (!path.isAbsolute(file)) fail(`${compiler} has no ${library}; the sanitized tests need GCC's sanitizer runtimes`);
  return file;
}

const manifest = createRequire(import.meta.url).resolve('vitest/package.json');
const vitest = path.join(path.dirname(manifest), 'vitest.mjs');
const skipped = ['test/native/leaks.test.ts: a sanitizer keeps freed memory, so memory is never flat'];
console.log(`skipped here:\n${skipped.map((line) => `  ${line}`).join('\n')}`);

const result = spawnSync(
  process.execPath,
  [
    vitest,
    'run',
    '--pool',
    'forks',
    '--maxWorkers',
    '1',
    '--no-file-parallelism',
    '--testTimeout',
    '600000',
    ...process.argv.slice(2),
  ],
  {
    cwd: root,
    stdio: 'inherit',
    env: {
      ...process.env,
      SIGLIP2_NATIVE: addon,
      SIGLIP2_TEST_SANITIZED: '1',
      LD_PRELOAD: [runtimeOf('libasan.so'), runtimeOf('libubsan.so')].join(' '),
      // Leaks: Node.js itself never frees some of its memory at exit. Null: a request that is too large is a failure the
      // code must handle, not a finding. Odr: every instruction set's build has constants of the same names.
      ASAN_OPTIONS: 'detect_leaks=0:allocator_may_return_null=1:detect_odr_violation=0:abort_on_error=1',
      UBSAN_OPTIONS: 'print_stacktrace=1:halt_on_error=1',
    },
  },
);
process.exit(result.status ?? 1);
