// Everything that needs a GPU, by one command:
//
//   npm run gpu -- [PART…] [--logs FOLDER] [--out FOLDER] [--python COMMAND] [--dry-run]
//
// Parts, in this order; all of them unless some are named:
//   test      the kernel, parity and gradient suites on the card (scripts/test-gpu.mjs): test-products with cuBLASLt, test-own
//             with the package's own matrix products
//   sanitize  NVIDIA's compute-sanitizer over the kernel suite at small shapes: memcheck, racecheck, initcheck, synccheck
//   bench     every kernel against its floor: bench-bfloat16, bench-float32
//   peers     PyTorch and Hugging Face on the shapes of the newest results: peers-bfloat16, peers-float32
// Members of a part can be named alone too: `npm run gpu -- racecheck`.
//
// Prints a table at the end and fails when a part did. A machine without a GPU is told so and succeeds. Needs Node, the
// addon, the CUDA library, dist/ and the installed packages; no npm, git or network.
import { spawn, spawnSync } from 'node:child_process';
import { createWriteStream, existsSync, mkdirSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const require = createRequire(import.meta.url);
const groups = {
  test: ['test-products', 'test-own'],
  sanitize: ['memcheck', 'racecheck', 'initcheck', 'synccheck'],
  bench: ['bench-bfloat16', 'bench-float32'],
  peers: ['peers-bfloat16', 'peers-float32'],
};
const parts = Object.values(groups).flat();
const usage = `usage: npm run gpu -- [${Object.keys(groups).join(' | ')} | ${parts.join(' | ')}] [--logs FOLDER] [--out FOLDER] [--python COMMAND] [--dry-run]`;

function fail(message) {
  console.error(message);
  process.exit(2);
}

function readOptions() {
  try {
    return parseArgs({
      allowPositionals: true,
      options: {
        logs: { type: 'string' },
        out: { type: 'string', default: path.join(root, 'benchmarks', 'results') },
        python: { type: 'string', default: process.env.PYTHON || 'python3' },
        'dry-run': { type: 'boolean', default: false },
      },
    });
  } catch (error) {
    return fail(`${error.message}\n${usage}`);
  }
}
const { values: options, positionals } = readOptions();
for (const name of positionals) if (!(name in groups) && !parts.includes(name)) fail(`"${name}" is no part\n${usage}`);
const chosen = parts.filter(
  (part) => positionals.length === 0 || positionals.some((name) => (groups[name] ?? [name]).includes(part)),
);

/** Why nothing can run here; `absent`: because there is no card, which is no failure. */
function obstacle() {
  const { status, stdout } = spawnSync('nvidia-smi', ['--query-gpu=name', '--format=csv,noheader'], {
    encoding: 'utf8',
  });
  const card = status === 0 && stdout.trim() !== '';
  const addon = process.env.SIGLIP2_NATIVE ?? path.join(root, 'build', 'Release', 'siglip2.node');
  if (!existsSync(addon)) return { absent: !card, reason: 'the addon is not built: npm run build' };
  const { noCuda } = require(addon).describe();
  return noCuda === undefined ? undefined : { absent: !card, reason: noCuda };
}

function findSanitizer() {
  const folders = (process.env.PATH ?? '').split(path.delimiter);
  for (const home of [process.env.CUDA_HOME, process.env.CUDA_PATH, '/usr/local/cuda'])
    if (home) folders.push(path.join(home, 'bin'), path.join(home, 'compute-sanitizer'));
  return folders.map((folder) => path.join(folder, 'compute-sanitizer')).find((file) => existsSync(file));
}

/** The newest result of `siglip2 bench` on a GPU in that type. */
function newestResult(dtype) {
  if (!existsSync(options.out)) return undefined;
  return readdirSync(options.out)
    .filter((name) => /^kernels-.*\.json$/.test(name) && !name.endsWith('-peers.json'))
    .map((name) => path.join(options.out, name))
    .sort((a, b) => statSync(b).mtimeMs - statSync(a).mtimeMs)
    .find((file) => {
      const result = JSON.parse(readFileSync(file, 'utf8'));
      return result.dtype === dtype && String(result.device).startsWith('cuda');
    });
}

/**
 * What one process runs: the kernel suite, all in threads of one process, so that the sanitizer sees one program and no
 * worker that is killed before it reports. Small shapes: a sanitizer takes 10 to 100 times as long.
 */
function sanitizeCommand(tool) {
  const vitest = path.join(path.dirname(require.resolve('vitest/package.json')), 'vitest.mjs');
  const suite = ['run', 'test/native/ops', 'test/kernels/sigmoid-loss-golden.test.ts'];
  const inOneProcess = ['--pool', 'threads', '--maxWorkers', '1', '--no-file-parallelism', '--testTimeout', '600000'];
  return {
    command: findSanitizer() ?? 'compute-sanitizer',
    arguments: [
      ...['--tool', tool, '--target-processes', 'all', '--error-exitcode', '3', '--launch-timeout', '300'],
      ...[process.execPath, vitest, ...suite, ...inOneProcess],
    ],
    // Poisoned results are initialised ones: initcheck would see nothing that a kernel leaves unwritten.
    env: {
      SIGLIP2_TEST_DEVICE: 'cuda',
      SIGLIP2_TEST_SHAPES: 'small',
      SIGLIP2_POISON: tool === 'initcheck' ? '0' : '1',
      // cuBLASLt's kernels store by the copy engine, which initcheck does not see; and ours are what is to be checked.
      ...(tool === 'memcheck' ? {} : { SIGLIP2_CUBLASLT: '0' }),
    },
    // The exit code is that of one process; the summaries are of all.
    check: (output) => {
      const summaries = [...output.matchAll(/(?:ERROR|RACECHECK) SUMMARY: (\d+) \w+/g)];
      if (summaries.length === 0) return 'the sanitizer printed no summary';
      return summaries.some(([, errors]) => errors !== '0') ? 'the sanitizer found errors' : undefined;
    },
  };
}

function commandOf(part) {
  if (groups.test.includes(part))
    return {
      command: process.execPath,
      arguments: [path.join(root, 'scripts', 'test-gpu.mjs')],
      env: part === 'test-own' ? { SIGLIP2_CUBLASLT: '0' } : {},
    };
  if (groups.sanitize.includes(part)) return sanitizeCommand(part);
  const [kind, dtype] = part.split('-');
  if (kind === 'bench') {
    const main = path.join(root, 'dist', 'esm', 'cli', 'main.js');
    return {
      command: process.execPath,
      arguments: [main, 'bench', '--device', 'cuda', '--dtype', dtype, '--out', options.out],
    };
  }
  const result = newestResult(dtype);
  const script = path.join(root, 'benchmarks', 'peers', 'torch_kernels.py');
  return {
    command: options.python,
    arguments: [script, result ?? 'RESULT.json'],
    env: { PYTHONUNBUFFERED: '1' },
    missing: result === undefined ? `no ${dtype} result of a GPU in ${options.out}; run bench-${dtype}` : undefined,
  };
}

function show({ command, arguments: list, env = {} }) {
  const quoted = (text) => (/^[\w./:=@-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);
  return [...Object.entries(env).map(([name, value]) => `${name}=${value}`), ...[command, ...list].map(quoted)].join(
    ' ',
  );
}

/** Runs a part, its output to the terminal and to its log; the outcome in words, and whether it is good. */
function runPart(part) {
  const made = commandOf(part);
  console.log(`\n── ${part}: ${show(made)}\n`);
  if (made.missing !== undefined) return { ok: false, outcome: made.missing };
  return new Promise((resolve) => {
    const log =
      options.logs === undefined ? undefined : createWriteStream(path.join(options.logs, `${part}.log`), 'utf8');
    let output = '';
    const child = spawn(made.command, made.arguments, {
      cwd: root,
      env: { ...process.env, ...made.env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    for (const [stream, terminal] of [
      [child.stdout, process.stdout],
      [child.stderr, process.stderr],
    ])
      stream.on('data', (data) => {
        output += data;
        terminal.write(data);
        log?.write(data);
      });
    const finish = (outcome) => {
      log?.end();
      resolve({ ok: outcome === undefined, outcome: outcome ?? 'passed' });
    };
    child.on('error', (error) => finish(`${made.command} cannot be started: ${error.message}`));
    child.on('close', (status, signal) => {
      const found = made.check?.(output);
      finish(status === 0 ? found : `failed with ${signal ?? `exit code ${status}`}${found ? `: ${found}` : ''}`);
    });
  });
}

if (options['dry-run']) {
  for (const part of chosen) {
    const made = commandOf(part);
    console.log(`${part}: ${show(made)}${made.missing ? `  # ${made.missing}` : ''}`);
  }
  process.exit(0);
}
const found = obstacle();
if (found !== undefined) {
  console.log(`${found.absent ? 'skipped' : 'cannot run'}: there is no CUDA device here: ${found.reason}`);
  process.exit(found.absent ? 0 : 2);
}
if (options.logs !== undefined) mkdirSync(options.logs, { recursive: true });
const rows = [];
for (const part of chosen) {
  const start = performance.now();
  const { ok, outcome } = await runPart(part);
  rows.push({ part, seconds: (performance.now() - start) / 1000, ok, outcome });
}
console.log('\npart             seconds  outcome');
for (const { part, seconds, outcome } of rows)
  console.log(`${part.padEnd(15)}  ${seconds.toFixed(0).padStart(7)}  ${outcome}`);
process.exitCode = rows.every(({ ok }) => ok) ? 0 : 1;
