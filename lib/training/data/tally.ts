/** Counts what is skipped, and notices when there is nothing else. */
import type { SiglipError } from '../../errors.js';
import { dataError } from './errors.js';
import type { Skip } from './example.js';
import type { SequenceEvent } from './sequence.js';

/** As many broken examples one after another are no bad luck: a disk is gone, or a path is wrong. */
const longestBrokenRun = 10_000;

/** Follows the events in their order. */
export class SkipTally {
  private pending: Skip[] = [];
  /** Skipped since the last example that could be used. */
  private run = 0;
  private firstOfRun: Skip | undefined;
  private usedInEpoch = false;

  /**
   * @throws SiglipError `ERR_SIGLIP_DATA` with the first reason when a whole epoch had nothing to use, or far too many
   *   examples on end are broken
   */
  count(event: Pick<SequenceEvent, 'kind'> & Partial<{ skip: Skip; whole: boolean }>): void {
    if (event.kind === 'example') {
      this.run = 0;
      this.firstOfRun = undefined;
      this.usedInEpoch = true;
    } else if (event.kind === 'skip') {
      this.skip(event.skip!);
    } else {
      if (event.whole && !this.usedInEpoch) throw this.nothingUsable('none of the examples of an epoch can be used');
      this.usedInEpoch = false;
    }
  }

  private skip(skip: Skip): void {
    this.pending.push(skip);
    this.firstOfRun ??= skip;
    if (++this.run >= longestBrokenRun) throw this.nothingUsable(`${this.run} examples on end cannot be used`);
  }

  private nothingUsable(what: string): SiglipError {
    const { source = 'the data', reason = 'there are none' } = this.firstOfRun ?? {};
    return dataError(source, `${reason}; ${what}, and this is the first`, { details: { skipped: this.run } });
  }

  /** What was skipped since the last call. */
  take(): Skip[] {
    const skips = this.pending;
    this.pending = [];
    return skips;
  }
}
