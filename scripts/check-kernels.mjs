// Gates on the CUDA kernels that need no GPU: compiles every kernel for every architecture and looks at what ptxas
// reports and at the instructions.
//
//   for every kernel    no stack frame, no spilled register, no local load or store, no static shared memory
//   against the table   native/cuda/kernel-gates.json: no more registers than there, tensor-core instructions and
//                       16-byte accesses to global memory where the table has some
//
//   node scripts/check-kernels.mjs [--update] [FILE.cu …]
//
// `--update` writes the table; read its diff. Results are kept in build-kernels/ while sources do not change. Without
// nvcc the gates are skipped, and say so.
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { countInstructions } from './cubin.mjs';

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const tableFile = path.join(root, 'native/cuda/kernel-gates.json');
const folder = path.join(root, 'build-kernels');
const probes = path.join(root, 'scripts/kernel-probes.cu');

/** Virtual architectures and the real ones compiled from them; sm_86 and sm_89 run the code of sm_80. */
const TARGETS = [
  { from: '80', to: ['80', '86', '89'] },
  { from: '90a', to: ['90a'] },
  { from: '100', to: ['100'] },
  { from: '120', to: ['120'] },
];
const ARCHITECTURES = TARGETS.flatMap(({ to }) => to);

const update = process.argv.includes('--update');
const chosen = process.argv.slice(2).filter((argument) => argument !== '--update');

const nvcc = process.env.NVCC ?? 'nvcc';
const version = /V([\d.]+)/.exec(spawnSync(nvcc, ['--version'], { encoding: 'utf8' }).stdout ?? '')?.[1];
if (version === undefined) {
  console.log(`kernel gates: skipped, there is no ${nvcc} on this machine`);
  process.exit(0);
}

/** Everything that a kernel's code depends on: its folder, the primitives, the contracts, the compiler. */
function fingerprint(source) {
  const hash = createHash('sha256').update(version);
  const folders = [
    path.dirname(source),
    ...['cuda', 'cuda/prim', 'backend', 'tensor'].map((f) => path.join(root, 'native', f)),
  ];
  for (const name of folders)
    for (const file of readdirSync(name).sort())
      if (/\.(cu|cuh|h)$/.test(file)) hash.update(file).update(readFileSync(path.join(name, file)));
  return hash.digest('hex');
}

function run(command, args) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { cwd: root });
    let output = '';
    child.stdout.on('data', (data) => (output += data));
    child.stderr.on('data', (data) => (output += data));
    child.on('error', reject);
    child.on('exit', (code) => (code === 0 ? resolve(output) : reject(new Error(`${args.at(-1)}:\n${output}`))));
  });
}

/** `namespace::kernel<arguments>(parameters)` → `kernel<arguments>`, without namespaces of this package. */
function readableNames(mangled) {
  const { stdout } = spawnSync('c++filt', { input: mangled.join('\n'), encoding: 'utf8' });
  const lines = (stdout ?? '').split('\n');
  return new Map(
    mangled.map((name, index) => {
      const text = (lines[index] ?? name)
        .replaceAll('(anonymous namespace)::', '')
        .replaceAll('siglip2::', '')
        .replaceAll('cuda::', '')
        .replace(/^void /, '');
      let depth = 0;
      let end = text.length;
      for (let i = 0; i < text.length; i++) {
        if (text[i] === '<') depth++;
        else if (text[i] === '>') depth--;
        else if (text[i] === '(' && depth === 0) {
          end = i;
          break;
        }
      }
      return [name, text.slice(0, end)];
    }),
  );
}

