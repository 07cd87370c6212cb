/** `report.html`: a training at a glance, in one file that needs nothing else. */
import { count, duration, percent, plural } from '../table.js';
import { type Curve, chart, escaped, type Point } from './chart.js';
import type { Description } from './description.js';
import type { CurveName, EvaluationLine, History } from './metrics.js';
import { script, style } from './report-page.js';
import type { Status } from './training.js';

/** What a report is made of. */
export interface ReportContent {
  about: Description;
  history: History;
  status: Status;
  /** Steps of the whole training, if that is known. */
  total: number | undefined;
  skippedExamples: number;
}

const statusTexts: Record<Status, string> = {
  running: 'running',
  finished: 'finished',
  stopped: 'to be continued',
  interrupted: 'interrupted',
  failed: 'ended by an error',
};

/** The page. */
export function reportPage(content: ReportContent): string {
  const { about, status, history } = content;
  const title = `Training of ${about.title}`;
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>${escaped(title)}</title>
<style>${style}</style>
</head>
<body>
<header>
<h1>${escaped(title)}</h1>
<p><span class="status ${status}">${statusTexts[status]}</span> ${escaped(history.lastStep?.time.replace(/T(.*)\.\d+Z$/, ' $1 UTC') ?? '')}</p>
${tiles(content)}
</header>
<main>
${curves(history)}
${evaluationTable(history.evaluations)}
<section class="about">${about.sections.map(section).join('')}</section>
</main>
<script>${script}</script>
</body>
</html>
`;
}

function tiles({ history, total, skippedExamples }: ReportContent): string {
  const { lastStep, examples, tokens, seconds } = history;
  const loss = history.curves.loss.smoothed().at(-1)?.value;
  const { retrieval, zeroShot } = history.evaluations.at(-1) ?? {};
  const step = lastStep?.step ?? 0;
  const skippedSteps = lastStep?.skippedSteps ?? 0;
  const entries: (readonly [name: string, value: string, note: string, wrong?: boolean])[] = [
    ['Steps', count(step), total === undefined ? '' : `of ${count(total)}`],
    ['Loss', loss === undefined ? '–' : loss.toPrecision(4), 'smoothed'],
    ...(retrieval === undefined
      ? []
      : ([
          ['Text to image', percent(firstShare(retrieval.textToImage)), 'R@1'],
          ['Image to text', percent(firstShare(retrieval.imageToText)), 'R@1'],
        ] as const)),
    ...(zeroShot === undefined ? [] : ([['Zero-shot', percent(firstShare(zeroShot.accuracy)), 'top 1']] as const)),
    ['Examples', count(examples), `${count(tokens)} tokens`],
    ['Time', duration(seconds), seconds > 0 ? `${(examples / seconds).toPrecision(3)} examples/s overall` : ''],
    ['Examples skipped', count(skippedExamples), 'could not be used', skippedExamples > 0],
    ['Steps skipped', count(skippedSteps), 'not finite', skippedSteps > 0],
  ];
  const tile = ([name, value, note, wrong = false]: (typeof entries)[number]): string =>
    `<div${wrong ? ' class="wrong"' : ''}><dt>${name}</dt><dd>${escaped(value)}</dd><small>${escaped(note)}</small></div>`;
  return `<dl class="tiles">${entries.map(tile).join('')}</dl>`;
}

function firstShare(shares: Readonly<Record<number, number>>): number {
  return Object.values(shares)[0] as number;
}

const wide = { width: 1040, height: 300 };
const half = { width: 512, height: 210 };

function curves(history: History): string {
  const { lastStep, evaluations } = history;
  if (lastStep === undefined) return '<p>No step has been taken yet.</p>';
  const steps = [0, lastStep.step] as const;
  const of = (name: CurveName, title: string, label: string, size = half): string => {
    const series = history.curves[name];
    return chart({ title, steps, ...size, curves: [{ name: label, points: series.smoothed(), raw: series }] });
  };
  const exact = (name: CurveName, title: string): string => {
    const points = history.curves[name].buckets.flatMap(({ first, last, sum, count: values }) =>
      values === 0 ? [] : [{ step: (first + last) / 2, value: sum / values }],
    );
    const most = points.reduce((largest, { value }) => Math.max(largest, value), 0);
    const range = name === 'learningRate' && most > 0 ? { range: [0, most] as const } : {};
    return chart({ title, steps, ...half, ...range, curves: [{ name: 'now', points }] });
  };
  return [
    of('loss', 'Loss', 'smoothed', wide),
    '<div class="charts">',
    evaluationChart('Retrieval, text to image', steps, evaluations, ({ retrieval }) => retrieval?.textToImage, 'R@'),
    evaluationChart('Retrieval, image to text', steps, evaluations, ({ retrieval }) => retrieval?.imageToText, 'R@'),
    evaluationChart('Zero-shot accuracy', steps, evaluations, ({ zeroShot }) => zeroShot?.accuracy, 'top '),
    exact('learningRate', 'Learning rate'),
    of('gradNorm', 'Gradient norm, before clipping', 'smoothed'),
    exact('logitScale', 'Logit scale, exp(logit_scale)'),
    exact('logitBias', 'Logit bias'),
    of('examplesPerSecond', 'Examples per second', 'smoothed'),
    '</div>',
  ].join('\n');
}

function evaluationChart(
  title: string,
  steps: readonly [number, number],
  evaluations: readonly EvaluationLine[],
  sharesOf: (line: EvaluationLine) => Readonly<Record<number, number>> | undefined,
  prefix: string,
): string {
  const points = new Map<string, Point[]>();
  for (const line of evaluations)
    for (const [k, value] of Object.entries(sharesOf(line) ?? {})) {
      const list = points.get(k) ?? [];
      points.set(k, list);
      list.push({ step: line.step, value });
    }
  const lines: Curve[] = [...points].map(([k, list]) => ({
    name: `${prefix}${k}`,
    points: list,
    marked: list.length <= 50,
  }));
  return chart({
    title,
    steps,
    ...half,
    curves: lines,
    range: [0, 1],
    format: (share) => `${Math.round(share * 100)} %`,
  });
}

function evaluationTable(evaluations: readonly EvaluationLine[]): string {
  const last = evaluations.at(-1);
  if (last === undefined) return '';
  const { retrieval, zeroShot, step, evaluationSeconds } = last;
  const row = (name: string, of: string, shares: Readonly<Record<number, number>>, prefix: string): string => {
    const cells = Object.entries(shares).map(([k, share]) => `<td><small>${prefix}${k}</small> ${percent(share)}</td>`);
    return `<tr><th>${name}</th><td>${of}</td>${cells.join('')}</tr>`;
  };
  const size = retrieval && `${plural(retrieval.images, 'picture')}, ${plural(retrieval.texts, 'text')}`;
  const skipped = (retrieval?.skipped ?? 0) + (zeroShot?.skipped ?? 0);
  return `<section><h2>Last evaluation</h2>
<p>After step ${count(step)}, in ${duration(evaluationSeconds)}${skipped > 0 ? `; ${plural(skipped, 'picture')} could not be read` : ''}.</p>
<div class="scroll"><table>${
    retrieval === undefined
      ? ''
      : row('Text to image', size as string, retrieval.textToImage, 'R@') +
        row('Image to text', size as string, retrieval.imageToText, 'R@')
  }${
    zeroShot === undefined
      ? ''
      : row(
          'Zero-shot classification',
          `${plural(zeroShot.images, 'picture')}, ${count(zeroShot.classes)} classes`,
          zeroShot.accuracy,
          'top ',
        )
  }</table></div></section>`;
}

function section({ heading, rows }: Description['sections'][number]): string {
  const entries = rows.map(([name, value]) => `<dt>${escaped(name)}</dt><dd>${escaped(value)}</dd>`).join('');
  return `<div><h2>${escaped(heading)}</h2><dl>${entries}</dl></div>`;
}
