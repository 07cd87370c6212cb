/** Curves of long trainings, their axes, and the page that shows them. */
import { describe, expect, it } from 'vitest';
import { chart } from '../../lib/cli/train/chart.js';
import { History, type StepLine } from '../../lib/cli/train/metrics.js';
import { reportPage } from '../../lib/cli/train/report.js';
import { linearScale, logScale, shortNumber, stepScale } from '../../lib/cli/train/scale.js';
import { maximumBuckets, Series } from '../../lib/cli/train/series.js';
import { Random } from '../support/random.js';

describe('a series', () => {
  it('keeps every value while there are few', () => {
    const series = new Series();
    for (let step = 1; step <= maximumBuckets; step++) series.add(step, step ** 2);
    expect(series.buckets.length).toBe(maximumBuckets);
    expect(series.buckets[9]).toEqual({ first: 10, last: 10, least: 100, most: 100, sum: 100, count: 1, broken: 0 });
  });

  it.each([maximumBuckets + 1, 54_321, 300_007])('of %d values loses no peak, no sum and no broken value', (length) => {
    const random = new Random(length);
    const series = new Series();
    let sum = 0;
    let broken = 0;
    const peaks = new Map<number, number>();
    for (let step = 1; step <= length; step++) {
      const special = random.integer(0, length >> 3) === 0;
      const value = special ? (random.next() < 0.5 ? Number.NaN : 1000 + step) : random.next();
      if (Number.isNaN(value)) broken++;
      else sum += value;
      if (value > 1000) peaks.set(step, value);
      series.add(step, value);
    }
    const { buckets } = series;
    expect(buckets.length).toBeLessThanOrEqual(maximumBuckets);
    expect(buckets.length).toBeGreaterThanOrEqual(maximumBuckets / 2);
    expect(buckets[0]?.first).toBe(1);
    expect(buckets.at(-1)?.last).toBe(length);
    buckets.slice(1).forEach(({ first }, i) => {
      expect(first).toBe(buckets[i]!.last + 1);
    });
    expect(peaks.size).toBeGreaterThan(0);
    for (const [step, value] of peaks)
      expect(buckets.find(({ first, last }) => first <= step && step <= last)?.most).toBeGreaterThanOrEqual(value);
    expect(series.buckets.reduce((total, bucket) => total + bucket.broken, 0)).toBe(broken);
    expect(buckets.reduce((total, bucket) => total + bucket.sum, 0)).toBeCloseTo(sum, 3);
  });

  it('smooths towards its neighbours, over gaps, and leaves a constant as it is', () => {
    const constant = new Series();
    const noisy = new Series();
    const random = new Random(3);
    for (let step = 1; step <= 1000; step++) {
      constant.add(step, step % 7 === 0 ? Number.NaN : 5);
      noisy.add(step, 2 + random.next());
    }
    for (const { value } of constant.smoothed()) expect(value).toBeCloseTo(5, 12);
    expect(constant.smoothed().length).toBe(1000 - Math.floor(1000 / 7));
    for (const { value } of noisy.smoothed()) expect(Math.abs(value - 2.5)).toBeLessThan(0.35);
  });
});

