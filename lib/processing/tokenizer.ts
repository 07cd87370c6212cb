import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { Tokenizer as HuggingFaceTokenizer } from '@huggingface/tokenizers';
import { requireInteger, requireOptions, requireString, wrongType } from '../arguments.js';
import { readConfig } from '../model/config.js';
import { checkLoadOptions, type LoadOptions, locate } from '../model/load.js';
import { lowerCase, parseObject, prepareTokenizer, tokenizerError } from './tokenizer-file.js';

/** Options of {@link Tokenizer.fromFolder} and {@link Tokenizer.fromJson}. */
export interface TokenizerOptions {
  /** Ids per text, end token and padding included; default 64, what every SigLIP 2 checkpoint was trained with. */
  length?: number;
  /** Lower-case texts first; default true. Without it the ids are those of plain Gemma, not of SigLIP 2. @internal */
  lowercase?: boolean;
}

/** Token ids of texts, one row each: `inputIds[row * length + position]`. */
export interface EncodedTexts {
  inputIds: Int32Array;
  shape: [n: number, length: number];
}

/** Characters that are encoded at a time where a text can be cut. Longer than most texts of 63 tokens. */
const pieceLength = 512;

/**
 * Turns texts into the token ids that SigLIP 2's text tower was trained on: lower-cased, Gemma's byte-pair encoding,
 * no start token, the end token always once and also after truncation, padded on the right to a fixed length. There
 * is no attention mask: the text tower attends to padding and reads the last position.
 */
export class Tokenizer {
  /** Ids per text, end token and padding included. */
  readonly length: number;
  /** Number of tokens, added ones included; every id is smaller. */
  readonly vocabSize: number;
  readonly #encoder: HuggingFaceTokenizer;
  readonly #lowercase: boolean;
  readonly #splitsAtWords: boolean;
  readonly #longestToken: number | undefined;
  readonly #eosId: number;
  readonly #padId: number;

  private constructor(
    json: unknown,
    config: unknown,
    options: TokenizerOptions | undefined,
    files: { tokenizer: string; config: string },
  ) {
    const { length = 64, lowercase = true } = requireOptions('options', options, ['length', 'lowercase']);
    this.length = requireInteger('options.length', length, 1, 65_536);
    this.#lowercase = lowercase;
    const prepared = prepareTokenizer(
      parseObject(json, files.tokenizer),
      config === undefined ? {} : parseObject(config, files.config),
      { file: files.tokenizer, lowercase },
    );
    this.vocabSize = prepared.vocabSize;
    this.#eosId = prepared.eosId;
    this.#padId = prepared.padId;
    this.#splitsAtWords = prepared.splitsAtWords;
    this.#longestToken = prepared.longestToken;
    try {
      this.#encoder = new HuggingFaceTokenizer(prepared.definition, {});
    } catch (cause) {
      throw tokenizerError(files.tokenizer, `cannot be used: ${(cause as Error).message}`, cause);
    }
  }

  /**
   * Loads the tokenizer of a checkpoint, with texts as long as its text tower takes.
   *
   * @param source a folder, a `file:` URL, or a hub id `organisation/name`; weights are not downloaded
   * @throws SiglipError `ERR_SIGLIP_TOKENIZER`, `ERR_SIGLIP_CONFIG`, `ERR_SIGLIP_HUB`, `ERR_SIGLIP_OFFLINE`.
   */
  static async load(source: string | URL, options?: LoadOptions): Promise<Tokenizer> {
    const { folder } = await locate(source, checkLoadOptions(options), { weights: false, tokenizer: true });
    const { text } = await readConfig(folder);
    return Tokenizer.fromFolder(folder, { length: text.maxPositionEmbeddings });
  }

  /**
   * Reads `tokenizer.json` of a checkpoint folder, and the names of the special tokens from `tokenizer_config.json`
   * where there is one.
   *
   * @throws SiglipError `ERR_SIGLIP_TOKENIZER` naming the file and what is wrong with it.
   */
  static async fromFolder(folder: string, options?: TokenizerOptions): Promise<Tokenizer> {
    requireString('folder', folder);
    const files = {
      tokenizer: path.join(folder, 'tokenizer.json'),
      config: path.join(folder, 'tokenizer_config.json'),
    };
    const [json, config] = await Promise.all([
      readFile(files.tokenizer, 'utf8').catch((cause: Error) => {
        throw tokenizerError(files.tokenizer, `cannot be read (${cause.message})`, cause);
      }),
      readFile(files.config, 'utf8').catch((cause: NodeJS.ErrnoException) => {
        if (cause.code === 'ENOENT') return undefined;
        throw tokenizerError(files.config, `cannot be read (${cause.message})`, cause);
      }),
    ]);
    return new Tokenizer(json, config, options, files);
  }

  /**
   * Builds a tokenizer from the contents of `tokenizer.json` and, optionally, `tokenizer_config.json`, as text or
   * parsed.
   *
   * @throws SiglipError `ERR_SIGLIP_TOKENIZER` saying what is wrong with them.
   */
  static fromJson(
    tokenizerJson: string | object,
    tokenizerConfig?: string | object,
    options?: TokenizerOptions,
  ): Tokenizer {
    const files = { tokenizer: 'tokenizer.json', config: 'tokenizer_config.json' };
    return new Tokenizer(tokenizerJson, tokenizerConfig, options, files);
  }

  /**
   * Ids of texts, `[texts, length]`. A text of more tokens keeps the first `length - 1` and ends with the end token.
   * Text that is written like a special token (`<eos>`, `<b>`) is that token. Lone surrogates count as U+FFFD.
   *
   * @throws TypeError naming the text (`texts[3]`) that is no string.
   */
  encode(texts: string | readonly string[]): EncodedTexts {
    if (typeof texts !== 'string' && !Array.isArray(texts))
      throw wrongType('texts', 'a string or an array of strings', texts);
    const rows = typeof texts === 'string' ? [texts] : (texts as readonly string[]);
    // By index, because forEach would skip the holes of a sparse array.
    for (let row = 0; row < rows.length; row++) requireString(`texts[${row}]`, rows[row]);
    const inputIds = new Int32Array(rows.length * this.length).fill(this.#padId);
    rows.forEach((text, row) => {
      const ids = this.#tokenIds(text);
      inputIds.set(ids, row * this.length);
      inputIds[row * this.length + ids.length] = this.#eosId;
    });
    return { inputIds, shape: [rows.length, this.length] };
  }

  /** The first `length - 1` ids of a text, at most. */
  #tokenIds(text: string): number[] {
    const room = this.length - 1;
    const wellFormed = text.replaceAll(/\p{Surrogate}/gu, '\u{FFFD}');
    const whole = this.#lowercase ? lowerCase(wellFormed) : wellFormed;
    if (this.#longestToken === undefined) return this.#encodePiece(whole).slice(0, room);
    const ids: number[] = [];
    for (let from = 0; from < whole.length && ids.length < room; ) {
      const to = this.#splitsAtWords ? nextWord(whole, from + pieceLength) : whole.length;
      for (const id of this.#firstIds(whole.slice(from, to), room - ids.length, this.#longestToken)) ids.push(id);
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
