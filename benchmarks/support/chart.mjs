/** A bar chart of throughput as SVG, for light and dark pages. */
import { ComparisonError } from './comparison.mjs';
import { format } from './results.mjs';
import { summarize } from './statistics.mjs';
import { pairedRatios } from './timing.mjs';

const types = ['float32', 'bfloat16', 'int8'];

/**
 * The bars of one batch of throughput results: how many times as fast as one peer each contestant was, within the rounds of
 * its own run, and how many images or texts a second it did.
 * @param results as readResult gives them, of one machine; a contestant that several have, in one type, is that of the first
 * @param group such as `vision, batch 8`; `reference`, the peer that is 1
 * @returns `{ name, own, ratio: { median, low, high }, perSecond }`, fastest first; `own` for this package
 * @throws ComparisonError when a result has no such group or peer, or is of another machine
 */
export function barsOf(results, group, reference) {
  const batch = Number(/batch (\d+)/.exec(group)?.[1]);
  if (!(batch > 0)) throw new ComparisonError(`--group: expected such as "vision, batch 8", got "${group}"`);
  const bars = new Map();
  const machineOf = ({ machine: { model, cores, instructionSet } }) => `${model}, ${cores} cores, ${instructionSet}`;
  for (const result of results) {
    if (machineOf(result) !== machineOf(results[0]))
      throw new ComparisonError(
        `expected results of one machine, got ${machineOf(results[0])} and ${machineOf(result)}`,
      );
    const contestants = result.series.filter((each) => each.group === `${group}, ms`);
    const peer = contestants.find(({ member }) => member === reference);
    if (peer === undefined)
      throw new ComparisonError(`${result.name}: expected ${reference} in "${group}", got ${describe(contestants)}`);
    for (const { member, samples } of contestants) {
      const name = nameOf(member, result.settings);
      if (bars.has(name)) continue;
      bars.set(name, {
        name,
        own: member === 'siglip2',
        ratio: summarize(pairedRatios(peer.samples, samples)),
        perSecond: (batch / summarize(samples).median) * 1000,
      });
    }
  }
  return [...bars.values()].sort((one, other) => other.ratio.median - one.ratio.median);
}

const describe = (contestants) => contestants.map(({ member }) => member).join(', ') || 'nothing';

/** What a contestant said of itself, in short: name and version, how it runs, and type. */
function nameOf(member, settings) {
  const parts = String(settings[member] ?? member).split(', ');
  const dtype = parts.find((part) => types.includes(part)) ?? 'float32';
  const compiled = parts.includes('compiled') ? ' compiled' : '';
  return `${parts[0].replace(/\+cpu$/, '')}${compiled}, ${dtype}`;
}

const escaped = (text) => text.replace(/[&<>"]/g, (character) => `&#${character.charCodeAt(0)};`);

const layout = { width: 860, labels: 320, values: 200, row: 30, bar: 18, top: 64, bottom: 44 };

/**
 * @param chart `title`, `subtitle`, `footer` (text); `unit` of `perSecond`; `bars` as barsOf; `source`, the command that made it
 * @returns the SVG file
 */
export function toSvg({ title, subtitle, footer, unit, bars, source }) {
  const { width, labels, values, row, bar, top, bottom } = layout;
  const height = top + row * bars.length + bottom;
  const longest = Math.max(...bars.map(({ ratio }) => ratio.high));
  const x = (ratio) => labels + (ratio / longest) * (width - labels - values);
  const at = (value) => value.toFixed(1);
  const rows = bars.map(({ name, own, ratio, perSecond }, index) => {
    const middle = top + row * index + row / 2;
    const style = own ? 'own' : 'peer';
    const { median, low, high } = ratio;
    return [
      `<text class="${style}-label" x="${labels - 10}" y="${at(middle + 5)}" text-anchor="end">${escaped(name)}</text>`,
      `<rect class="${style}" x="${labels}" y="${at(middle - bar / 2)}" width="${at(x(median) - labels)}" height="${bar}" rx="2"/>`,
      ...(low === high ? [] : [`<path class="range" d="M${at(x(low))} ${at(middle)}H${at(x(high))}"/>`]),
      `<text class="${style}-label" x="${at(x(Math.max(high, median)) + 8)}" y="${at(middle + 5)}">${format(median)} × <tspan class="quiet">· ${format(perSecond)} ${unit}</tspan></text>`,
    ].join('\n');
  });
  // Colours that differ in brightness as well, on white and on black.
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img" aria-labelledby="title subtitle">
<!-- ${source.replaceAll('--', '- -')} -->
<style>
text { font: 14px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: #57606a }
.title { font-size: 17px; font-weight: 600; fill: #1f2328 }
.own-label { font-weight: 600; fill: #1f2328 }
.quiet { font-weight: 400; fill: #57606a }
.small { font-size: 12px }
.own { fill: #0969da }
.peer { fill: #afb8c1 }
.range { stroke: #1f2328; stroke-width: 1.5; fill: none }
@media (prefers-color-scheme: dark) {
text, .quiet { fill: #9198a1 }
.title, .own-label { fill: #f0f6fc }
.own { fill: #4493f8 }
.peer { fill: #656c76 }
.range { stroke: #f0f6fc }
}
</style>
<text id="title" class="title" x="12" y="26">${escaped(title)}</text>
<text id="subtitle" class="small" x="12" y="46">${escaped(subtitle)}</text>
${rows.join('\n')}
<text class="small" x="12" y="${height - 14}">${escaped(footer)}</text>
</svg>
`;
}
