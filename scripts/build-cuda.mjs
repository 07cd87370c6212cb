// Builds the CUDA library into build-cuda/ and puts it beside the addon, build/Release/siglip2-cuda.so. Incremental.
//
//   node scripts/build-cuda.mjs [--arch native | --arch 80,90a,…] [--jobs N]
//
// Without --arch: every architecture from sm_80 on, and PTX for cards that come later. The compiler is nvcc of the path,
// or the one that the environment variable CUDACXX names.
import { spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, renameSync, rmSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const folder = path.join(root, 'build-cuda');
const oldest = [12, 8]; // the first that knows sm_100 and sm_120
const usage = 'usage: npm run build:cuda [-- [--arch native | --arch 80,90a,…] [--jobs N]]';

function fail(message) {
  console.error(`\nThe CUDA library was not built: ${message}`);
  process.exit(1);
}

function run(command, options) {
  const { status, error } = spawnSync(command, options, { cwd: root, stdio: 'inherit' });
  if (error !== undefined || status !== 0) fail(`${command} ${options[0]} failed${error ? `: ${error.message}` : ''}`);
}

function output(command, options) {
  const { status, stdout } = spawnSync(command, options, { encoding: 'utf8' });
  return status === 0 ? stdout : undefined;
}

function readOptions() {
  try {
    const { values } = parseArgs({ options: { arch: { type: 'string' }, jobs: { type: 'string' } } });
    return values;
  } catch (error) {
    fail(`${error.message}\n${usage}`);
  }
}

/** sm_90 has instructions of its own that only code for "90a" may use; it is the one built for these cards. */
function architecturesHere() {
  const answer = output('nvidia-smi', ['--query-gpu=compute_cap', '--format=csv,noheader']);
  const found = [...new Set(answer?.match(/^\d+\.\d+$/gm) ?? [])];
  if (found.length === 0)
    fail(
      '--arch native asks nvidia-smi for the GPU of this machine, and it names none; give the number instead, as in --arch 90a',
    );
  return found.map((capability) => (capability === '9.0' ? '90a' : capability.replace('.', '')));
}

function chosenArchitectures(text) {
  if (text === undefined) return undefined;
  const names = text === 'native' ? architecturesHere() : text.split(',').map((name) => name.replace(/^sm_/, ''));
  for (const name of names) {
    if (!/^\d{2,3}[af]?$/.test(name)) fail(`"${name}" is no architecture\n${usage}`);
    if (Number.parseInt(name, 10) < 80) fail(`sm_${name} is too old: the kernels need sm_80 (Ampere) or newer`);
  }
  return names.sort((a, b) => Number.parseInt(a, 10) - Number.parseInt(b, 10));
}

const options = readOptions();
const nvcc =
  [process.env.CUDACXX, 'nvcc', '/usr/local/cuda/bin/nvcc'].find(
    (name) => name && output(name, ['--version']) !== undefined,
  ) ??
  fail(
    'there is no nvcc. Install the CUDA toolkit 12.8 or newer and put its bin folder on the path, or set CUDACXX to nvcc',
  );
const version = /release (\d+)\.(\d+)/
  .exec(output(nvcc, ['--version']))
  ?.slice(1)
  .map(Number);
if (version === undefined) fail(`${nvcc} --version names no version`);
if (version[0] < oldest[0] || (version[0] === oldest[0] && version[1] < oldest[1]))
  fail(`${nvcc} is CUDA ${version.join('.')}; ${oldest.join('.')} or newer is needed`);
if (output('cmake', ['--version']) === undefined) fail('there is no cmake; 3.22 or newer is needed');

const architectures = chosenArchitectures(options.arch);
const configuration = [
  '-S',
  root,
  '-B',
  folder,
  '-DCMAKE_BUILD_TYPE=Release',
  '-DSIGLIP2_CUDA=ON',
  `-DCMAKE_CUDA_COMPILER=${nvcc}`,
  // A list given once must not stay in CMake's cache.
  architectures ? `-DSIGLIP2_CUDA_ARCHITECTURES=${architectures.join(';')}` : '-USIGLIP2_CUDA_ARCHITECTURES',
];
if (!existsSync(path.join(folder, 'CMakeCache.txt')) && output('ninja', ['--version']) !== undefined)
  configuration.push('-G', 'Ninja');
run('cmake', configuration);
run('cmake', [
  '--build',
  folder,
  '--config',
  'Release',
  '--target',
  'siglip2-cuda',
  '--parallel',
  options.jobs ?? String(availableParallelism()),
]);

const name = process.platform === 'win32' ? 'siglip2-cuda.dll' : 'siglip2-cuda.so';
const built = [path.join(folder, name), path.join(folder, 'Release', name)].find(existsSync);
const target = path.join(root, 'build', 'Release', name);
mkdirSync(path.dirname(target), { recursive: true });
// Under another name first: a process that has the old one open keeps it.
copyFileSync(built, `${target}.new`);
if (process.platform === 'win32') rmSync(target, { force: true });
renameSync(`${target}.new`, target);
console.log(path.relative(process.cwd(), target));
