/** Byte-pair encoding over compiled tables: the ids that `@huggingface/tokenizers` gives, in a fraction of the time. */
import { mergeLong, mergeShort, shortLength } from './byte-pair-merge.js';
import {
  type AddedContent,
  type CompiledTokenizer,
  findPair,
  spaceMark,
  type TokenizerTables,
} from './tokenizer-tables.js';

/** Chunks that are remembered have at most so many characters … */
const memoryCharacters = 16;
/** … and become at most so many tokens. */
const memoryTokens = 6;
/** Chunks that are remembered at a time, a power of two. Each has one place, and the last that needed it has it. */
const memoryPlaces = 8192;
/** Numbers of one place: how many characters and tokens, the characters, the tokens. */
const memoryColumns = 2 + memoryCharacters + memoryTokens;

/** Room for the characters of a chunk; it grows for longer ones. */
const usualChunk = 1024;

/**
 * Encodes texts into the ids of a compiled tokenizer. A text is cut around added tokens, and what is between them where
 * two characters are neighbours in no token, so that merging looks at about a word at a time.
 */
export class BytePairEncoder {
  readonly #tables: TokenizerTables;
  readonly #added: ContentSearch | undefined;
  readonly #addedAmongMarks: ContentSearch | undefined;
  /** Added tokens with space marks: text with spaces in their place becomes one where it is all there is. */
  readonly #whole: Map<string, number>;
  readonly #longestWhole: number;
  /** Characters of the current chunk, as tokens. */
  #chunk = new Int32Array(usualChunk);
  readonly #memory = new Int32Array(memoryPlaces * memoryColumns);
  /** Where ids go, and how many are there. */
  #ids: Int32Array = new Int32Array();
  #count = 0;

  constructor({ tables, added }: CompiledTokenizer) {
    this.#tables = tables;
    const plain = added.filter(({ normalized }) => !normalized);
    this.#added = contentSearch(plain);
    this.#addedAmongMarks = contentSearch(added.filter(({ normalized }) => normalized));
    const marked = plain.filter(({ content }) => content.includes(spaceMark));
    this.#whole = new Map(marked.map(({ content, id }) => [content, id]));
    this.#longestWhole = Math.max(0, ...marked.map(({ content }) => content.length));
  }

  /**
   * Writes the first ids of a text, as many as `ids` has room for.
   * @param text without lone surrogates
   * @returns how many were written
   */
  encode(text: string, ids: Int32Array): number {
    this.#ids = ids;
    this.#count = 0;
    this.#split(text, 0, text.length, this.#added, this.#encodeUnmarked);
    if (this.#chunk.length > usualChunk) this.#chunk = new Int32Array(usualChunk);
    return this.#count;
  }

  /** Whether there is no room for further ids. */
  #isFull(): boolean {
    return this.#count === this.#ids.length;
  }

  #emit(id: number): void {
    if (this.#count < this.#ids.length) this.#ids[this.#count++] = id;
  }

