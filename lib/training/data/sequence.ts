/** The order in which examples come: a function of the seed, the epoch and a count, so that it can be entered anywhere. */
import { type Example, type Found, isSkip, type Place, type Skip, withCaption } from './example.js';
import { permutation, purposes, RandomStream } from './random.js';
import type { Table } from './table.js';

/** A place between two examples of a sequence. */
export interface Cursor {
  epoch: number;
  /** Examples of the epoch before this place. */
  drawn: number;
  /** Examples that were found in each of the parts of the epoch that had been read to their end; for parts only. */
  counts?: readonly number[];
}

/** The place before the first example of an epoch. */
export function startOf(epoch: number): Cursor {
  return { epoch, drawn: 0 };
}

export type SequenceEvent =
  /** `cursor` is the place after the example. */
  | { kind: 'example'; example: Example; place: Place; cursor: () => Cursor }
  | { kind: 'skip'; skip: Skip }
  /** The end of an epoch; `whole` unless it was entered in the middle. */
  | { kind: 'epoch'; whole: boolean; cursor: () => Cursor };

/** What decides the order besides the data. */
export interface OrderSettings {
  seed: number;
  shuffle: boolean;
  /** How many epochs there are; may be infinite. */
  epochs: number;
}

export interface Sequence {
  /** Examples of an epoch, broken ones included, where that is known without reading them. */
  readonly length: number | undefined;
  /** Everything from a place on. Files are closed when the iteration ends. */
  events(from: Cursor): AsyncGenerator<SequenceEvent>;
}

/** Rows that are read at the same time; what they wait for is the disk or, worse, the network. */
const rowsAhead = 16;

/** A new permutation of all rows in every epoch. */
export class TableSequence implements Sequence {
  constructor(
    private readonly table: Table,
    private readonly settings: OrderSettings,
  ) {}

  get length(): number {
    return this.table.length;
  }

  async *events(from: Cursor): AsyncGenerator<SequenceEvent> {
    const { seed, shuffle, epochs } = this.settings;
    const { length } = this.table;
    const reader = await this.table.open();
    const ahead: Promise<Found>[] = [];
    try {
      for (let { epoch, drawn } = from; epoch < epochs; epoch++, drawn = 0) {
        const whole = drawn === 0;
        const order = shuffle ? await permutation(length, new RandomStream(seed, purposes.order, epoch)) : undefined;
        const rowAt = (place: number): number => order?.[place] ?? place;
        while (drawn < length) {
          for (let place = drawn + ahead.length; place < length && ahead.length < rowsAhead; place++) {
            const reading = reader.read(rowAt(place));
            // A failure is reported when its turn comes; until then it must not count as unhandled.
            reading.catch(() => {});
            ahead.push(reading);
          }
          const found = (await ahead.shift())!;
          const row = rowAt(drawn++);
          if (isSkip(found)) yield { kind: 'skip', skip: found };
          else {
            const cursor = { epoch, drawn };
            const place = [epoch, row] as const;
            yield { kind: 'example', example: withCaption(found, seed, place), place, cursor: () => cursor };
          }
        }
        yield { kind: 'epoch', whole, cursor: () => startOf(epoch + 1) };
      }
    } finally {
      await Promise.allSettled(ahead);
      await reader.close();
    }
  }
}
