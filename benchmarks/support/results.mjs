/** Results as JSON for programs and Markdown for readers, one pair of files for a benchmark, a machine and a day. */
import { mkdirSync, renameSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { significant as format } from '../../dist/esm/bench/report.js';
import { requirePassed } from './compare.mjs';
import { describeMachine } from './machine.mjs';

/** Three significant digits, without exponents. */
export { format };

/**
 * Prints a result and, given a folder, writes it there.
 * @param result `name`; `title`; `settings` (plain data); `checks` of the outputs, at least one; `limits`
 *   (`{ name, value, limit, unit, met }`); `tables` (`{ title, columns, rows }`); `notes` (sentences); `raw` (JSON only)
 * @param folder where to write; undefined, as in a smoke run: only print, and judge no limits
 * @returns the files written
 * @throws Error when a check failed: wrong outputs have no speed
 */
export async function report(result, folder) {
  if (result.checks.length === 0) throw new Error(`${result.name}: a result needs a check of its outputs`);
  requirePassed(result.checks);
  const machine = await describeMachine();
  const date = new Date().toISOString().slice(0, 10);
  const markdown = toMarkdown(result, machine, date, folder === undefined ? [] : result.limits);
  process.stdout.write(`${markdown}\n`);
  if (folder === undefined) return [];
  mkdirSync(folder, { recursive: true });
  const base = path.join(folder, `${result.name}-${machine.slug}-${date}`);
  return [
    replaceFile(`${base}.json`, `${JSON.stringify({ date, machine, ...result }, null, 2)}\n`),
    replaceFile(`${base}.md`, markdown),
  ];
}

function replaceFile(file, text) {
  const temporary = `${file}.${process.pid}`;
  writeFileSync(temporary, text);
  renameSync(temporary, file);
  return file;
}

function toMarkdown(result, machine, date, limits) {
  const { cpu } = machine;
  const family = cpu.family === undefined ? '' : ` (family ${cpu.family}, model ${cpu.modelNumber})`;
  const lines = [
    `# ${result.title}`,
    '',
    `${date}, commit ${machine.commit}, siglip2 ${machine.siglip2}, Node ${machine.node}, ${machine.system}.`,
    `${cpu.model}${family}, ${cpu.cores} cores, ${cpu.instructionSet}, ${machine.memoryGigabytes} GB; load average at the end ${machine.load.join(', ')}.`,
    '',
    ...Object.entries(result.settings).map(
      ([key, value]) => `- ${key}: ${typeof value === 'string' ? value : JSON.stringify(value)}`,
    ),
    '',
  ];
  for (const table of result.tables) lines.push(`## ${table.title}`, '', ...toTable(table), '');
  if (limits.length > 0) {
    const rows = limits.map(({ name, value, limit, unit, met }) => [
      name,
      `${format(value)} ${unit}`.trim(),
      limit,
      met ? 'met' : '**missed**',
    ]);
    lines.push('## Limits', '', ...toTable({ columns: ['limit', 'measured', 'asked', ''], rows }), '');
  }
  if (result.notes.length > 0) lines.push('## Notes', '', ...result.notes.map((note) => `- ${note}`), '');
  lines.push('## Checks of the outputs', '', ...result.checks.map(({ name, detail }) => `- ${name}: ${detail}`), '');
  return lines.join('\n');
}

/** Lines of a Markdown table; numbers get three significant digits. */
export function toTable({ columns, rows }) {
  const text = rows.map((row) => row.map((cell) => (typeof cell === 'number' ? format(cell) : cell)));
  return [columns, columns.map((_, i) => (i === 0 ? '---' : '---:')), ...text].map((row) => `| ${row.join(' | ')} |`);
}