  /** Emits the added tokens in a stretch of text, and lets `between` do the same for what is between them. */
  #split(
    text: string,
    from: number,
    to: number,
    search: ContentSearch | undefined,
    between: (text: string, from: number, to: number) => void,
  ): void {
    let position = from;
    while (search !== undefined && !this.#isFull()) {
      search.pattern.lastIndex = position;
      const found = search.pattern.exec(text);
      if (found === null) break;
      if (found.index > position) between.call(this, text, position, found.index);
      this.#emit(search.ids.get(found[0])!);
      position = found.index + found[0].length;
    }
    if (position < to && !this.#isFull()) between.call(this, text, position, to);
  }

  /** Encodes what is between added tokens that are looked for in the text as it is. */
  #encodeUnmarked(text: string, from: number, to: number): void {
    if (this.#addedAmongMarks === undefined) {
      this.#encodePlain(text, from, to);
      return;
    }
    const marked = text.slice(from, to).replaceAll(' ', spaceMark);
    this.#split(marked, 0, marked.length, this.#addedAmongMarks, this.#encodePlain);
  }

  /** Encodes text that has no added tokens, chunk by chunk. */
  #encodePlain(text: string, from: number, to: number): void {
    if (to - from <= this.#longestWhole) {
      const id = this.#whole.get(text.slice(from, to).replaceAll(' ', spaceMark));
      if (id !== undefined) {
        this.#emit(id);
        return;
      }
    }
    const { unitTokens, neighbours } = this.#tables;
    let chunk: Int32Array = this.#chunk;
    let length = 0;
    let last = -1;
    for (let position = from; position < to; position++) {
      let character = unitTokens[text.charCodeAt(position)]!;
      let point = 0;
      if (character < 0) {
        point = text.codePointAt(position)!;
        if (point > 0xffff) {
          character = this.#astralToken(point);
          position++;
        }
      }
      if (length > 0 && (character < 0 || findPair(neighbours, last, character) < 0)) {
        this.#encodeChunk(length);
        if (this.#isFull()) return;
        length = 0;
      }
      if (character < 0) {
        this.#emitBytes(point);
        if (this.#isFull()) return;
        continue;
      }
      if (length === chunk.length) chunk = this.#growChunk();
      chunk[length++] = character;
      last = character;
    }
    this.#encodeChunk(length);
  }

  #growChunk(): Int32Array {
    const longer = new Int32Array(2 * this.#chunk.length);
    longer.set(this.#chunk);
    this.#chunk = longer;
    return longer;
  }

  #astralToken(point: number): number {
    const { astralCharacters, astralTokens } = this.#tables;
    let [low, high] = [0, astralCharacters.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (astralCharacters[middle]! < point) low = middle + 1;
      else high = middle;
    }
    return astralCharacters[low] === point ? astralTokens[low]! : -1;
  }

  /** Spells a character in UTF-8. */
  #emitBytes(point: number): void {
    const { byteTokens } = this.#tables;
    if (point < 0x80) {
      this.#emit(byteTokens[point]!);
      return;
    }
    const more = point < 0x800 ? 1 : point < 0x10000 ? 2 : 3;
    const mark = [0xc0, 0xe0, 0xf0][more - 1]!;
    this.#emit(byteTokens[mark | (point >> (6 * more))]!);
    for (let rest = more - 1; rest >= 0; rest--) this.#emit(byteTokens[0x80 | ((point >> (6 * rest)) & 0x3f)]!);
  }

  /** Merges and emits the first characters of the chunk buffer. */
  #encodeChunk(length: number): void {
    if (length === 0) return;
    if (length === 1) this.#emit(this.#chunk[0]!);
    else if (length <= memoryCharacters) this.#encodeRemembered(length);
    else if (length <= shortLength) this.#emitAll(this.#chunk, 0, mergeShort(this.#tables, this.#chunk, length));
    else this.#emitAll(this.#mergeFirst(length), 0);
  }

  #emitAll(ids: Int32Array, from: number, to = ids.length): void {
    for (let index = from; index < to; index++) this.#emit(ids[index]!);
  }

  /** Encodes a chunk of few characters, which most are, and which come again. */
  #encodeRemembered(length: number): void {
    const chunk = this.#chunk;
    const memory = this.#memory;
    let hash = length;
    for (let index = 0; index < length; index++) {
      hash = Math.imul(hash ^ chunk[index]!, 0x9e3779b1);
      hash ^= hash >>> 15;
    }
    const place = (hash & (memoryPlaces - 1)) * memoryColumns;
    const characters = place + 2;
    const tokens = characters + memoryCharacters;
    let same = memory[place] === length;
    for (let index = 0; index < length && same; index++) same = memory[characters + index] === chunk[index];
    if (!same) {
      memory.set(chunk.subarray(0, length), characters);
      const count = mergeShort(this.#tables, chunk, length);
      if (count > memoryTokens) {
        memory[place] = 0;
        this.#emitAll(chunk, 0, count);
        return;
      }
      memory[place] = length;
      memory[place + 1] = count;
      memory.set(chunk.subarray(0, count), tokens);
    }
    this.#emitAll(memory, tokens, tokens + memory[place + 1]!);
  }

  /**
   * Merges a long chunk, or at least so much of its beginning that there is no room for more.
   *
   * Merging never looks across a place where a token ends, so up to such a place a chunk has the tokens of its beginning
   * alone. Some token ends within every `longestMerge` characters: when the beginnings that end at each of those places
   * agree in as many tokens as there is room for, these are the tokens of the whole, whichever place it is.
   */
  #mergeFirst(length: number): Int32Array {
    const { longestMerge } = this.#tables;
    const room = this.#ids.length - this.#count;
    const merge = (end: number): Int32Array => mergeLong(this.#tables, this.#chunk.subarray(0, end));
    // That many beginnings must be fewer characters than all of the chunk.
    for (let end = 8 * room; (end + 1) * longestMerge < length; end *= 2) {
      const first = merge(end).subarray(0, room);
      let agree = first.length === room;
      for (let place = end - 1; place > end - longestMerge && agree; place--) {
        const other = merge(place);
        agree = other.length >= room && first.every((id, index) => id === other[index]);
      }
      if (agree) return first;
    }
    return merge(length);
  }
}

/** A search for the leftmost of some contents, the longest of those that begin there. */
interface ContentSearch {
  pattern: RegExp;
  ids: Map<string, number>;
}

function contentSearch(added: AddedContent[]): ContentSearch | undefined {
  if (added.length === 0) return undefined;
  const ids = new Map(added.map(({ content, id }) => [content, id]));
  const longestFirst = [...ids.keys()].sort((one, other) => other.length - one.length);
  const literals = longestFirst.map((content) => content.replaceAll(/[\\^$.*+?()[\]{}|/-]/g, '\\$&'));
  return { pattern: new RegExp(literals.join('|'), 'g'), ids };
}
