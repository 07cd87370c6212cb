/** What the kernel benchmarks share: cases, roofs measured in the same run, the table. */
import { linear, Tensor } from 'siglip2/kernels';
import { compareRows, requirePassed } from './compare.mjs';
import { currentLoad } from './machine.mjs';
import { readOptions } from './options.mjs';
import { normal } from './random.mjs';
import { report } from './results.mjs';
import { median, summarize } from './statistics.mjs';
import { interleave, localContestant } from './timing.mjs';

export const options = readOptions();
export const { threads } = options;

/** A float32 tensor of normally distributed values; `device` as `Tensor.from`. */
export function randomTensor(shape, seed, { deviation = 1, mean = 0, device = 'cpu' } = {}) {
  const elements = shape.reduce((product, size) => product * size, 1);
  return Tensor.from(normal(elements, seed, mean, deviation), shape, { device });
}

/** Runs a kernel and frees what it returns. */
export async function discard(running) {
  for (const output of Object.values(await running)) if (output instanceof Tensor) output.dispose();
}

/** The same kernel on the CPU and on the double-precision `reference` device must agree. */
export async function againstReference(name, width, run) {
  const results = [];
  for (const device of ['cpu', 'reference']) {
    const tensors = await run(device);
    results.push(await tensors.read());
    tensors.dispose();
  }
  return compareRows(`${name}: cpu against reference`, results[0], results[1], width, {
    difference: 1e-4,
    cosine: 1e-9,
  });
}

/**
 * A large linear layer, the practical roof of arithmetic. Its operations over its time say what this machine can do for
 * a kernel of this package at this moment, with whatever else is running.
 */
function arithmeticRoof() {
  const [rows, inputs, outputs] = options.smoke ? [64, 64, 64] : [4096, 1024, 2048];
  const [input, weight] = [randomTensor([rows, inputs], 1), randomTensor([outputs, inputs], 2)];
  const run = () => discard(linear({ input, weight, threads }));
  return { name: 'roof', roof: true, operations: 2 * rows * inputs * outputs, run };
}

/** Copying a large array with one thread, the practical roof of memory traffic: as many bytes read as written. */
function memoryRoof() {
  const from = normal(options.smoke ? 1 << 12 : 1 << 24, 1);
  const to = new Float32Array(from.length);
  return { name: 'roof', roof: true, bytes: 2 * from.byteLength, run: async () => to.set(from) };
}

/**
 * Checks, times and reports cases.
 * @param benchmark `name`, `title`, `notes`; `roof`: 'arithmetic' or 'memory'; `checks`; `cases`: `{ name, shape, run }` and
 *   `operations` (floating-point) or `bytes` (read and written), and `less`, the name of a case to subtract: what is left
 *   is the work of the additional rows alone
 */
export async function runCases({ name, title, roof, checks, cases, notes }) {
  requirePassed(checks);
  const all = [roof === 'arithmetic' ? arithmeticRoof() : memoryRoof(), ...cases];
  process.stderr.write(`${title} (load ${currentLoad().toFixed(1)})\n`);
  const { samples, rounds } = await interleave(
    all.map((entry) => localContestant(entry.name, entry.run)),
    options.plan,
  );
  const [quantity, unit] = roof === 'arithmetic' ? ['operations', 'GFLOP/s'] : ['bytes', 'GB/s'];
  // Each round's rates against the same round's roof: what slowed one slowed the other.
  const rates = ({ name: caseName, [quantity]: amount }) => samples.get(caseName).map((time) => amount / time / 1e6);
  const roofRates = rates(all[0]);
  const rows = all.map((entry) => {
    const time = summarize(samples.get(entry.name));
    const rate = rates(entry);
    const share = median(rate.map((value, round) => (value / roofRates[round]) * 100));
    return [entry.name, entry.shape ?? '', time.median, median(rate), share, ...additional(entry, all, samples, unit)];
  });
  await report(
    {
      name,
      title,
      settings: { dtype: 'float32', threads, rounds },
      checks,
      limits: [],
      tables: [
        {
          title: 'Cases',
          columns: [
            'case',
            'shape',
            'ms',
            unit,
            '% of the roof',
            ...(cases.some(({ less }) => less) ? ['added rows alone, GFLOP/s'] : []),
          ],
          rows: rows.map((row) => row.map((cell) => cell ?? '')),
        },
      ],
      notes: [
        ...notes,
        roof === 'arithmetic'
          ? 'The roof is a linear layer of 4096 × 1024 → 2048 of this package, measured in turn with the cases: a practical roof, not the processor’s.'
          : 'The roof is a copy of 64 MiB by one thread, measured in turn with the cases: a practical roof, not the memory’s.',
      ],
      raw: Object.fromEntries(samples),
    },
    options.results,
  );
}

/** GFLOP/s of the rows that a case has more than the case it names in `less`. */
function additional(entry, all, samples, unit) {
  if (unit !== 'GFLOP/s' || !all.some(({ less }) => less)) return [];
  if (entry.less === undefined) return [''];
  const base = all.find(({ name }) => name === entry.less);
  const times = samples.get(entry.name).map((time, round) => time - samples.get(base.name)[round]);
  return [(entry.operations - base.operations) / median(times) / 1e6];
}
