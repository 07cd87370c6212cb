/** The shuffling of what can only be read in order. */
import type { RandomStream } from './random.js';

/** Holds a few items and gives out a random one of them at a time. What comes out depends on the stream alone. */
export class ShuffleBuffer<T> {
  constructor(
    private readonly random: RandomStream,
    /** What is held, in the order of the slots. */
    readonly slots: T[] = [],
  ) {}

  /** Gives out a random item and puts the new one in its slot. */
  exchange(item: T): T {
    const slot = this.random.below(this.slots.length);
    const chosen = this.slots[slot] as T;
    this.slots[slot] = item;
    return chosen;
  }

  /** Gives out a random item; the last slot moves to its place. */
  take(): T {
    const slot = this.random.below(this.slots.length);
    const chosen = this.slots[slot] as T;
    const last = this.slots.pop() as T;
    if (slot < this.slots.length) this.slots[slot] = last;
    return chosen;
  }

  /** The same state of the random numbers with other items in the slots. */
  map<U>(convert: (item: T) => U): ShuffleBuffer<U> {
    return new ShuffleBuffer(this.random, this.slots.map(convert));
  }
}
