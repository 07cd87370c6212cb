/** How far long work has come, on stderr. */
import { bar, bytes, count, duration } from './table.js';
import { printable, showsUnicode, type Terminal } from './terminal.js';

/** What is counted. */
export type Unit = 'images' | 'texts' | 'steps' | 'kernels' | 'bytes';

const redrawMs = 100;
const plainLineMs = 5_000;
/** Of the time since the start: so that a log of days has hundreds of lines and not tens of thousands. */
const plainLineShare = 0.01;

/**
 * On a terminal one line that is redrawn and vanishes at the end; elsewhere a plain line every five seconds, more rarely
 * when the work takes long, so that logs of short work have none. Shows the rate and the time left, both from what was
 * counted since the start.
 */
export class Progress {
  readonly #started = performance.now();
  readonly #startedAt: number;
  #shown = false;
  #last: number;

  /**
   * @param label what is being done
   * @param work what is counted, and up to where if that is known; without it only the label is shown, and only on a
   *   terminal
   */
  constructor(
    private readonly terminal: Terminal,
    private readonly label: string,
    private readonly work?: { total: number | undefined; unit: Unit; start?: number },
  ) {
    this.#startedAt = work?.start ?? 0;
    this.#last = terminal.stderr.isTTY ? Number.NEGATIVE_INFINITY : this.#started;
    if (!terminal.settings.quiet) terminal.active = this;
    this.update(this.#startedAt);
  }

  /**
   * Says how much is done.
   * @param detail what to show in place of the rate
   */
  update(done: number, detail?: string): void {
    const { terminal } = this;
    if (terminal.active !== this) return;
    const now = performance.now();
    const plainMs = Math.max(plainLineMs, plainLineShare * (now - this.#started));
    if (now - this.#last < (terminal.stderr.isTTY ? redrawMs : plainMs)) return;
    this.#last = now;
    if (terminal.stderr.isTTY) {
      const columns = terminal.stderr.columns ?? 80;
      terminal.stderr.write(`\r\u001b[2K${cut(this.#line(done, now, true, detail), columns - 1)}`);
      this.#shown = true;
    } else if (this.work !== undefined) {
      terminal.stderr.write(`${this.#line(done, now, false, detail)}\n`);
    }
  }

  /** Clears the line, for text that follows; the next update draws it again. */
  hide(): void {
    if (this.#shown) this.terminal.stderr.write('\r\u001b[2K');
    this.#shown = false;
    if (this.terminal.stderr.isTTY) this.#last = Number.NEGATIVE_INFINITY;
  }

  /** Ends the display. */
  stop(): void {
    this.hide();
    if (this.terminal.active === this) this.terminal.active = undefined;
  }

  #line(done: number, now: number, withBar: boolean, detail: string | undefined): string {
    const label = printable(this.label);
    if (this.work === undefined) return label;
    const { total, unit } = this.work;
    const seconds = (now - this.#started) / 1000;
    const rate = seconds > 0 ? (done - this.#startedAt) / seconds : 0;
    const amount = unit === 'bytes' ? bytes : count;
    const goal = total === undefined ? '' : ` of ${amount(total)}`;
    const parts = [`${amount(done)}${goal}${unit === 'bytes' ? '' : ` ${unit}`}`];
    if (detail !== undefined) parts.push(detail);
    if (rate > 0) {
      if (detail === undefined)
        parts.push(unit === 'bytes' ? `${bytes(rate)}/s` : `${rate < 10 ? rate.toFixed(1) : Math.round(rate)}/s`);
      if (total !== undefined && done < total) parts.push(`${duration((total - done) / rate)} left`);
    }
    if (total === undefined) return `${label} ${parts.join(', ')}`;
    const fraction = total === 0 ? 1 : done / total;
    return `${label} ${withBar ? `${bar(fraction, 20, showsUnicode())} ` : ''}${Math.floor(fraction * 100)} %, ${parts.join(', ')}`;
  }
}

function cut(text: string, width: number): string {
  const characters = [...text];
  return characters.length <= width ? text : characters.slice(0, Math.max(width, 0)).join('');
}
