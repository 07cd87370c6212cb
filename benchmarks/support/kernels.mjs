/** What the kernel benchmarks share: cases, roofs measured in the same run, the table. */
import { Tensor } from 'siglip2/kernels';
import { runArithmeticRoof } from '../../dist/esm/bench/roof.js';
import { timeKernel } from '../../dist/esm/kernels/timing.js';
import { compareRows, requirePassed } from './compare.mjs';
import { currentLoad } from './machine.mjs';
import { readOptions } from './options.mjs';
import { normal } from './random.mjs';
import { format, report } from './results.mjs';
import { median, summarize } from './statistics.mjs';
import { interleave, localContestant, pairedRatios } from './timing.mjs';

export const options = readOptions();
export const { threads } = options;

/** A float32 tensor of normally distributed values; `device` as `Tensor.from`. */
export function randomTensor(shape, seed, { deviation = 1, mean = 0, device = 'cpu' } = {}) {
  const elements = shape.reduce((product, size) => product * size, 1);
  return Tensor.from(normal(elements, seed, mean, deviation), shape, { device });
}

/** Frees what a kernel returns. */
export async function discard(running) {
  for (const output of Object.values(await running)) if (output instanceof Tensor) output.dispose();
}

/**
 * The same kernel on the CPU and on the double-precision `reference` device must agree.
 * @param run given the device, resolves to the output tensor, [rows, width]
 * @param bounds as compareRows; by default those of float32
 */
export async function againstReference(name, width, run, bounds = { difference: 1e-4, cosine: 1e-9 }) {
  const results = [];
  for (const device of ['cpu', 'reference']) {
    const tensors = await run(device);
    results.push(await tensors.read());
    tensors.dispose();
  }
  return compareRows(`${name}: cpu against reference`, results[0], results[1], width, bounds);
}

// Of operations of several layers: what is between them is rounded, too, and may be rounded the other way.
const boundsOfLayers = {
  bfloat16: { difference: 5e-2, cosine: 1e-5 },
  int8: { difference: 0.1, cosine: 1e-4 },
};

/**
 * Checks and cases of an operation of several layers, for each model in each type of weights.
 * @param models `model`, its name, `width` of the output, and what the other functions read
 * @param operation a kernel with `weightDtype`
 * @param argumentsOf given a model, the device, and whether they are to be few, for the check; of the operation
 * @param describe given a model: `shape`, in words, and `operations`
 */
export async function casesOfLayers(models, operation, argumentsOf, describe) {
  const checks = [];
  const cases = [];
  for (const model of models)
    for (const weightDtype of ['float32', 'bfloat16', 'int8']) {
      const name = `${model.model}, ${weightDtype}`;
      const call = (args) => operation({ ...args, weightDtype, threads });
      const check = async (device) => (await call(argumentsOf(model, device, true))).output;
      checks.push(await againstReference(name, model.width, check, boundsOfLayers[weightDtype]));
      const args = argumentsOf(model, 'cpu', false);
      cases.push({ name, ...describe(model), dtype: weightDtype, kernel: () => call(args) });
    }
  return { checks, cases };
}

/**
 * The rate of the instruction that products with weights of this type are made of, on registers alone: what a kernel could
 * reach at this moment, with whatever else is running. Or, in `missing`, why there is none.
 */
async function arithmeticRoof(dtype) {
  const settings = { dtype, turns: options.smoke ? 1000 : 4e6, threads };
  const { operations, instruction, message } = await runArithmeticRoof(settings).catch((error) => error);
  if (operations === undefined) return { dtype, missing: `${dtype} was not measured: ${message}.` };
  const contestant = localContestant(`roof of ${dtype}`, () => runArithmeticRoof(settings));
  return { contestant, dtype, operations, shape: instruction };
}

/** Copying a large array with one thread, the practical roof of memory traffic: as many bytes read as written. */
function memoryRoof() {
  const from = normal(options.smoke ? 1 << 12 : 1 << 24, 1);
  const to = new Float32Array(from.length);
  const contestant = localContestant('roof', async () => to.set(from));
  return { contestant, bytes: 2 * from.byteLength, shape: '' };
}

/** A call of a kernel, timed by the native core: without JavaScript, and with weights that are packed already. */
function kernelContestant(name, call) {
  return {
    name,
    async time(repeats) {
      const before = process.cpuUsage();
      const { milliseconds, result } = await timeKernel({ repeats, cold: false }, call);
      const { user, system } = process.cpuUsage(before);
      await discard(result);
      // Each run that counts follows one that does not, and one more comes first and last.
      return { milliseconds, cpuMilliseconds: (((user + system) / 1000) * repeats) / (2 * repeats + 2) };
    },
  };
}

/**
 * Checks, times and reports cases.
 * @param benchmark `name`, `title`, `notes`; `roof`: 'arithmetic' or 'memory'; `checks`; `cases`: `{ name, shape }`, `kernel`, a
 *   call of one kernel, or `run`, any work; `operations` (floating-point) or `bytes` (read and written); `dtype` of the
 *   weights, default float32, whose roof counts
 */
export async function runCases({ name, title, roof, checks, cases, notes }) {
  requirePassed(checks);
  const types = [...new Set(cases.map(({ dtype = 'float32' }) => dtype))];
  const found = roof === 'arithmetic' ? await Promise.all(types.map(arithmeticRoof)) : [memoryRoof()];
  const missing = found.filter((each) => each.missing);
  const roofs = found.filter((each) => !each.missing);
  const measured = cases.filter((each) => !missing.some(({ dtype }) => dtype === each.dtype));
  const all = [
    ...roofs,
    ...measured.map((each) => ({
      ...each,
      contestant: each.kernel ? kernelContestant(each.name, each.kernel) : localContestant(each.name, each.run),
    })),
  ];
  process.stderr.write(`${title} (load ${currentLoad().toFixed(1)})\n`);
  const { samples, rounds } = await interleave(
    all.map(({ contestant }) => contestant),
    options.plan,
  );
  const [quantity, unit] = roof === 'arithmetic' ? ['operations', 'GFLOP/s'] : ['bytes', 'GB/s'];
  const timesOf = ({ contestant }) => samples.get(contestant.name);
  const rates = (each) => timesOf(each).map((time) => each[quantity] / time / 1e6);
  // Each round's rates against the same round's roof: what slowed one slowed the other.
  const rows = all.map((each) => {
    const own = roofs.find(({ dtype }) => dtype === (each.dtype ?? 'float32')) ?? roofs[0];
    const share = summarize(pairedRatios(rates(each), rates(own)).map((ratio) => ratio * 100));
    const cells = [each.contestant.name, each.shape, median(timesOf(each)), median(rates(each))];
    return [...cells, `${format(share.median)} (${format(share.low)} to ${format(share.high)})`];
  });
  await report(
    {
      name,
      title,
      settings: { dtype: types.join(', '), threads, rounds },
      checks,
      limits: [],
      tables: [{ title: 'Cases', columns: ['case', 'shape', 'ms', unit, '% of the roof'], rows }],
      notes: [
        ...notes,
        ...missing.map((each) => each.missing),
        'Medians; in brackets the range of the middle 60 % of the rounds, each against its own round’s roof.',
        roof === 'arithmetic'
          ? 'A roof is the instruction that products with such weights are made of, on registers alone, measured in turn with the cases.'
          : 'The roof is a copy of 64 MiB by one thread, measured in turn with the cases: a practical roof, not the memory’s.',
      ],
      raw: Object.fromEntries(samples),
    },
    options.results,
  );
}
