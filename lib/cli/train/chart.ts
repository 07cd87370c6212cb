/** Curves over steps as SVG. Colours come from the page's style. */
import { linearScale, logScale, type Scale, shortNumber, stepScale } from './scale.js';
import type { Bucket, Series } from './series.js';

/** A point of a curve. */
export interface Point {
  step: number;
  value: number;
}

/** One line of a chart. */
export interface Curve {
  name: string;
  points: readonly Point[];
  /** What the points were smoothed from, drawn faintly behind them. */
  raw?: Series;
  /** Mark the points themselves; for curves of few. */
  marked?: boolean;
}

export interface ChartOptions {
  title: string;
  curves: readonly Curve[];
  /** Steps that the axis covers. */
  steps: readonly [first: number, last: number];
  width: number;
  height: number;
  /** Ends of the vertical axis; default those of the values. */
  range?: readonly [least: number, most: number];
  /** How values are written; default short. */
  format?: (value: number) => string;
}

const margin = { left: 56, right: 14, top: 10, bottom: 26 };
/** From this ratio of the largest to the smallest value on, the axis is logarithmic. */
const logRatio = 40;

/** Text for HTML and SVG. */
export function escaped(text: string): string {
  const entities: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' };
  return text.replace(/[&<>"']/g, (character) => entities[character] as string);
}

/** A chart with its title, as an HTML figure; empty when there is nothing to draw. */
export function chart(options: ChartOptions): string {
  const { title, curves, steps, width, height, format } = options;
  const values = valuesOf(curves);
  if (values === undefined) return '';
  const x = stepScale(steps[0], steps[1], Math.round(width / 110));
  const y = verticalScale(options.range ?? values, options.range !== undefined, Math.round(height / 45));
  const plotWidth = width - margin.left - margin.right;
  const plotHeight = height - margin.top - margin.bottom;
  const place = {
    x: (step: number): number => round(margin.left + plotWidth * x.place(step)),
    y: (value: number): number => round(margin.top + plotHeight * (1 - y.place(value))),
  };
  const right = width - margin.right;
  const bottom = height - margin.bottom;
  const grid = y.ticks
    .map((tick) => {
      const at = place.y(tick);
      return `<path class="grid" d="M${margin.left} ${at}H${right}"/><text class="tick" x="${margin.left - 8}" y="${round(at + 4)}" text-anchor="end">${escaped((format ?? y.label)(tick))}</text>`;
    })
    .join('');
  const axis = x.ticks
    .map(
      (tick) =>
        `<path class="axis" d="M${place.x(tick)} ${bottom}v4"/><text class="tick" x="${place.x(tick)}" y="${bottom + 17}" text-anchor="middle">${shortNumber(tick)}</text>`,
    )
    .join('');
  const lines = curves.map((curve, index) => drawCurve(curve, index, place, bottom)).join('');
  const data = {
    left: margin.left,
    width: plotWidth,
    steps,
    curves: curves.map(({ name, points }) => [
      name,
      points.map(({ step, value }) => [Number(step.toPrecision(8)), Number(value.toPrecision(5))]),
    ]),
  };
  return `<figure><figcaption><b>${escaped(title)}</b>${legend(curves, format ?? shortNumber)}<output></output></figcaption>
<svg viewBox="0 0 ${width} ${height}" role="img" aria-label="${escaped(title)}" data-curves="${escaped(JSON.stringify(data))}">${grid}<path class="axis" d="M${margin.left} ${bottom}H${right}"/>${axis}${lines}<path class="cursor" d="M0 ${margin.top}V${bottom}"/></svg></figure>`;
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}

function valuesOf(curves: readonly Curve[]): [least: number, most: number] | undefined {
  let least = Number.POSITIVE_INFINITY;
  let most = Number.NEGATIVE_INFINITY;
  const add = (value: number): void => {
    if (!Number.isFinite(value)) return;
    least = Math.min(least, value);
    most = Math.max(most, value);
  };
  for (const { points, raw } of curves) {
    for (const { value } of points) add(value);
    for (const bucket of raw?.buckets ?? []) {
      add(bucket.least);
      add(bucket.most);
    }
  }
  return least <= most ? [least, most] : undefined;
}

function verticalScale([least, most]: readonly [number, number], fixed: boolean, count: number): Scale {
  if (!fixed && least > 0 && most / least >= logRatio) return logScale(least, most);
  return linearScale(least, most, count);
}

interface Place {
  x(step: number): number;
  y(value: number): number;
}

function drawCurve({ points, raw, marked }: Curve, index: number, place: Place, bottom: number): string {
  const colour = `c${index}`;
  const behind = raw === undefined ? '' : drawRaw(raw.buckets, colour, place, bottom);
  const line = points.map(({ step, value }) => `${place.x(step)} ${place.y(value)}`).join('L');
  const dots =
    marked || points.length === 1
      ? points
          .map(({ step, value }) => `<circle class="${colour}" cx="${place.x(step)}" cy="${place.y(value)}" r="2.5"/>`)
          .join('')
      : '';
  return `${behind}${line === '' ? '' : `<path class="line ${colour}" d="M${line}"/>`}${dots}`;
}

/** Every bucket from its smallest to its largest value, and marks where values are not finite. */
function drawRaw(buckets: readonly Bucket[], colour: string, place: Place, bottom: number): string {
  let path = '';
  let connected = false;
  let marks = '';
  for (const { first, last, least, most, count, broken } of buckets) {
    const x = place.x((first + last) / 2);
    if (broken > 0) {
      const steps = first === last ? `step ${first}` : `${broken} steps from ${first} to ${last}`;
      marks += `<path class="broken" d="M${x} ${bottom}v-10"><title>${steps}: not finite</title></path>`;
    }
    if (count === 0) {
      connected = false;
      continue;
    }
    path += `${connected ? 'L' : 'M'}${x} ${place.y(least)}${least === most ? '' : `V${place.y(most)}`}`;
    connected = true;
  }
  return `<path class="raw ${colour}" d="${path}"/>${marks}`;
}

function legend(curves: readonly Curve[], format: (value: number) => string): string {
  return curves
    .map(({ name, points }, index) => {
      const last = points.at(-1);
      return `<span><i class="c${index}"></i>${escaped(name)}${last === undefined ? '' : ` ${escaped(format(last.value))}`}</span>`;
    })
    .join('');
}
