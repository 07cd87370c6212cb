/** The options that benchmarks share. */
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { benchmarks } from './paths.mjs';
import { quick, thorough } from './timing.mjs';

/**
 * Reads the command line.
 * @param extra further options, as `parseArgs` takes them
 * @returns their values and: `smoke`; `plan` of the timing; `threads`; `results`, the folder to write to or undefined
 */
export function readOptions(extra = {}) {
  const options = {
    smoke: { type: 'boolean', default: false },
    results: { type: 'string', default: path.join(benchmarks, 'results') },
    seconds: { type: 'string' },
    threads: { type: 'string', default: String(os.availableParallelism()) },
    ...extra,
  };
  let values;
  try {
    ({ values } = parseArgs({ options }));
  } catch (error) {
    console.error(
      `${error.message}\nOptions: ${Object.keys(options)
        .map((name) => `--${name}`)
        .join(' ')}`,
    );
    process.exit(2);
  }
  const plan = values.smoke ? quick : thorough;
  return {
    ...values,
    plan: values.seconds === undefined ? plan : { ...plan, seconds: Number(values.seconds) },
    threads: Number(values.threads),
    results: values.smoke ? undefined : values.results,
  };
}
