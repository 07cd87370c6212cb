/** Numbers and tables as text. */

/** Lines of aligned columns. A column is aligned to the right when `alignment` has `>` at its position. */
export function table(rows: readonly (readonly string[])[], alignment = '', indent = '  '): string {
  const widths: number[] = [];
  for (const row of rows)
    row.forEach((cell, column) => {
      widths[column] = Math.max(widths[column] ?? 0, [...cell].length);
    });
  return rows
    .map((row) => {
      const cells = row.map((cell, column) => {
        const space = ' '.repeat((widths[column] as number) - [...cell].length);
        return alignment[column] === '>' ? space + cell : cell + space;
      });
      return `${indent}${cells.join('  ')}`.trimEnd();
    })
    .join('\n');
}

/** A horizontal bar of a fixed number of characters, filled from the left. */
export function bar(fraction: number, width: number, unicode: boolean): string {
  const filled = Math.round(Math.min(Math.max(fraction, 0), 1) * width);
  return (unicode ? '█' : '#').repeat(filled).padEnd(width, unicode ? '░' : '.');
}

/** A probability in percent. */
export function percent(probability: number): string {
  const value = probability * 100;
  if (value > 0 && value < 0.001) return '<0.001 %';
  return `${value.toFixed(value < 0.1 ? 3 : 1)} %`;
}

/** A number of bytes, in the decimal units that file managers and the hub show. */
export function bytes(count: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let value = count;
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000;
    unit++;
  }
  return `${unit === 0 || value >= 99.95 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

/** A whole number in groups of three digits. */
export function count(value: number): string {
  return value.toLocaleString('en-US');
}

/** One or many of something: `1 image`, `2 images`. */
export function plural(value: number, noun: string): string {
  return `${count(value)} ${noun}${value === 1 ? '' : 's'}`;
}

/** Seconds as people say them: `under 1 s`, `8 s`, `2 min 05 s`, `3 h 20 min`. */
export function duration(seconds: number): string {
  if (seconds < 1) return 'under 1 s';
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  const two = (value: number): string => String(value).padStart(2, '0');
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
  return `${Math.floor(whole / 3600)} h ${two(Math.floor((whole % 3600) / 60))} min`;
}
