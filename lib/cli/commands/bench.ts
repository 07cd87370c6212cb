import { access, constants, mkdir } from 'node:fs/promises';
import type { Command } from 'commander';
import { type BenchDType, type KernelCase, narrowsWeights } from '../../bench/case.js';
import { allCases } from '../../bench/cases.js';
import { describeBenchMachine } from '../../bench/machine.js';
import { type BenchResult, columns, describeRoof, rowOf, writeResult } from '../../bench/report.js';
import { measureRoof } from '../../bench/roof.js';
import { type Measurement, measure } from '../../bench/run.js';
import { type Device, resolveDevice } from '../../device.js';
import { devices } from '../../kernels/index.js';
import { exitCodes, fileError, UsageError } from '../errors.js';
import { addDeviceOptions, addHubOptions, type CommonOptions, integer } from '../options.js';
import { Progress } from '../progress.js';
import { type Context, runs } from '../run.js';
import { table } from '../table.js';

interface BenchOptions extends CommonOptions {
  repeats: number;
  out?: string;
  list?: boolean;
}

/** Adds `siglip2 bench`. */
export function addBench(program: Command): void {
  const command = program
    .command('bench')
    .summary('measure the kernels on this machine')
    .description(
      "Measures kernels at the shapes of SigLIP 2's models, on a GPU when there is one, else on the CPU. Every kernel is " +
        'compared with the double-precision reference before it is timed.',
    )
    .argument('[words...]', 'only cases whose kernel or shape has one of these words');
  addDeviceOptions(command)
    .option('--dtype <type>', 'float32, bfloat16 or, on a CPU, int8 (default: bfloat16 on a GPU, float32 on a CPU)')
    .option('--repeats <n>', 'runs that are measured, of each case', integer(3, 1000), 20)
    .option('--out <folder>', 'write the result there, as JSON and Markdown')
    .option('--list', 'show the cases, measure nothing');
  addHubOptions(command).addHelpText(
    'after',
    `
Examples:
  siglip2 bench
  siglip2 bench attention --dtype bfloat16 --out results
  siglip2 bench sigmoidLoss So400m --device cpu
  siglip2 bench linear --device cpu --dtype int8`,
  );
  runs(command, benchCommand);
}

async function benchCommand(context: Context, options: BenchOptions, words: string[]): Promise<number> {
  const { terminal, signal } = context;
  const named = allCases().filter(
    ({ kernel, name }) =>
      words.length === 0 || words.some((word) => `${kernel} ${name}`.toLowerCase().includes(word.toLowerCase())),
  );
  if (named.length === 0)
    throw new UsageError(`no case has the words ${words.join(', ')}`, 'siglip2 bench --list shows all cases');
  if (options.list === true) {
    if (terminal.settings.json)
      terminal.document(named.map(({ kernel, name, shape, batch }) => ({ kernel, name, shape, batch })));
    terminal.print(
      table(
        named.map(({ kernel, name, batch }) => [kernel, name, String(batch)]),
        '<<>',
      ),
    );
    return exitCodes.success;
  }
  const device = resolveDevice('--device', options.device);
  const facts = devices().find(({ name }) => name === device);
  const onCpu = facts?.kind !== 'cuda';
  const dtype = benchDType(options.dtype, device, onCpu);
  const chosen = casesOf(named, device, dtype);
  if (chosen.length === 0)
    throw new UsageError(`none of these cases can be measured in ${dtype} on ${device}`, 'siglip2 bench --help');
  if (options.out !== undefined) await makeFolder(options.out);
  if (onCpu) terminal.notice(`measuring on ${device}, with smaller batches: no GPU is used`);
  if (chosen.length < named.length)
    terminal.notice(`left out, for want of a form in ${dtype} on ${device}: ${kernelsOf(named, chosen)}`);

  const progress = new Progress(terminal, 'measuring', { total: chosen.length, unit: 'kernels' });
  const result: BenchResult = {
    device,
    description: String(facts?.description ?? device),
    dtype,
    repeats: options.repeats,
    machine: describeBenchMachine(undefined),
    roof: { gigabytesPerSecond: 0, teraflops: 0, arithmetic: '' },
    measurements: [],
    failures: [],
  };
  try {
    result.roof = await measureRoof(device as Device, dtype, onCpu);
    for (const [index, each] of chosen.entries()) {
      signal.throwIfAborted();
      progress.update(index, `${each.kernel}, ${each.name}`);
      const settings = { device: device as Device, dtype, onCpu, repeats: options.repeats, roof: result.roof, signal };
      let measured: Measurement;
      try {
        measured = await measure(each, settings);
      } catch (error) {
        signal.throwIfAborted();
        const message = error instanceof Error ? error.message : String(error);
        result.failures.push({ kernel: each.kernel, name: each.name, message });
        terminal.error(`${each.kernel}, ${each.name}: ${message}`);
        continue;
      }
      result.measurements.push(measured);
    }
  } finally {
    progress.stop();
  }
  result.machine = describeBenchMachine(onCpu ? undefined : Number(device.split(':')[1] ?? 0));
  // Before anything is printed: a failure is the only JSON document then.
  const written = options.out === undefined ? undefined : writeResult(result, options.out);
  if (terminal.settings.json) terminal.document(result);
  terminal.print(`${result.description}, ${dtype}; in this run ${describeRoof(result.roof)}\n`);
  terminal.print(table([columns, ...result.measurements.map(rowOf)], '<<>>>>>>>>'));
  if (written !== undefined) terminal.print(`\n${written}.{json,md}`);
  return result.failures.length > 0 ? exitCodes.failure : exitCodes.success;
}

/** Makes the folder of --out, so that one that cannot be written into shows before anything is measured. */
async function makeFolder(folder: string): Promise<void> {
  try {
    await mkdir(folder, { recursive: true });
    await access(folder, constants.W_OK);
  } catch (error) {
    throw fileError(`--out: "${folder}" cannot be written into`, error);
  }
}

/** The cases that a device can run in a type. */
function casesOf(cases: KernelCase[], device: string, dtype: BenchDType): KernelCase[] {
  return narrowsWeights(device, dtype) ? cases.filter(({ weightTypes }) => weightTypes?.includes(dtype)) : cases;
}

/** Kernels of which `cases` has more than `chosen`, in words. */
function kernelsOf(cases: KernelCase[], chosen: KernelCase[]): string {
  return [...new Set(cases.filter((each) => !chosen.includes(each)).map(({ kernel }) => kernel))].join(', ');
}

function benchDType(dtype: CommonOptions['dtype'], device: string, onCpu: boolean): BenchDType {
  if (dtype === undefined || dtype === 'auto') return onCpu ? 'float32' : 'bfloat16';
  const known = device === 'cpu' ? ['float32', 'bfloat16', 'int8'] : ['float32', 'bfloat16'];
  if (known.includes(dtype)) return dtype as BenchDType;
  throw new UsageError(
    `--dtype: expected one of ${known.join(', ')} on ${device}, got ${dtype}`,
    'siglip2 bench --help',
  );
}
