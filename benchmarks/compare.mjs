// Two results of one benchmark, case by case: medians, ratio, noise of both. See README.md.
//   node benchmarks/compare.mjs OLD.json NEW.json
import { ComparisonError, compareResults, readResultFile } from './support/comparison.mjs';
import { format, toTable } from './support/results.mjs';

const percent = (ratio) => `${ratio >= 1 ? '+' : '−'}${(Math.abs(ratio - 1) * 100).toFixed(1)} %`;
const interval = ({ ratio, low, high }) => `${percent(ratio)} (${percent(low)} to ${percent(high)})`;

const medianOf = ({ median, spread, samples }) => `${format(median)} (${(spread * 100).toFixed(0)} % of ${samples})`;

function toMarkdown(before, after) {
  const { cases, warnings } = compareResults(before, after);
  const relative = cases.some(({ yardstick }) => yardstick !== undefined);
  const source = ({ date, commit }) => `${date}, commit ${commit ?? 'unknown'}`;
  const rows = cases.map((each) => [
    each.name,
    each.unit,
    medianOf(each.before),
    medianOf(each.after),
    interval(each.raw),
    ...(relative ? [each.relative ? `${interval(each.relative)} of ${each.yardstick}` : ''] : []),
    each.verdict,
  ]);
  const columns = ['case', 'unit', 'old', 'new', 'change', ...(relative ? ['in the same rounds'] : []), ''];
  return [
    `# ${before.name}: ${source(before)} → ${source(after)}`,
    '',
    ...warnings.map((sentence) => `- ${sentence}.`),
    ...(warnings.length > 0 ? [''] : []),
    ...toTable({ columns, rows }),
    '',
    'Old and new are medians, in brackets the width of the middle 60 % of so many samples; a change is the median of the',
    'ratios of all pairs of samples, in brackets its 95 % interval (Mann and Whitney). Less than 5 %, or an interval around',
    '0, is noise.',
    ...(relative
      ? ['In the same rounds: the same of times relative to a peer or the roof, which a busier machine slows as well.']
      : []),
  ].join('\n');
}

const files = process.argv.slice(2);
try {
  if (files.length !== 2 || files.some((file) => file.startsWith('-')))
    throw new ComparisonError('expected two files: node benchmarks/compare.mjs OLD.json NEW.json');
  console.log(toMarkdown(...files.map(readResultFile)));
} catch (error) {
  if (!(error instanceof ComparisonError)) throw error;
  console.error(error.message);
  process.exitCode = 2;
}
