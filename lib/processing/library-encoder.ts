/** Encoding with `@huggingface/tokenizers`, for tokenizers that do more than to merge characters. */
import type { Tokenizer as HuggingFaceTokenizer } from '@huggingface/tokenizers';
import loader from '../native-loader.cjs';
import type { LibraryTokenizer } from './tokenizer-file.js';

/** Characters that are encoded at a time where a text can be cut. Longer than most texts of 63 tokens. */
const pieceLength = 512;

/** Encodes texts into the ids of any tokenizer that the library knows. */
export class LibraryEncoder {
  readonly #encoder: HuggingFaceTokenizer;
  readonly #longestToken: number | undefined;
  readonly #splitsAtWords: boolean;

  /** @throws Error of the library, when it cannot use the definition */
  constructor({ definition, longestToken, splitsAtWords }: LibraryTokenizer) {
    const { Tokenizer } = loader.requirePackage('@huggingface/tokenizers') as typeof import('@huggingface/tokenizers');
    this.#encoder = new Tokenizer(definition, {});
    this.#longestToken = longestToken;
    this.#splitsAtWords = splitsAtWords;
  }

  /**
   * Writes the first ids of a text, as many as `ids` has room for.
   * @param text without lone surrogates
   * @returns how many were written
   */
  encode(text: string, ids: Int32Array): number {
    const all = this.#tokenIds(text, ids.length);
    ids.set(all);
    return all.length;
  }

  /** The first `room` ids of a text, at most. */
  #tokenIds(text: string, room: number): number[] {
    if (this.#longestToken === undefined) return this.#encodePiece(text).slice(0, room);
    const ids: number[] = [];
    for (let from = 0; from < text.length && ids.length < room; ) {
      const to = this.#splitsAtWords ? nextWord(text, from + pieceLength) : text.length;
      for (const id of this.#firstIds(text.slice(from, to), room - ids.length, this.#longestToken)) ids.push(id);
      from = to;
    }
    return ids.slice(0, room);
  }

  /**
   * The ids of a text, or at least its first `count`, without encoding all of a very long one.
   *
   * Merging never looks across a place where a token ends, so up to such a place a text has the ids of its beginning
   * alone. Some token ends within every `longest` characters: when the beginnings that end at each of those places
   * agree in their first `count` ids, these are the ids of the whole, whichever place it is. (A place inside a surrogate
   * pair is one more beginning that has to agree.)
   */
  #firstIds(text: string, count: number, longest: number): number[] {
    for (let end = 2 * pieceLength; end < text.length; end *= 2) {
      const first = this.#encodePiece(text.slice(0, end)).slice(0, count);
      if (first.length < count) continue;
      let agree = true;
      for (let place = end - 1; place > end - longest && agree; place--) {
        const other = this.#encodePiece(text.slice(0, place));
        agree = other.length >= count && first.every((id, index) => id === other[index]);
      }
      if (agree) return first;
    }
    return this.#encodePiece(text);
  }

  #encodePiece(text: string): number[] {
    return this.#encoder.encode(text).ids;
  }
}

/** The first place from `start` on where a word begins, its spaces included; the end of the text if there is none. */
function nextWord(text: string, start: number): number {
  const beginning = /(?<=[^ ▁])[ ▁]/g;
  beginning.lastIndex = start;
  return beginning.exec(text)?.index ?? text.length;
}
