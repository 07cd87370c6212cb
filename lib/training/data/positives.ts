/** Which texts of a batch belong to which pictures, where a picture has several and a text may have several. */

/** For each picture the texts that belong to it: those of picture i are `texts[offsets[i]]` to `texts[offsets[i + 1] - 1]`. */
export interface Positives {
  /** [pictures + 1], from 0, ascending. */
  offsets: Int32Array;
  /** [offsets[pictures]], ascending within a picture, none twice. */
  texts: Int32Array;
}

/**
 * The different texts of a batch, in the order in which they first occur, and for each picture those that are among
 * its captions, whether they were drawn for it or for another picture.
 *
 * @param drawn the captions that were drawn for each picture
 * @param captions all captions of each picture
 */
export function gatherTexts(
  drawn: readonly (readonly string[])[],
  captions: readonly (readonly string[])[],
): { texts: string[]; positives: Positives } {
  const numbers = new Map<string, number>();
  for (const texts of drawn) for (const text of texts) if (!numbers.has(text)) numbers.set(text, numbers.size);
  const offsets = new Int32Array(captions.length + 1);
  const lists = captions.map((own, picture) => {
    const found = new Set<number>();
    for (const text of own) {
      const number = numbers.get(text);
      if (number !== undefined) found.add(number);
    }
    offsets[picture + 1] = (offsets[picture] as number) + found.size;
    return Int32Array.from(found).sort();
  });
  const texts = new Int32Array(offsets[captions.length] as number);
  lists.forEach((list, picture) => {
    texts.set(list, offsets[picture]);
  });
  return { texts: [...numbers.keys()], positives: { offsets, texts } };
}
