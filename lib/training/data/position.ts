/** Places in a data set as they are stored with a checkpoint. */
import { describe, wrongType } from '../../arguments.js';
import { isJsonObject } from '../../model/json.js';
import { dataError } from './errors.js';
import type { Cursor } from './sequence.js';

/**
 * A place in the sequence of examples, as plain JSON: everything before it has been delivered. Valid for a data set
 * that is opened from the same files with the same seed and shuffling, also elsewhere.
 */
export interface DatasetPosition {
  version: 1;
  /** Tells the data: a hash of names and sizes of the files. */
  data: string;
  seed: number;
  shuffle: boolean;
  /** 1 where there is none. */
  shuffleBuffer: number;
  epoch: number;
  /** Examples of this epoch that were used or found broken. */
  drawn: number;
  /** For shards and Parquet files with pictures: examples in each of the parts read so far in this epoch. */
  counts?: readonly number[];
  /** Examples skipped since the first epoch began. */
  skipped: number;
  /** Batches delivered since the first epoch began. */
  batches: number;
}

/** What has to be the same for a position to mean the same place. */
export type PositionBasis = Pick<DatasetPosition, 'data' | 'seed' | 'shuffle' | 'shuffleBuffer'>;

const argument = 'options.position';

/**
 * Checks a position that comes from a file.
 *
 * @param parts how many parts an epoch has; `undefined` for rows, of which there are `length`
 * @throws TypeError when it is no object; SiglipError `ERR_SIGLIP_DATA` when it is damaged or of other data
 */
export function checkPosition(
  value: unknown,
  basis: PositionBasis,
  { parts, length }: { parts: number | undefined; length: number | undefined },
): { cursor: Cursor; skipped: number; batches: number } {
  if (!isJsonObject(value)) throw wrongType(argument, 'a position of a data set', value);
  if (value.version !== 1)
    throw dataError(argument, `the version must be 1, not ${describe(value.version)}; it is of another release`);
  if (value.data !== basis.data)
    throw dataError(argument, 'was saved from other data: the files have other names or sizes');
  for (const name of ['seed', 'shuffle', 'shuffleBuffer'] as const)
    if (value[name] !== basis[name])
      throw dataError(
        argument,
        `was saved with ${name} ${describe(value[name])}, and the data set is opened with ${describe(basis[name])}`,
      );
  const count = (name: string, number: unknown, maximum = Number.MAX_SAFE_INTEGER): number => {
    if (typeof number === 'number' && Number.isSafeInteger(number) && number >= 0 && number <= maximum) return number;
    throw dataError(argument, `is damaged: ${name} is ${describe(number)}`);
  };
  const cursor: Cursor = { epoch: count('epoch', value.epoch), drawn: count('drawn', value.drawn, length) };
  if (parts !== undefined) {
    const { counts = [] } = value;
    if (!Array.isArray(counts) || counts.length > parts)
      throw dataError(argument, `is damaged: counts is ${describe(counts)}`);
    cursor.counts = counts.map((each, i) => count(`counts[${i}]`, each));
    if (counts.length === parts)
      count(
        'drawn',
        value.drawn,
        cursor.counts.reduce((total, each) => total + each, 0),
      );
  }
  return { cursor, skipped: count('skipped', value.skipped), batches: count('batches', value.batches) };
}
