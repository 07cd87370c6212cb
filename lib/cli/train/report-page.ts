/** Style and script of a report. */

export const style = `
:root { --page: #f7f6f3; --card: #ffffff; --ink: #1d1d1b; --soft: #6a6862; --line: #e4e2dc; --wrong: #b3261e;
  --c0: #2563b8; --c1: #c2570c; --c2: #2b7a4b; }
@media (prefers-color-scheme: dark) { :root { --page: #171716; --card: #20201e; --ink: #ecebe7; --soft: #a3a19a;
  --line: #383733; --wrong: #f2837b; --c0: #7fb0f5; --c1: #f0a35e; --c2: #79c99a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1120px; padding: 28px 20px 48px; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 6px; overflow-wrap: anywhere; }
h2 { font-size: 15px; margin: 0 0 8px; }
p { margin: 0 0 14px; color: var(--soft); }
small { color: var(--soft); font-size: 12px; }
.status { color: var(--ink); border: 1px solid var(--line); border-radius: 10px; padding: 2px 9px; margin-right: 6px; }
.status.failed { color: var(--wrong); border-color: var(--wrong); }
figure, section > div:not(.scroll), .tiles > div, section:not(.about) { background: var(--card);
  border: 1px solid var(--line); border-radius: 10px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(230px, 1fr)); gap: 12px; margin: 0 0 14px; }
.tiles > div { padding: 10px 14px; min-width: 0; }
.tiles dt { color: var(--soft); font-size: 13px; }
.tiles dd { margin: 0; font-size: 21px; font-weight: 600; font-variant-numeric: tabular-nums; white-space: nowrap; }
.tiles .wrong dd { color: var(--wrong); }
figure { margin: 0 0 14px; padding: 12px 12px 6px; min-width: 0; }
figcaption { display: flex; flex-wrap: wrap; gap: 2px 14px; align-items: baseline; font-size: 13px; padding: 0 4px 4px;
  color: var(--soft); font-variant-numeric: tabular-nums; }
figcaption b { color: var(--ink); font-size: 14px; }
figcaption i { display: inline-block; width: 10px; height: 10px; border-radius: 3px; margin-right: 5px;
  background: currentColor; }
figcaption output { margin-left: auto; color: var(--ink); }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr)); column-gap: 14px; }
svg { display: block; width: 100%; height: auto; overflow: visible; }
.c0 { color: var(--c0); } .c1 { color: var(--c1); } .c2 { color: var(--c2); }
path { fill: none; }
circle { fill: currentColor; }
.line { stroke: currentColor; stroke-width: 2; stroke-linejoin: round; }
.raw { stroke: currentColor; stroke-width: 1; stroke-opacity: .38; stroke-linejoin: round; }
.grid { stroke: var(--line); }
.axis { stroke: var(--soft); stroke-opacity: .6; }
.broken { stroke: var(--wrong); stroke-width: 2; }
.cursor { stroke: var(--soft); stroke-dasharray: 3 3; visibility: hidden; }
.tick { fill: var(--soft); font-size: 12px; font-variant-numeric: tabular-nums; }
section { margin: 0 0 14px; }
section:not(.about) { padding: 14px 16px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; font-weight: 400; padding: 6px 14px 6px 0; border-top: 1px solid var(--line);
  white-space: nowrap; }
th { font-weight: 600; }
.about { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr)); gap: 14px; }
.about > div { padding: 14px 16px; }
.about dl { display: grid; grid-template-columns: minmax(110px, auto) 1fr; gap: 3px 14px; margin: 0; font-size: 14px; }
.about dt { color: var(--soft); }
.about dd { margin: 0; overflow-wrap: anywhere; }
@media print { body { background: none; } figure, .tiles > div { break-inside: avoid; } }
`;

/** Shows the values of a chart under the pointer. */
export const script = `
for (const svg of document.querySelectorAll('svg[data-curves]')) {
  const { left, width, steps: [first, last], curves } = JSON.parse(svg.dataset.curves);
  const output = svg.parentElement.querySelector('output');
  const cursor = svg.querySelector('.cursor');
  const show = (event) => {
    const box = svg.getBoundingClientRect();
    const x = (event.clientX - box.left) * svg.viewBox.baseVal.width / box.width;
    const wanted = first + (x - left) / width * (last - first);
    let step = first;
    const values = curves.filter(([, points]) => points.length > 0).map(([name, points]) => {
      const near = points.reduce((a, b) => Math.abs(b[0] - wanted) < Math.abs(a[0] - wanted) ? b : a);
      step = near[0];
      return curves.length > 1 ? name + ' ' + near[1] : near[1];
    });
    output.textContent = 'step ' + Math.round(step) + ': ' + values.join(', ');
    cursor.setAttribute('transform', 'translate(' + (left + (step - first) / Math.max(1, last - first) * width) + ')');
    cursor.style.visibility = 'visible';
  };
  svg.addEventListener('pointermove', show);
  svg.addEventListener('pointerleave', () => { output.textContent = ''; cursor.style.visibility = 'hidden'; });
}
`;
