/** The order of data that can only be read in stretches: the parts in random order, then a shuffle buffer. */
import { setImmediate } from 'node:timers/promises';
import { dataError } from './errors.js';
import { type Found, isSkip, type StoredExample, withCaption } from './example.js';
import type { Part } from './parts.js';
import { permutation, purposes, RandomStream, stepsAtOnce } from './random.js';
import { type Cursor, type OrderSettings, type Sequence, type SequenceEvent, startOf } from './sequence.js';
import { ShuffleBuffer } from './shuffle-buffer.js';

/**
 * An example that waits to be drawn, and its number in the order of reading, from 0 in every epoch. Its captions are one
 * string of JSON: the garbage collector visits everything that waits, again and again.
 */
interface Waiting {
  number: number;
  stored: Omit<StoredExample, 'texts'>;
  texts: string;
}

function waiting(number: number, { texts, ...stored }: StoredExample): Waiting {
  return { number, stored, texts: JSON.stringify(texts) };
}

/** Reads the parts of an epoch one after another. */
class EpochReader {
  /** Examples found in each of the parts that have been read to their end. */
  readonly counts: number[] = [];
  /** Examples found so far. */
  found = 0;
  private foundInPart = 0;
  private part: AsyncGenerator<Found> | undefined;

  constructor(private readonly parts: readonly Part[]) {}

  /** The next example or what is skipped; `undefined` after the last part. */
  async next(): Promise<Found | undefined> {
    while (this.counts.length < this.parts.length) {
      this.part ??= this.parts[this.counts.length]!.read();
      const { value, done } = await this.part.next();
      if (!done) {
        if (!isSkip(value)) {
          this.found++;
          this.foundInPart++;
        }
        return value;
      }
      this.counts.push(this.foundInPart);
      this.part = undefined;
      this.foundInPart = 0;
    }
    return undefined;
  }

  /**
   * Goes on where an earlier reader was that had found `position` examples, and had read to their end as many parts as
   * there are counts. Of the parts before, only those are read again that hold one of the wanted examples.
   *
   * @param wanted numbers of examples before `position`
   */
  async enter(
    position: number,
    counts: readonly number[],
    wanted: ReadonlySet<number>,
  ): Promise<Map<number, StoredExample>> {
    const examples = new Map<number, StoredExample>();
    const sorted = Float64Array.from(wanted).sort();
    let next = 0;
    for (const count of counts) {
      const start = this.found;
      const first = next;
      while (next < sorted.length && sorted[next]! < start + count) next++;
      // Read no further than to the last wanted one.
      if (next > first) await this.collect(sorted[next - 1]! + 1, wanted, examples);
      await this.close();
      this.counts.push(count);
      this.found = start + count;
    }
    await this.collect(position, wanted, examples);
    return examples;
  }

  /** Reads on within the present part until `position` examples have been found. */
  private async collect(
    position: number,
    wanted: ReadonlySet<number>,
    examples: Map<number, StoredExample>,
  ): Promise<void> {
    const index = this.counts.length;
    while (this.found < position) {
      const found = await this.next();
      if (found === undefined || this.counts.length > index)
        throw dataError(this.parts[index]?.name ?? 'the data', 'has fewer examples than when the position was saved');
      if (!isSkip(found) && wanted.has(this.found - 1)) examples.set(this.found - 1, found);
    }
  }

  async close(): Promise<void> {
    await this.part?.return(undefined);
    this.part = undefined;
    this.foundInPart = 0;
  }
}

/** The state in the middle of an epoch. */
interface EpochState {
  reader: EpochReader;
  buffer: ShuffleBuffer<Waiting>;
}

export class PartSequence implements Sequence {
  constructor(
    private readonly parts: readonly Part[],
    private readonly settings: OrderSettings & { shuffleBuffer: number },
    readonly length: number | undefined,
  ) {}

  async *events(from: Cursor): AsyncGenerator<SequenceEvent> {
    for (let cursor = from; cursor.epoch < this.settings.epochs; cursor = startOf(cursor.epoch + 1)) {
      const { epoch } = cursor;
      const reader = new EpochReader(await this.order(epoch));
      try {
        yield* this.epoch(await this.enter(reader, cursor), cursor);
      } finally {
        await reader.close();
      }
      yield { kind: 'epoch', whole: cursor.drawn === 0, cursor: () => startOf(epoch + 1) };
    }
  }

  private async *epoch({ reader, buffer }: EpochState, { epoch, drawn }: Cursor): AsyncGenerator<SequenceEvent> {
    const { seed } = this.settings;
    const drawing = ({ number, ...packed }: Waiting): SequenceEvent => {
      const count = ++drawn;
      const { counts } = reader;
      const finished = counts.length;
      // The list grows while examples wait to be used: copied only when somebody asks for the place.
      const cursor = (): Cursor => ({ epoch, drawn: count, counts: counts.slice(0, finished) });
      const place = [epoch, number] as const;
      const stored: StoredExample = { ...packed.stored, texts: JSON.parse(packed.texts) };
      return { kind: 'example', example: withCaption(stored, seed, place), place, cursor };
    };
    for (let found = await reader.next(); found !== undefined; found = await reader.next()) {
      if (isSkip(found)) {
        yield { kind: 'skip', skip: found };
        continue;
      }
      const item = waiting(reader.found - 1, found);
      if (buffer.slots.length < this.capacity) buffer.slots.push(item);
      else yield drawing(buffer.exchange(item));
    }
    while (buffer.slots.length > 0) yield drawing(buffer.take());
  }

  /** A buffer of one gives out what it was given before: the order of reading. */
  private get capacity(): number {
    return this.settings.shuffle ? this.settings.shuffleBuffer : 1;
  }

  private async order(epoch: number): Promise<readonly Part[]> {
    const { seed, shuffle } = this.settings;
    if (!shuffle) return this.parts;
    const order = await permutation(this.parts.length, new RandomStream(seed, purposes.order, epoch));
    return Array.from(order, (part) => this.parts[part]!);
  }

  /**
   * The state at a place. What was drawn before it is drawn once more, as numbers only: that tells which examples lie in
   * the buffer, and these are read again.
   */
  private async enter(reader: EpochReader, { epoch, drawn, counts = [] }: Cursor): Promise<EpochState> {
    const random = new RandomStream(this.settings.seed, purposes.buffer, epoch);
    if (drawn === 0) return { reader, buffer: new ShuffleBuffer(random) };
    const sum = counts.reduce((total, count) => total + count, 0);
    const total = counts.length === this.parts.length ? sum : Number.POSITIVE_INFINITY;
    const numbers = new ShuffleBuffer<number>(random);
    let read = 0;
    while (read < Math.min(this.capacity, total)) numbers.slots.push(read++);
    for (let i = 0; i < drawn; i++) {
      if (i % stepsAtOnce === stepsAtOnce - 1) await setImmediate();
      if (read < total) numbers.exchange(read++);
      else numbers.take();
    }
    const examples = await reader.enter(read, counts, new Set(numbers.slots));
    return { reader, buffer: numbers.map((number) => waiting(number, examples.get(number)!)) };
  }
}