describe('an axis', () => {
  it.each([
    [0, 1, 5, ['0.0', '0.2', '0.4', '0.6', '0.8', '1.0']],
    [-10.0007, -9.9993, 3, ['-10.0010', '-10.0005', '-10.0000', '-9.9995', '-9.9990']],
    [0, 34_000, 4, ['0', '10k', '20k', '30k', '40k']],
    [0, 1e-5, 2, ['0', '5e-6', '1e-5']],
  ])('from %d to %d has ticks that can be told apart', (least, most, count, labels) => {
    const { ticks, label, place } = linearScale(least, most, count);
    expect(ticks.map(label)).toEqual(labels);
    expect(place(least)).toBeGreaterThanOrEqual(-1e-12);
    expect(place(most)).toBeLessThanOrEqual(1 + 1e-12);
  });

  it('of one value, of factors, and of steps', () => {
    const one = linearScale(3, 3, 4);
    expect(one.place(3)).toBeGreaterThan(0);
    expect(one.place(3)).toBeLessThan(1);
    const zero = linearScale(0, 0, 4);
    expect(Number.isFinite(zero.place(0))).toBe(true);
    const log = logScale(0.02, 30);
    expect(log.ticks).toEqual([0.1, 1, 10]);
    expect(log.place(0.2) - log.place(0.02)).toBeCloseTo(log.place(20) - log.place(2), 12);
    expect(logScale(1e-12, 1).ticks.length).toBeLessThan(9);
    expect(stepScale(0, 1, 5).ticks).toEqual([0, 1]);
    expect(stepScale(0, 1_000_000, 5).ticks.map(shortNumber)).toEqual(['0', '200k', '400k', '600k', '800k', '1M']);
  });

  it.each([
    [0, '0'],
    [0.001, '0.001'],
    [3.97e-5, '3.97e-5'],
    [-11.93712, '-11.94'],
    [12_345_678, '12.35M'],
    [1e12, '1e12'],
  ])('shows %d as %s', (value, text) => expect(shortNumber(value)).toBe(text));
});

describe('a chart', () => {
  it('draws nothing from nothing, and marks what is not finite', () => {
    const options = { title: 'x', steps: [0, 3], width: 300, height: 100 } as const;
    expect(chart({ ...options, curves: [{ name: 'a', points: [] }] })).toBe('');
    const raw = new Series();
    [1, Number.NaN, 2].forEach((value, i) => {
      raw.add(i + 1, value);
    });
    const drawn = chart({ ...options, curves: [{ name: 'a', points: raw.smoothed(), raw }] });
    expect(drawn).toContain('<title>step 2: not finite</title>');
    expect(drawn).not.toMatch(/NaN|Infinity|undefined/);
  });
});

function line(step: number, more: Partial<StepLine> = {}): StepLine {
  return {
    kind: 'step',
    step,
    loss: 1,
    losses: { sigmoid: 1 },
    gradNorm: 1,
    learningRate: 0.1,
    logitScale: Math.log(10),
    logitBias: -10,
    examplesPerSecond: 5,
    updated: true,
    skippedSteps: 0,
    examples: 4,
    tokens: 300,
    seconds: step,
    time: '2026-01-02T03:04:05.678Z',
    ...more,
  };
}

describe('a report', () => {
  const about = (title: string) => ({
    title,
    sections: [{ heading: 'Model', rows: [['<b>name</b>', '"a" & <script>']] as [string, string][] }],
  });

  it('takes no text for HTML', () => {
    const history = new History();
    history.add(line(1));
    const page = reportPage({
      about: about('</title><script>x'),
      history,
      status: 'running',
      total: 3,
      skippedExamples: 0,
    });
    expect(page).toContain('<dt>&lt;b&gt;name&lt;/b&gt;</dt><dd>&quot;a&quot; &amp; &lt;script&gt;</dd>');
    expect(page.match(/<script>/g)?.length).toBe(1);
  });

  it('can be written before the first step, and when no step had a finite loss', () => {
    const history = new History();
    const page = () =>
      reportPage({ about: about('m'), history, status: 'failed', total: undefined, skippedExamples: 0 });
    expect(page()).toContain('No step has been taken yet');
    history.add(line(1, { loss: Number.NaN, gradNorm: Number.NaN, updated: false, skippedSteps: 1 }));
    expect(page()).not.toMatch(/NaN|undefined|Infinity/);
    expect(page()).toContain('<b>Logit bias</b>');
  });

  it('shows the temperature, not its logarithm', () => {
    const history = new History();
    history.add(line(1));
    expect(history.curves.logitScale.buckets[0]?.sum).toBeCloseTo(10, 12);
    expect(history).toMatchObject({ examples: 4, tokens: 300, seconds: 1 });
  });
});
