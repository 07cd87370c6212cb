/** Two results of one benchmark: their series in pairs, and whether a difference is more than the noise of both. */
import { readFileSync } from 'node:fs';
import { median, spread } from './statistics.mjs';

const level = 0.95;
/** What two runs on one machine differ by without a reason: benchmarks/README.md. */
const leastDifference = 0.05;

/** A file that is no result, or two that cannot be compared. */
export class ComparisonError extends Error {}

const isObject = (value) => typeof value === 'object' && value !== null && !Array.isArray(value);

/**
 * Brings a result of benchmarks/ or of `siglip2 bench` into one form.
 * @param text contents of a JSON file
 * @param file its name, for errors
 * @returns `name` of the benchmark, `date`, `machine` and `settings` (plain data), `commit`, `load` (of one minute, or
 *   undefined), `series` as `collectSeries` gives them
 * @throws ComparisonError when it is no result
 */
export function readResult(text, file) {
  let json;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw new ComparisonError(`${file}: expected a result of a benchmark, got no JSON: ${error.message}`);
  }
  const ofBench = Array.isArray(json?.measurements) && isObject(json.machine);
  if (!ofBench && !(typeof json?.name === 'string' && isObject(json.raw) && isObject(json.machine)))
    throw new ComparisonError(
      `${file}: expected a result of a benchmark (JSON with name, machine and raw, or of siglip2 bench), got other JSON`,
    );
  const result = ofBench ? ofKernels(json) : ofSuite(json);
  if (result.series.length === 0) throw new ComparisonError(`${file}: expected samples, got none`);
  return result;
}

/** Reads a file as `readResult` does. */
export function readResultFile(file) {
  let text;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    throw new ComparisonError(`${file}: ${error.code === 'ENOENT' ? 'there is no such file' : error.message}`);
  }
  return readResult(text, file);
}

function ofSuite({ name, date, machine, settings = {}, raw }) {
  const { cpu = {}, load, slug: _, commit, ...software } = machine;
  return {
    name,
    date,
    machine: { ...cpu, ...software },
    settings,
    commit,
    load: load?.[0],
    series: collectSeries(raw),
  };
}

function ofKernels({ measurements, machine, description, dtype, device, repeats }) {
  const { date, commit, gpu, ...software } = machine;
  // What of a GPU stays as it is; clocks and temperature are those of a moment.
  const { name, driver_version, 'power.limit': powerLimit } = gpu ?? {};
  const raw = {};
  for (const { kernel, name: shape, samples } of measurements)
    for (const [temperature, times] of Object.entries(samples)) raw[`${kernel}, ${shape}, ${temperature}`] = times;
  return {
    name: 'siglip2 bench',
    date: date.slice(0, 10),
    machine: { description, ...software, ...(gpu ? { gpu: name, driver: driver_version, powerLimit } : {}) },
    settings: { device, dtype, repeats },
    commit,
    load: undefined,
    series: collectSeries(raw),
  };
}

const units = {
  cpuMilliseconds: 'CPU ms',
  loadingCpu: 'CPU ms',
  peak: 'MB',
  current: 'MB',
  anonymous: 'MB',
  file: 'MB',
};

/** What is no cost, and single calls, whose rounds are there as well. */
const ignored = new Set(['rootMeanSquare', 'packedBytes', 'calls']);

/**
 * The samples of a result's `raw`, however they are nested: lists of numbers, or lists of runs with a number for each
 * quantity.
 * @returns `{ name, group, member, unit, samples }`: what one group holds was measured in the same rounds; samples in ms
 *   or MB
 */
