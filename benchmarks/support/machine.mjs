/** What a result was measured on: without it a number means nothing. */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import os from 'node:os';
import { inspect } from 'siglip2';
import { root } from './paths.mjs';

/**
 * The machine, the software and the commit, for the head of a result.
 * @returns plain data; `slug` is short and fit for a file name
 */
export async function describeMachine() {
  const inspection = await inspect();
  if (inspection.cpu === undefined) throw new Error('the native addon could not be loaded: run `npm run build`');
  const { model, cores, instructionSet } = inspection.cpu;
  return {
    slug: slugOf(`${model} ${cores} cores ${instructionSet}`),
    cpu: { model, ...familyAndModel(), cores, instructionSet },
    memoryGigabytes: Math.round(os.totalmem() / 1e9),
    load: os.loadavg().map((value) => Number(value.toFixed(2))),
    system: `${os.type()} ${os.release().split('-')[0]} ${os.arch()}`,
    node: process.version,
    siglip2: inspection.version,
    commit: commit(),
  };
}

function slugOf(text) {
  return text
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-|-$/g, '');
}

/** Virtual machines hide the CPU's name but not its family and model, which say what core it is. */
function familyAndModel() {
  try {
    const text = readFileSync('/proc/cpuinfo', 'utf8');
    const field = (name) => Number(new RegExp(`^${name}\\s*: (\\d+)$`, 'm').exec(text)?.[1]);
    const [family, modelNumber] = [field('cpu family'), field('model')];
    return Number.isNaN(family) || Number.isNaN(modelNumber) ? {} : { family, modelNumber };
  } catch {
    return {};
  }
}

/** The commit that was measured; `+` when a tracked file differs from it. SIGLIP2_COMMIT names it where there is no git. */
function commit() {
  if (process.env.SIGLIP2_COMMIT) return process.env.SIGLIP2_COMMIT;
  try {
    const git = (...args) =>
      execFileSync('git', args, { cwd: root, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
    // Results themselves are written by these programs and change nothing that is measured.
    const changed = git('status', '--porcelain', '--untracked-files=no', '--', ':!benchmarks/results', ':!docs').trim();
    return git('rev-parse', '--short=12', 'HEAD').trim() + (changed === '' ? '' : '+');
  } catch {
    return 'unknown';
  }
}

/** Jobs that want a core now; more than the cores means that someone else is at work. */
export function currentLoad() {
  return os.loadavg()[0];
}
