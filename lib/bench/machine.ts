import { spawnSync } from 'node:child_process';
import { cpus } from 'node:os';
import loader from '../native-loader.cjs';

/** Where and from what a result comes. */
export interface BenchMachine {
  date: string;
  /** Of the checkout; `+` when files were changed. Absent outside of one. */
  commit?: string;
  node: string;
  processor: string;
  /** What nvidia-smi says: name, driver, clocks, power limit, temperature. Absent without it. */
  gpu?: Record<string, string>;
}

const gpuFields = [
  'name',
  'driver_version',
  'clocks.sm',
  'clocks.mem',
  'clocks.max.sm',
  'clocks.max.mem',
  'power.limit',
  'temperature.gpu',
  'clocks_throttle_reasons.active',
];

function output(command: string, args: string[]): string | undefined {
  const { status, stdout } = spawnSync(command, args, { cwd: loader.packageRoot, encoding: 'utf8', timeout: 10_000 });
  return status === 0 ? stdout.trim() : undefined;
}

/** Describes the machine now: clocks are those of this moment, so ask after the work. */
export function describeBenchMachine(gpuIndex: number | undefined): BenchMachine {
  const machine: BenchMachine = {
    date: new Date().toISOString(),
    node: process.version,
    processor: cpus()[0]?.model ?? 'unknown',
  };
  const commit = process.env.SIGLIP2_COMMIT ?? output('git', ['rev-parse', '--short', 'HEAD']);
  if (commit !== undefined && commit !== '')
    machine.commit = commit + (output('git', ['status', '--porcelain', '--untracked-files=no']) ? '+' : '');
  if (gpuIndex !== undefined) {
    const found = output('nvidia-smi', [`--query-gpu=${gpuFields}`, '--format=csv,noheader', `--id=${gpuIndex}`]);
    if (found !== undefined) {
      const values = found.split(',').map((value) => value.trim());
      machine.gpu = Object.fromEntries(gpuFields.map((field, index) => [field, values[index] ?? '']));
    }
  }
  return machine;
}