export function collectSeries(raw) {
  const found = [];
  const add = (path, samples) => {
    const key = path.find((part) => part in units);
    const unit = units[key] ?? 'ms';
    // What a quantity is called only says its unit; a place, such as `afterBatch`, stays.
    const names = path.filter((part) => part !== 'milliseconds' && part !== 'cpuMilliseconds');
    const scale = unit === 'MB' ? 1e-6 : 1;
    found.push({
      name: names.join(', '),
      group: [...names.slice(0, -1), unit].join(', '),
      member: names.at(-1),
      unit,
      samples: samples.map((value) => value * scale),
    });
  };
  const walk = (path, value) => {
    if (ignored.has(path.at(-1))) return;
    if (Array.isArray(value)) {
      if (value.length === 0) return;
      if (value.every(Number.isFinite)) add(path, value);
      else if (value.every(isObject))
        for (const part of Object.keys(value[0]))
          walk(
            [...path, part],
            value.map((run) => run[part]),
          );
    } else if (isObject(value)) for (const [part, inner] of Object.entries(value)) walk([...path, part], inner);
  };
  walk([], raw);
  return found;
}

/**
 * How much two lists of samples differ: the median of the ratios of every new sample to every old one (Hodges and Lehmann),
 * and its interval from the order of these ratios by the distribution of Mann and Whitney's statistic (Moses). It
 * assumes no distribution, holds exactly for any number of samples, and a bootstrap of medians does not: with the three
 * to ten samples of a slow benchmark its intervals are too narrow.
 * @returns `ratio`, `low`, `high`; `confidence` that the interval really has: 95 % or more, less when the samples are
 *   too few for that, the interval then being as wide as they allow
 */
export function ratioOf(before, after) {
  const ratios = Float64Array.from(after.flatMap((value) => before.map((old) => value / old))).sort();
  const tails = rankTails(before.length, after.length);
  let rank = 0;
  while (rank + 1 < ratios.length / 2 && tails(rank + 1) <= (1 - level) / 2) rank++;
  return {
    ratio: median([...ratios]),
    low: ratios[rank],
    high: ratios[ratios.length - 1 - rank],
    confidence: 1 - 2 * tails(rank),
  };
}

/**
 * The distribution of Mann and Whitney's statistic for lists of `n` and `m` values that do not differ.
 * @returns a function: the probability that the statistic is at most its argument
 */
function rankTails(n, m) {
  if (n * m > 2500) {
    const [mean, deviation] = [(n * m) / 2, Math.sqrt((n * m * (n + m + 1)) / 12)];
    return (value) => normalTail((value + 0.5 - mean) / deviation);
  }
  // counts[u]: ways to choose ranks whose statistic is u, the coefficients of Gauss's binomial.
  let counts = Float64Array.of(1);
  const length = n * m + 1;
  counts = Float64Array.from({ length }, (_, u) => counts[u] ?? 0);
  for (let i = 1; i <= n; i++) {
    for (let u = length - 1; u >= m + i; u--) counts[u] -= counts[u - m - i];
    for (let u = i; u < length; u++) counts[u] += counts[u - i];
  }
  const total = counts.reduce((sum, count) => sum + count, 0);
  let sum = 0;
  const cumulative = counts.map((count) => {
    sum += count;
    return sum / total;
  });
  return (value) => cumulative[value];
}

/** The standard normal distribution below `z`, to 1e-7 (Abramowitz and Stegun 26.2.17). */
function normalTail(z) {
  const t = 1 / (1 + 0.2316419 * Math.abs(z));
  const series = t * (0.31938153 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429))));
  const tail = (Math.exp((-z * z) / 2) / Math.sqrt(2 * Math.PI)) * series;
  return z < 0 ? tail : 1 - tail;
}

/** Whether a ratio is more than noise: -1 or 1 for its direction, 0 when not. */
function direction({ ratio, low, high }) {
  if ((low <= 1 && high >= 1) || Math.abs(Math.log(ratio)) < Math.log1p(leastDifference)) return 0;
  return Math.sign(ratio - 1);
}

/** Whether a series is one that a change of this package leaves alone. */
const isYardstick = ({ member }) => /^(roof|onnxruntime|torch|Pillow)/.test(member);

