/** A table for a terminal, whose letters have different widths. */

/** Columns that a text takes in a terminal: two for East Asian letters, none for marks above and below others. */
export function columnsOf(text) {
  let columns = 0;
  for (const character of text.normalize('NFC')) {
    if (/\p{Mn}/u.test(character)) continue;
    columns += /\p{Script=Han}|\p{Script=Hiragana}|\p{Script=Katakana}|\p{Script=Hangul}/u.test(character) ? 2 : 1;
  }
  return columns;
}

/**
 * Lines of aligned columns under a title each.
 * @param {string[]} titles those that begin with `>` are aligned to the right
 * @param {string[][]} rows
 */
export function formatTable(titles, rows) {
  const right = titles.map((title) => title.startsWith('>'));
  const lines = [titles.map((title) => title.replace(/^>/, '')), ...rows];
  const widths = titles.map((_, column) => Math.max(...lines.map((line) => columnsOf(line[column]))));
  const rule = widths.map((width) => '─'.repeat(width));
  return [lines[0], rule, ...rows]
    .map((line) => {
      const cells = line.map((cell, column) => {
        const space = ' '.repeat(widths[column] - columnsOf(cell));
        return right[column] ? space + cell : cell + space;
      });
      return `  ${cells.join('  ')}`.trimEnd();
    })
    .join('\n');
}
