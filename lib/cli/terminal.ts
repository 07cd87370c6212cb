/** What the commands print, and where: results on stdout, everything about the work on stderr. */
import type { WriteStream } from 'node:tty';
import type { Progress } from './progress.js';

/** Styles of the terminal that are used here: the codes that switch each on. */
const styles = { bold: 1, red: 31, yellow: 33, cyan: 36 } as const;
export type Style = keyof typeof styles;

/** A stream that may be a terminal. */
export type Stream = NodeJS.WritableStream & Partial<Pick<WriteStream, 'isTTY' | 'columns' | 'hasColors'>>;

/** How a command talks to its user. */
export interface TerminalSettings {
  /** One JSON document on stdout instead of text. */
  json: boolean;
  /** No progress, no notices, no closing summary. */
  quiet: boolean;
  /** Stack traces with errors. */
  verbose: boolean;
}

/** The two output streams of a command. */
export class Terminal {
  /** The progress that is on the screen, so that lines can be written above it. */
  active: Progress | undefined;

  constructor(
    readonly settings: TerminalSettings,
    readonly stdout: Stream = process.stdout,
    readonly stderr: Stream = process.stderr,
  ) {}

  /** Text of the result; nothing when the result is a JSON document. */
  print(text: string): void {
    if (this.settings.json) return;
    this.active?.hide();
    this.stdout.write(`${text}\n`);
  }

  /** The result as a JSON document. */
  document(value: unknown): void {
    this.active?.hide();
    this.stdout.write(`${JSON.stringify(value, null, 2)}\n`);
  }

  /** Something worth knowing that is no result and no error. */
  notice(text: string): void {
    if (!this.settings.quiet) this.error(`${this.styleError('note:', 'yellow')} ${text}`);
  }

  /** A line on stderr, quiet or not. */
  error(text: string): void {
    this.active?.hide();
    this.stderr.write(`${text}\n`);
  }

  /** An input that is left out, and why; quiet or not. */
  skipped(name: string, reason: string): void {
    this.error(`${this.styleError('skipped', 'bold', 'red')} ${printable(`${name}: ${reason}`)}`);
  }

  /** Text for stdout in a style, when it is a terminal with colours (NO_COLOR and TERM are obeyed). */
  style(text: string, ...names: Style[]): string {
    return paint(this.stdout, text, names);
  }

  /** Text for stderr in a style. */
  styleError(text: string, ...names: Style[]): string {
    return paint(this.stderr, text, names);
  }
}

function paint(stream: Stream, text: string, names: Style[]): string {
  if (!stream.isTTY || !stream.hasColors?.()) return text;
  return `\u001b[${names.map((name) => styles[name]).join(';')}m${text}\u001b[0m`;
}

/** Whether the locale says that the terminal shows more than ASCII. */
export function showsUnicode(): boolean {
  const { LC_ALL, LC_CTYPE, LANG } = process.env;
  return process.platform === 'win32' || /utf-?8/i.test(LC_ALL || LC_CTYPE || LANG || '');
}

/** File names may hold anything; a terminal must not take it for commands, nor a reader for another line. */
export function printable(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for
  return text.replace(/[\u0000-\u001f\u007f-\u009f]/g, (character) => {
    return `\\x${character.charCodeAt(0).toString(16).padStart(2, '0')}`;
  });
}

/** As {@link printable}, of a message that may have several lines. */
export function printableLines(text: string): string {
  return text.split('\n').map(printable).join('\n');
}

/** A word of a command line as a shell must be given it. */
export function shellWord(text: string): string {
  return /^[\p{L}\p{N}_@%+=:,./-]+$/u.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}
