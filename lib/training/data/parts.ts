/** Examples that can only be read in the order in which they are stored: shards, and row groups with pictures in them. */
import type { Found } from './example.js';

/** A stretch of data that is read from start to end. */
export interface Part {
  /** The file, and which part of it. */
  readonly name: string;
  /**
   * Reads the part, keeping no more than one example (of a row group: the group) in memory. Everything that is found
   * depends on the file alone, also when it is damaged: what follows the damage is one skip.
   *
   * @throws SiglipError `ERR_SIGLIP_DATA` when nothing at all can be read
   */
  read(): AsyncGenerator<Found>;
}
