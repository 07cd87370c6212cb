import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { requireInteger, requireOptions, requireString, wrongType } from '../arguments.js';
import { readConfig } from '../model/config.js';
import { checkLoadOptions, type LoadOptions, locate } from '../model/load.js';
import { BytePairEncoder } from './byte-pair-encoder.js';
import { LibraryEncoder } from './library-encoder.js';
import { keep, readKept } from './tokenizer-cache.js';
import { type LibraryTokenizer, lowerCase, parseObject, prepareTokenizer, tokenizerError } from './tokenizer-file.js';
import type { CompiledTokenizer } from './tokenizer-tables.js';

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
  readonly #encoder: BytePairEncoder | LibraryEncoder;
  readonly #lowercase: boolean;
  readonly #eosId: number;
  readonly #padId: number;

  private constructor(
    prepared: CompiledTokenizer | LibraryTokenizer,
    options: Required<TokenizerOptions>,
    tokenizerFile: string,
  ) {
    this.length = options.length;
    this.#lowercase = options.lowercase;
    this.vocabSize = prepared.vocabSize;
    this.#eosId = prepared.eosId;
    this.#padId = prepared.padId;
    try {
      this.#encoder = 'tables' in prepared ? new BytePairEncoder(prepared) : new LibraryEncoder(prepared);
    } catch (cause) {
      throw tokenizerError(tokenizerFile, `cannot be used: ${(cause as Error).message}`, cause);
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
   * where there is one. A large vocabulary is compiled the first time and kept, as docs/text.md says.
   *
   * @throws SiglipError `ERR_SIGLIP_TOKENIZER` naming the file and what is wrong with it.
   */
  static async fromFolder(folder: string, options?: TokenizerOptions): Promise<Tokenizer> {
    requireString('folder', folder);
    const complete = checkOptions(options);
    const files = {
      tokenizer: path.join(folder, 'tokenizer.json'),
      config: path.join(folder, 'tokenizer_config.json'),
    };
    const kept = await readKept(files, complete.lowercase);
    if (kept !== undefined) return new Tokenizer(kept, complete, files.tokenizer);
    const [json, config] = await Promise.all([
      readFile(files.tokenizer).catch((cause: Error) => {
        throw tokenizerError(files.tokenizer, `cannot be read (${cause.message})`, cause);
      }),
      readFile(files.config).catch((cause: NodeJS.ErrnoException) => {
        if (cause.code === 'ENOENT') return undefined;
        throw tokenizerError(files.config, `cannot be read (${cause.message})`, cause);
      }),
    ]);
    const prepared = prepare(json.toString('utf8'), config?.toString('utf8'), complete, files);
    if ('tables' in prepared) await keep(prepared, json, config, complete.lowercase);
    return new Tokenizer(prepared, complete, files.tokenizer);
  }

  /**
   * Builds a tokenizer from the contents of `tokenizer.json` and, optionally, `tokenizer_config.json`, as text or
   * parsed. Nothing is kept.
   *
   * @throws SiglipError `ERR_SIGLIP_TOKENIZER` saying what is wrong with them.
   */
  static fromJson(
    tokenizerJson: string | object,
    tokenizerConfig?: string | object,
    options?: TokenizerOptions,
  ): Tokenizer {
    const complete = checkOptions(options);
    const files = { tokenizer: 'tokenizer.json', config: 'tokenizer_config.json' };
    return new Tokenizer(prepare(tokenizerJson, tokenizerConfig, complete, files), complete, files.tokenizer);
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
    for (let row = 0; row < rows.length; row++) {
      const ids = inputIds.subarray(row * this.length, (row + 1) * this.length);
      ids[this.#encoder.encode(this.#normalized(rows[row]!), ids.subarray(0, -1))] = this.#eosId;
    }
    return { inputIds, shape: [rows.length, this.length] };
  }

  #normalized(text: string): string {
    // Searching by units first: hardly any text has a surrogate, and to search for lone ones takes longer.
    const wellFormed = /[\ud800-\udfff]/.test(text) ? text.replaceAll(/\p{Surrogate}/gu, '\u{FFFD}') : text;
    return this.#lowercase ? lowerCase(wellFormed) : wellFormed;
  }
}

function checkOptions(options: TokenizerOptions | undefined): Required<TokenizerOptions> {
  const { length = 64, lowercase = true } = requireOptions('options', options, ['length', 'lowercase']);
  return { length: requireInteger('options.length', length, 1, 65_536), lowercase };
}

/** Parses and checks what the files hold. */
function prepare(
  json: unknown,
  config: unknown,
  { lowercase }: Required<TokenizerOptions>,
  files: { tokenizer: string; config: string },
): CompiledTokenizer | LibraryTokenizer {
  return prepareTokenizer(
    parseObject(json, files.tokenizer),
    config === undefined ? {} : parseObject(config, files.config),
    { file: files.tokenizer, lowercase },
  );
}
