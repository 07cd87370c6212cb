import { types } from 'node:util';
import { requireOptions, wrongType } from '../arguments.js';
import { SiglipError } from '../errors.js';
import { checkOffsets } from './attention.js';

/**
 * Which texts belong to which images, for n images and m texts: to image i the texts `texts[offsets[i]]` to
 * `texts[offsets[i + 1] - 1]`. An image may have none, and a text may belong to any number of images.
 */
export interface PositivePairs {
  /** n + 1 entries: from 0, never falling, to the length of `texts`. */
  offsets: Int32Array;
  /** Numbers of texts, from 0 to m - 1; those of an image in ascending order, each once. */
  texts: Int32Array;
}

/**
 * Checks lists for `images` images and `texts` texts.
 * @throws TypeError for other kinds of values; SiglipError ERR_SIGLIP_SHAPE, with the entry, for lists that are not what
 *   {@link PositivePairs} says
 */
export function checkPositivePairs(argument: string, value: unknown, images: number, texts: number): PositivePairs {
  if (value === undefined || value === null) throw wrongType(argument, '{ offsets, texts }', value);
  const pairs = requireOptions(argument, value as PositivePairs, ['offsets', 'texts']);
  const fail = (what: string): never => {
    throw new SiglipError('ERR_SIGLIP_SHAPE', `${argument}.${what}`);
  };
  if (!types.isInt32Array(pairs.texts)) throw wrongType(`${argument}.texts`, 'an Int32Array', pairs.texts);
  const offsets = checkOffsets(`${argument}.offsets`, pairs.offsets, pairs.texts.length, 'texts in the lists');
  if (offsets.length !== images + 1)
    fail(`offsets: expected ${images + 1} entries, one more than images, got ${offsets.length}`);
  for (let image = 0; image < images; image++)
    for (let at = offsets[image] as number, before = -1; at < (offsets[image + 1] as number); at++) {
      const text = pairs.texts[at] as number;
      if (text < 0 || text >= texts)
        fail(`texts: expected numbers of texts, from 0 to ${texts - 1}, got ${text} at entry ${at}, of image ${image}`);
      if (text <= before)
        fail(
          `texts: expected those of image ${image} to ascend, each once, got ${text} after ${before} at entry ${at}`,
        );
      before = text;
    }
  return { offsets, texts: pairs.texts };
}
