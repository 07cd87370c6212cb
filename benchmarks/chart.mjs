// A bar chart (SVG) of throughput results of one machine. See README.md.
//   node benchmarks/chart.mjs RESULT.json… --output CHART.svg [--group 'vision, batch 8'] [--reference onnxruntime]
import { renameSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { barsOf, toSvg } from './support/chart.mjs';
import { ComparisonError, readResultFile } from './support/comparison.mjs';
import { root } from './support/paths.mjs';

function parse() {
  try {
    const options = {
      output: { type: 'string' },
      group: { type: 'string', default: 'vision, batch 8' },
      reference: { type: 'string', default: 'onnxruntime' },
    };
    const { values, positionals } = parseArgs({ options, allowPositionals: true });
    if (positionals.length === 0 || values.output === undefined) throw new Error('expected results and --output');
    return { ...values, files: positionals };
  } catch (error) {
    throw new ComparisonError(`${error.message}: node benchmarks/chart.mjs RESULT.json… --output CHART.svg`);
  }
}

function draw({ files, group, reference, output }) {
  const results = files.map(readResultFile);
  const bars = barsOf(results, group, reference);
  const [tower, batch] = group.split(', batch ');
  const { machine, settings } = results[0];
  const unique = (values) => [...new Set(values)].join(', ');
  const names = files.map((file) => path.relative(root, path.resolve(file)));
  const chosen = `--group '${group}' --reference ${reference}`;
  return toSvg({
    title: `${tower === 'vision' ? 'Images' : 'Texts'} a second, ${settings.checkpoint}, ${batch} a batch`,
    subtitle: `Times as fast as ${reference} in the same rounds; lines: the middle 60 % of the rounds. Rates are each of its own run.`,
    footer: `${machine.model}, ${machine.cores} cores, ${machine.instructionSet}, ${unique(results.map(({ date }) => date))}; commit ${unique(results.map(({ commit }) => commit))}`,
    unit: tower === 'vision' ? 'images/s' : 'texts/s',
    bars,
    source: `node benchmarks/chart.mjs ${names.join(' ')} --output ${path.relative(root, path.resolve(output))} ${chosen}`,
  });
}

try {
  const options = parse();
  const svg = draw(options);
  const temporary = `${options.output}.${process.pid}`;
  writeFileSync(temporary, svg);
  renameSync(temporary, options.output);
} catch (error) {
  if (!(error instanceof ComparisonError)) throw error;
  console.error(error.message);
  process.exitCode = 2;
}
