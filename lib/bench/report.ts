import { mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { BenchDType } from './case.js';
import type { BenchMachine } from './machine.js';
import type { Roof } from './roof.js';
import type { Measurement } from './run.js';

/** A whole result, as it is written. */
export interface BenchResult {
  device: string;
  description: string;
  dtype: BenchDType;
  repeats: number;
  machine: BenchMachine;
  roof: Roof;
  measurements: Measurement[];
  /** Cases that could not be measured, and why. */
  failures: { kernel: string; name: string; message: string }[];
}

/** Three significant digits, without exponents. */
export function significant(value: number): string {
  if (!Number.isFinite(value)) return String(value);
  const digits = Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value) || 1)));
  return value.toFixed(Math.min(digits, 6));
}

/** A roof in words. */
export function describeRoof({ teraflops, arithmetic, gigabytesPerSecond }: Roof): string {
  return `${significant(teraflops)} TFLOP/s in ${arithmetic}, ${significant(gigabytesPerSecond)} GB/s in a copy`;
}

/** Names of the columns of {@link rowOf}. */
export const columns = [
  'kernel',
  'shape',
  'batch',
  'cold ms',
  'spread',
  'warm ms',
  'TFLOP/s',
  'GB/s',
  'of floor',
  'error',
];

/** A measurement as cells of a table. */
export function rowOf(measured: Measurement): string[] {
  const { median, low, high } = measured.cold;
  return [
    measured.kernel,
    measured.name,
    String(measured.batch),
    significant(median),
    `${(((high - low) / median) * 100).toFixed(1)} %`,
    significant(measured.warm.median),
    measured.teraflops === 0 ? '' : significant(measured.teraflops),
    significant(measured.gigabytesPerSecond),
    `${(measured.fractionOfFloor * 100).toFixed(0)} %`,
    measured.error.toExponential(1),
  ];
}

function toMarkdown(result: BenchResult): string {
  const { machine, roof } = result;
  const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;
  const gpu = Object.entries(machine.gpu ?? {}).map(([name, value]) => `${name} ${value}`);
  return [
    `# Kernels on ${result.description}, ${result.dtype}`,
    '',
    `${machine.date}, commit ${machine.commit ?? 'unknown'}, Node ${machine.node}, device ${result.device}, ${machine.processor}.`,
    ...(gpu.length > 0 ? [`${gpu.join(', ')}.`] : []),
    '',
    `Medians of ${result.repeats} runs; spread is from the 20 % to the 80 % quantile of the cold runs; cold: caches flushed before every run.`,
    'TFLOP/s, GB/s and the fraction of the floor are of the cold median. The floor is operations or bytes, whichever takes',
    `longer, against what this device reached in this run: ${describeRoof(roof)}.`,
    'The error is the largest of any output against the double-precision oracle, relative to its root mean square.',
    '',
    line(columns),
    line(columns.map((_, index) => (index < 2 ? '---' : '---:'))),
    ...result.measurements.map((measured) => line(rowOf(measured))),
    '',
    ...result.failures.map(({ kernel, name, message }) => `- not measured: ${kernel}, ${name}: ${message}`),
    '',
  ].join('\n');
}

/** Writes a result as JSON and Markdown; returns the files' paths without their ends. */
export function writeResult(result: BenchResult, folder: string): string {
  mkdirSync(folder, { recursive: true });
  const slug = result.description
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-|-$/g, '');
  const base = path.join(folder, `kernels-${slug}-${result.dtype}-${result.machine.date.slice(0, 10)}`);
  for (const [end, text] of [
    ['json', `${JSON.stringify(result, null, 2)}\n`],
    ['md', toMarkdown(result)],
  ] as const) {
    const temporary = `${base}.${end}.${process.pid}`;
    try {
      writeFileSync(temporary, text);
      renameSync(temporary, `${base}.${end}`);
    } catch (error) {
      rmSync(temporary, { force: true });
      throw error;
    }
  }
  return base;
}