/** What ptxas says of each kernel: `mangled sm` → { registers, stack, spills, shared }. */
function parseReport(report) {
  const found = new Map();
  const entry =
    /Compiling entry function '(\w+)' for '(sm_\w+)'[\s\S]*?(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads[\s\S]*?Used (\d+) registers([^\n]*)/g;
  for (const [, kernel, target, stack, stores, loads, registers, rest] of report.matchAll(entry)) {
    const shared = /(\d+) bytes smem/.exec(rest)?.[1] ?? 0;
    found.set(`${kernel} ${target}`, {
      registers: Number(registers),
      stack: Number(stack),
      spills: Number(stores) + Number(loads),
      shared: Number(shared),
    });
  }
  return found;
}

/** Compiles a file for all architectures: kernel → architecture → what was found. */
async function compile(source) {
  const name = path.basename(source, '.cu');
  const cached = path.join(folder, `${name}.json`);
  const key = fingerprint(source);
  if (existsSync(cached)) {
    const stored = JSON.parse(readFileSync(cached, 'utf8'));
    if (stored.key === key) return stored.kernels;
  }
  const keep = path.join(folder, name);
  rmSync(keep, { recursive: true, force: true });
  mkdirSync(keep, { recursive: true });
  const targets = TARGETS.flatMap(({ from, to }) => [
    '-gencode',
    `arch=compute_${from},code=[${to.map((each) => `sm_${each}`).join(',')}]`,
  ]);
  const options = ['-std=c++20', '-O3', '--expt-relaxed-constexpr', '-Inative', '-Xptxas', '-v', ...targets];
  const report = await run(nvcc, [
    ...options,
    '--keep',
    '--keep-dir',
    keep,
    '-c',
    '-o',
    path.join(keep, 'object.o'),
    source,
  ]);
  const facts = parseReport(report);
  const kernels = {};
  for (const { from, to } of TARGETS) {
    for (const architecture of to) {
      const middle = to.length > 1 ? `.compute_${from}.sm_${architecture}` : `.compute_${from}`;
      const counts = countInstructions(
        readFileSync(path.join(keep, `${name}${middle}.cubin`)),
        Number.parseInt(architecture, 10),
      );
      const names = readableNames([...counts.keys()]);
      for (const [mangled, count] of counts) {
        const found = facts.get(`${mangled} sm_${architecture}`);
        if (found === undefined)
          throw new Error(`${source}: ptxas reported nothing of ${mangled} for sm_${architecture}`);
        const kernel = names.get(mangled);
        kernels[kernel] ??= {};
        kernels[kernel][architecture] = { ...found, ...count };
      }
    }
  }
  rmSync(keep, { recursive: true, force: true });
  writeFileSync(cached, JSON.stringify({ key, kernels }));
  return kernels;
}

/** The reader of instructions must see in the probes what is known to be there. */
async function checkProbes() {
  const found = await compile(probes);
  const problems = [];
  for (const architecture of ARCHITECTURES) {
    const counts = (kernel) => found[kernel][architecture];
    const expect = (kernel, what, holds) => {
      if (!holds(counts(kernel)))
        problems.push(`sm_${architecture}: ${kernel}: ${what}: ${JSON.stringify(counts(kernel))}`);
    };
    expect(
      'probe_wide_load_and_store',
      'one LDG and one STG of 16 bytes',
      (c) => c.LDG === 1 && c.STG === 1 && c.wide === 2,
    );
    expect('probe_narrow_load_and_store', 'no access of 16 bytes', (c) => c.LDG === 1 && c.STG === 1 && c.wide === 0);
    expect('probe_local_memory', 'local memory and a stack frame', (c) => c.local > 0 && c.stack > 0);
    expect('probe_wide_copy_and_product', 'LDGSTS of 16 bytes, LDSM, HMMA, MUFU, BAR', (c) => {
      const once = c.LDGSTS === 1 && c.LDSM === 1 && c.HMMA === 1 && c.MUFU === 1;
      return once && c.wide === 1 && c.tensor === 1 && c.BAR >= 1 && c.local === 0;
    });
    expect('probe_narrow_copy', 'LDGSTS, not of 16 bytes', (c) => c.LDGSTS === 1 && c.wide === 0);
  }
  if (problems.length > 0)
    throw new Error(`the instruction reader does not understand nvcc ${version}:\n  ${problems.join('\n  ')}`);
}

mkdirSync(folder, { recursive: true });
const { cuda_kernels: listed } = JSON.parse(readFileSync(path.join(root, 'native/sources.json'), 'utf8'));
const sources = (chosen.length > 0 ? chosen : listed).map((file) => path.resolve(root, file));
await checkProbes();

const kernels = {};
const queue = [...sources];
await Promise.all(
  Array.from({ length: Math.max(1, availableParallelism()) }, async () => {
    for (let source = queue.shift(); source !== undefined; source = queue.shift()) {
      // A kernel of a shared header is compiled by several families.
      const family = path.basename(source, '.cu').replace(/_cuda$/, '');
      for (const [kernel, found] of Object.entries(await compile(source))) kernels[`${family}: ${kernel}`] = found;
    }
  }),
);

const problems = [];
for (const [kernel, architectures] of Object.entries(kernels)) {
  for (const [architecture, found] of Object.entries(architectures)) {
    const fail = (message) => problems.push(`${kernel}, sm_${architecture}: ${message}`);
    if (found.stack > 0) fail(`a stack frame of ${found.stack} bytes`);
    if (found.spills > 0) fail(`${found.spills} bytes of spilled registers`);
    if (found.local > 0) fail(`${found.local} local loads and stores`);
    if (found.shared > 0) fail(`${found.shared} bytes of static shared memory; kernels use dynamic shared memory`);
  }
}

const table = existsSync(tableFile) ? JSON.parse(readFileSync(tableFile, 'utf8')) : { kernels: {} };
if (update) {
  const entries = { ...(chosen.length > 0 ? table.kernels : {}) };
  for (const [kernel, architectures] of Object.entries(kernels))
    entries[kernel] = Object.fromEntries(
      ARCHITECTURES.map((architecture) => {
        const { registers, tensor, wide } = architectures[architecture];
        return [`sm_${architecture}`, `${registers} ${tensor} ${wide}`];
      }),
    );
  const sorted = Object.fromEntries(Object.entries(entries).sort(([a], [b]) => (a < b ? -1 : 1)));
  const columns = 'registers, tensor-core instructions, 16-byte accesses to global memory';
  writeFileSync(tableFile, `${JSON.stringify({ nvcc: version, columns, kernels: sorted }, null, 2)}\n`);
} else {
  for (const [kernel, architectures] of Object.entries(kernels)) {
    for (const [architecture, found] of Object.entries(architectures)) {
      const fail = (message) => problems.push(`${kernel}, sm_${architecture}: ${message}`);
      const entry = table.kernels[kernel]?.[`sm_${architecture}`];
      if (entry === undefined) {
        fail('is not in the table; add it with --update');
        continue;
      }
      const [registers, tensor, wide] = entry.split(' ').map(Number);
      if (found.registers > registers) fail(`${found.registers} registers, the table has ${registers}`);
      if (found.tensor === 0 && tensor > 0) fail('has lost its tensor-core instructions');
      if (found.wide === 0 && wide > 0) fail('has lost its 16-byte accesses');
    }
  }
  if (chosen.length === 0)
    for (const kernel of Object.keys(table.kernels))
      if (kernels[kernel] === undefined)
        problems.push(`${kernel} is in the table, but no longer compiled; use --update`);
}

if (problems.length > 0) {
  console.error(`kernel gates: ${problems.length} problems\n  ${problems.join('\n  ')}`);
  process.exit(1);
}
const count = Object.keys(kernels).length;
console.log(
  `kernel gates: ${count} kernels pass on ${ARCHITECTURES.map((each) => `sm_${each}`).join(', ')} (nvcc ${version})`,
);
