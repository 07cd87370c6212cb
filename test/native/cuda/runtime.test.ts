// The CUDA library's own side of the runtime (memory, copies, errors, cuBLASLt), on machines without a GPU: compiled
// against the toolkit's headers and linked with a fake runtime. Kernels are tested elsewhere.
import { execFile, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { runSeed } from '../../support/random.js';

const run = promisify(execFile);
const here = import.meta.dirname;
const root = path.resolve(here, '../../..');
const compiler = process.env.CXX ?? 'g++';
const include = [process.env.CUDA_PATH, process.env.CUDA_HOME, '/usr/local/cuda', '/usr']
  .filter((folder) => folder !== undefined)
  .map((folder) => path.join(folder, 'include'))
  .find((folder) => existsSync(path.join(folder, 'cuda_runtime_api.h')));
const missing =
  include === undefined
    ? 'the CUDA toolkit has no headers here'
    : spawnSync(compiler, ['--version']).status !== 0
      ? `there is no ${compiler}`
      : undefined;

const sources = [
  'native/cuda/backend.cc',
  'native/cuda/cublaslt_library.cc',
  'native/cuda/cuda_device.cc',
  'native/cuda/cuda_runtime.cc',
  'native/cuda/graphs.cc',
  'native/cuda/library.cc',
  'native/cuda/matmul_plans.cc',
  'native/cuda/scratch.cc',
  'native/cuda/staging.cc',
  'native/cuda/work_sequence.cc',
  'test/native/cuda/fake_runtime.cc',
  'test/native/cuda/graphs_cases.cc',
  'test/native/cuda/runtime_program.cc',
];

describe.skipIf(missing !== undefined)(`CUDA runtime${missing === undefined ? '' : ` (skipped: ${missing})`}`, () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'siglip2-cuda-'));
  const program = path.join(folder, 'program');
  const flags = ['-std=c++20', '-g', '-fPIC', '-Inative', '-Itest/native/cuda', '-isystem', include ?? ''];
  const sanitize = ['-fsanitize=address,undefined', '-fno-sanitize-recover=undefined'];

  beforeAll(async () => {
    const fakes = path.join(folder, 'lib');
    mkdirSync(fakes);
    await run(
      compiler,
      [...flags, '-shared', 'test/native/cuda/fake_cublaslt.cc', '-o', path.join(fakes, 'libcublasLt.so.13')],
      { cwd: root },
    );
    await run(compiler, [...flags, ...sanitize, ...sources, '-o', program, '-ldl', '-lpthread'], { cwd: root });
  }, 600_000);
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  const cases = ['copies', 'memory', 'errors', 'sticky', 'scratch', 'facts', 'matmul', 'no-cublaslt'];
  const graphs = ['graphs', 'graph-errors', 'graph-products', 'no-graphs'];
  const reasons = ['no-driver', 'old-driver', 'no-device', 'old-device'];
  it.each([...cases, ...graphs, ...reasons])('%s', { timeout: 120_000 }, (name) => {
    const { status, stdout, stderr } = spawnSync(program, [name, String(runSeed)], {
      encoding: 'utf8',
      env: {
        ...process.env,
        LD_LIBRARY_PATH: ['matmul', 'graph-products'].includes(name) ? path.join(folder, 'lib') : '',
        ASAN_OPTIONS: 'detect_leaks=0',
      },
    });
    expect(status, `seed ${runSeed}: ${stdout}${stderr}`).toBe(0);
  });
});
