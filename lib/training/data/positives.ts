/** Which texts of a batch belong to which pictures, where a picture has several and a text may have several. */

import type { PositivePairs } from '../../kernels/positive-pairs.js';
import { lowerCase } from '../../processing/tokenizer-file.js';

/**
 * The different texts of a batch, in the order in which they first occur, and for each picture those that are among
 * its captions, whether they were drawn for it or for another picture. Texts that differ in case alone are one, the first:
 * the models' tokenizers lower-case.
 *
 * @param drawn the captions that were drawn for each picture
 * @param captions all captions of each picture
 */
export function gatherTexts(
  drawn: readonly (readonly string[])[],
  captions: readonly (readonly string[])[],
): { texts: string[]; positives: PositivePairs } {
  const numbers = new Map<string, number>();
  const different: string[] = [];
  for (const text of drawn.flat()) {
    const key = lowerCase(text);
    if (!numbers.has(key)) numbers.set(key, different.push(text) - 1);
  }
  const offsets = new Int32Array(captions.length + 1);
  const lists = captions.map((own, picture) => {
    const found = new Set<number>();
    for (const text of own) {
      const number = numbers.get(lowerCase(text));
      if (number !== undefined) found.add(number);
    }
    offsets[picture + 1] = (offsets[picture] as number) + found.size;
    return Int32Array.from(found).sort();
  });
  const texts = new Int32Array(offsets[captions.length] as number);
  lists.forEach((list, picture) => {
    texts.set(list, offsets[picture]);
  });
  return { texts: different, positives: { offsets, texts } };
}