/** Of two series of one name, the ratios to the first yardstick that both groups have, round by round, and its name. */
function relativeRatio(before, after) {
  const find = ({ series, all }) =>
    all.filter(
      (other) => other.group === series.group && isYardstick(other) && other.samples.length === series.samples.length,
    );
  const [old, now] = [find(before), find(after)];
  for (const yardstick of isYardstick(before.series) ? [] : old) {
    const other = now.find(({ member }) => member === yardstick.member);
    if (other === undefined) continue;
    const ratios = ({ samples }, { samples: divisors }) => samples.map((time, round) => time / divisors[round]);
    const relative = ratioOf(ratios(before.series, yardstick), ratios(after.series, other));
    return { yardstick: yardstick.member, relative };
  }
  return {};
}

/**
 * Compares two results of one benchmark.
 * @param before, after as `readResult` gives them
 * @returns `cases`: `{ name, unit, before, after }` with `median`, `spread` and number of `samples` of both, `raw` and, where the group has a yardstick, `relative` as
 *   `ratioOf`, `yardstick`, its name, and a `verdict`; `warnings` (sentences)
 * @throws ComparisonError when they are of different benchmarks or have no case in common
 */
export function compareResults(before, after) {
  if (before.name !== after.name)
    throw new ComparisonError(`expected two results of one benchmark, got ${before.name} and ${after.name}`);
  const cases = [];
  const missing = [];
  const key = ({ name, unit }) => `${name}, ${unit}`;
  const later = new Map(after.series.map((series) => [key(series), series]));
  for (const old of before.series) {
    const series = later.get(key(old));
    later.delete(key(old));
    if (series === undefined) {
      missing.push(`only the old result has ${key(old)}`);
      continue;
    }
    const compared = {
      name: old.name,
      unit: old.unit,
      before: { median: median(old.samples), spread: spread(old.samples), samples: old.samples.length },
      after: { median: median(series.samples), spread: spread(series.samples), samples: series.samples.length },
      raw: ratioOf(old.samples, series.samples),
    };
    Object.assign(compared, relativeRatio({ series: old, all: before.series }, { series, all: after.series }));
    cases.push({ ...compared, verdict: verdictOf(compared) });
  }
  for (const name of later.keys()) missing.push(`only the new result has ${name}`);
  if (cases.length === 0) throw new ComparisonError(`${before.name}: the two results have no case in common`);
  return { cases, warnings: [...differences(before, after), ...missing] };
}

function verdictOf({ unit, raw, relative, yardstick }) {
  const words = unit === 'MB' ? { '-1': 'less', 1: 'more' } : { '-1': 'faster', 1: 'slower' };
  if (raw.confidence < level) return 'too few samples';
  const seen = direction(raw);
  if (relative === undefined) return seen === 0 ? 'noise' : `**${words[seen]}**`;
  const against = direction(relative);
  if (seen === against) return seen === 0 ? 'noise' : `**${words[seen]}**`;
  if (against === 0) return `as ${yardstick}: the machine`;
  // The machine changed the other way, or hid the difference.
  return `**${words[against]}** against ${yardstick}`;
}

/** What makes two results less than comparable, as sentences. */
function differences(before, after) {
  const sentences = [];
  const compare = (kind, left, right, except) => {
    for (const name of new Set([...Object.keys(left), ...Object.keys(right)])) {
      const [old, now] = [left[name], right[name]].map((value) => JSON.stringify(value) ?? 'nothing');
      if (old !== now && !except.includes(name)) sentences.push(`${kind} differs: ${name} was ${old}, is ${now}`);
    }
  };
  compare('the machine', before.machine, after.machine, []);
  compare('a setting', before.settings, after.settings, ['rounds', 'repeats']);
  for (const [which, { commit, load, machine }] of Object.entries({ old: before, new: after })) {
    if (commit === undefined || commit === 'unknown') sentences.push(`the ${which} result names no commit`);
    else if (commit.endsWith('+')) sentences.push(`the ${which} result holds changes that were not committed`);
    if (load > 1.5 * machine.cores)
      sentences.push(`the ${which} result was measured at a load of ${load} on ${machine.cores} cores`);
  }
  return sentences;
}
