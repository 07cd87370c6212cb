/** Reading and checking `tokenizer.json`, and fitting it to SigLIP 2's own rules. */
import { SiglipError } from '../errors.js';
import { type AddedContent, type CompiledTokenizer, compileTables, spaceMark } from './tokenizer-tables.js';

interface AddedToken {
  id: number;
  content: string;
  normalized?: boolean;
  special?: boolean;
  lstrip?: boolean;
  rstrip?: boolean;
}

/** The parts of a tokenizer file that matter here. */
interface TokenizerDefinition {
  model: {
    type?: string;
    vocab: Record<string, number>;
    merges: (string | [string, string])[];
    unk_token?: string | null;
    fuse_unk?: boolean;
    byte_fallback?: boolean;
    ignore_merges?: boolean;
    continuing_subword_prefix?: string | null;
    end_of_word_suffix?: string | null;
    continuing_subword_suffix?: string | null;
  };
  added_tokens: AddedToken[];
  normalizer: unknown;
  pre_tokenizer: unknown;
}

/** A checked tokenizer file, as `@huggingface/tokenizers` takes it. */
export interface LibraryTokenizer {
  vocabSize: number;
  eosId: number;
  padId: number;
  /** `tokenizer.json` without post-processor, decoder and lower-casing, which {@link Tokenizer} does not use or does itself. */
  definition: object;
  /**
   * UTF-16 units of the longest token when the ids of a text follow from its characters by merging alone, so that a
   * text can be cut where a token ends; undefined when more is going on.
   */
  longestToken: number | undefined;
  /** Whether, moreover, no token reaches across the start of a word. */
  splitsAtWords: boolean;
}

/** The error for a tokenizer that cannot be used. */
export function tokenizerError(file: string, reason: string, cause?: unknown): SiglipError {
  return new SiglipError('ERR_SIGLIP_TOKENIZER', `${file}: ${reason}`, { details: { file }, cause });
}

/** Parses JSON text whose top level must be an object; objects pass as they are. */
export function parseObject(json: unknown, file: string): Record<string, unknown> {
  let value = json;
  if (typeof json === 'string')
    try {
      value = JSON.parse(json);
    } catch (cause) {
      throw tokenizerError(file, `is not valid JSON (${(cause as Error).message})`, cause);
    }
  if (!isObject(value)) throw tokenizerError(file, 'does not hold a JSON object');
  return value;
}

/**
 * Lower-casing as the reference does it, character by character: `Σ` is always `σ` (JavaScript would write `ς` at the
 * end of a word), `İ` is `i̇`, and no language has rules of its own.
 */
export function lowerCase(text: string): string {
  return text.replaceAll('Σ', 'σ').toLowerCase();
}

/**
 * Checks a tokenizer file and fits it to SigLIP 2: texts are lower-cased before they are split around added tokens,
 * nothing is added in front, and padding, truncation and the end token are the caller's.
 *
 * @returns compiled, where all that a tokenizer does is to merge characters, as those of SigLIP 2 do
 * @throws SiglipError `ERR_SIGLIP_TOKENIZER` naming the file and what is wrong with it.
 */
export function prepareTokenizer(
  json: Record<string, unknown>,
  config: Record<string, unknown>,
  options: { file: string; lowercase: boolean },
): CompiledTokenizer | LibraryTokenizer {
  const { file, lowercase } = options;
  const definition = checkDefinition(json, file);
  const { model } = definition;
  const ids = {
    vocabSize: checkIds(definition, file),
    eosId: specialId(definition, config, 'eos', file),
    padId: specialId(definition, config, 'pad', file),
  };
  const normalizer = withoutLowercase(definition.normalizer);
  const strips = definition.added_tokens.some(({ lstrip, rstrip }) => lstrip === true || rstrip === true);
  const added = definition.added_tokens.map((token) => (lowercase ? lowerCased(token, model.vocab) : token));
  const mergesOnly =
    isSpaceReplacement(normalizer) && splitsOnSpacesOnly(definition.pre_tokenizer) && model.ignore_merges !== true;
  if (mergesOnly && !strips && spellsUnknown(model, added)) {
    const contents = addedContents(added);
    const tables = contents && compileTables(model);
    if (tables !== undefined) return { ...ids, added: contents!, tables };
  }
  const splitsAtWords = mergesOnly && !mergesAcrossWords(definition);
  return {
    ...ids,
    definition: {
      model,
      added_tokens: added,
      normalizer,
      // Words are encoded one by one: the same ids, but the encoder can remember the frequent ones.
      pre_tokenizer: splitsAtWords
        ? { type: 'Split', pattern: { Regex: `${spaceMark}*[^${spaceMark}]+|${spaceMark}+` }, invert: true }
        : definition.pre_tokenizer,
      post_processor: null,
      decoder: null,
    },
    longestToken: mergesOnly && !strips ? longestToken(definition) : undefined,
    splitsAtWords: splitsAtWords && !definition.added_tokens.some(({ content }) => /[^ ▁][ ▁]/u.test(content)),
  };
}

function checkDefinition(json: Record<string, unknown>, file: string): TokenizerDefinition {
  const { model, added_tokens = [], normalizer = null, pre_tokenizer = null } = json;
  if (!isObject(model)) throw tokenizerError(file, 'has no "model"');
  const { type = 'BPE', vocab, merges, continuing_subword_prefix, end_of_word_suffix } = model;
  if (type !== 'BPE')
    throw tokenizerError(file, `has a model of type ${JSON.stringify(type)}; SigLIP 2 tokenizers are of type "BPE"`);
  if (!isObject(vocab)) throw tokenizerError(file, 'has no "model.vocab"');
  if (!Array.isArray(merges)) throw tokenizerError(file, 'has no "model.merges"');
  const pairs = Array.isArray(merges[0]);
  const badMerge = merges.findIndex((merge) => {
    if (pairs) return !(Array.isArray(merge) && merge.length === 2 && merge.every((part) => typeof part === 'string'));
    return !(typeof merge === 'string' && merge.indexOf(' ', 1) > 0);
  });
  if (badMerge >= 0) throw tokenizerError(file, `"model.merges[${badMerge}]" is not a pair of tokens`);
  if (continuing_subword_prefix || end_of_word_suffix)
    throw tokenizerError(file, 'marks the inside or the end of words, which is not supported');
  if (!Array.isArray(added_tokens)) throw tokenizerError(file, '"added_tokens" is not a list');
  added_tokens.forEach((token, index) => {
    if (!isObject(token) || typeof token.content !== 'string' || token.content === '')
      throw tokenizerError(file, `"added_tokens[${index}]" has no content`);
  });
  return { model, added_tokens, normalizer, pre_tokenizer } as unknown as TokenizerDefinition;
}

/** Requires ids 0..n-1 for n tokens, and returns n. */
function checkIds({ model: { vocab }, added_tokens }: TokenizerDefinition, file: string): number {
  const tokens = Object.keys(vocab);
  const size = tokens.length + added_tokens.filter(({ content }) => !Object.hasOwn(vocab, content)).length;
  const taken = new Uint8Array(size);
  const take = (token: string, id: unknown): void => {
    if (typeof id !== 'number' || !Number.isInteger(id) || id < 0 || id >= size)
      throw tokenizerError(
        file,
        `gives the token ${JSON.stringify(token)} the id ${JSON.stringify(id)}, outside its vocabulary of ${size} tokens`,
      );
    if (taken[id] === 1)
      throw tokenizerError(file, `gives the id ${id} to two tokens, one of them ${JSON.stringify(token)}`);
    taken[id] = 1;
  };
  for (const token of tokens) take(token, vocab[token]);
  for (const { content, id } of added_tokens)
    if (!Object.hasOwn(vocab, content)) take(content, id);
    else if (vocab[content] !== id)
      throw tokenizerError(file, `gives the token ${JSON.stringify(content)} two ids, ${vocab[content]} and ${id}`);
  return size;
}

/** The id of a special token: named in `tokenizer_config.json`, or `<eos>` and `<pad>`. */
function specialId(
  { model, added_tokens }: TokenizerDefinition,
  config: Record<string, unknown>,
  kind: 'eos' | 'pad',
  file: string,
): number {
  const named = config[`${kind}_token`];
  const content = isObject(named) ? named.content : named;
  const token = typeof content === 'string' ? content : `<${kind}>`;
  const id =
    added_tokens.find((entry) => entry.content === token)?.id ??
    (Object.hasOwn(model.vocab, token) ? model.vocab[token] : undefined);
  if (id === undefined) throw tokenizerError(file, `has no token ${JSON.stringify(token)} (its ${kind} token)`);
  return id;
}

/** The normalizer without its lower-casing steps. */
function withoutLowercase(normalizer: unknown): unknown {
  if (!isObject(normalizer)) return null;
  if (normalizer.type === 'Lowercase') return null;
  if (normalizer.type !== 'Sequence' || !Array.isArray(normalizer.normalizers)) return normalizer;
  const steps = normalizer.normalizers.map(withoutLowercase).filter((step) => step !== null);
  return steps.length > 1 ? { ...normalizer, normalizers: steps } : (steps[0] ?? null);
}

/** An added token that is searched in normalised text is searched in lower case, unless that is another token. */
function lowerCased(token: AddedToken, vocab: Record<string, number>): AddedToken {
  const content = lowerCase(token.content);
  return !isNormalized(token) || content === token.content || Object.hasOwn(vocab, content)
    ? token
    : { ...token, content };
}

/** Whether a token is searched in normalised text. */
function isNormalized({ normalized, special }: AddedToken): boolean {
  return normalized ?? !special;
}

/** Added tokens as they are looked for; undefined where what is found would not say which one it is. */
function addedContents(added: AddedToken[]): AddedContent[] | undefined {
  const contents = added.map((token) => {
    const normalized = isNormalized(token);
    return { content: normalized ? token.content.replaceAll(' ', spaceMark) : token.content, id: token.id, normalized };
  });
  const names = new Set([...contents, ...added].map(({ content, id }) => `${id} ${content}`));
  const distinct = new Set([...contents, ...added].map(({ content }) => content)).size === names.size;
  return distinct && contents.every(({ content }) => !/\p{Surrogate}/u.test(content)) ? contents : undefined;
}

/** Whether a model of plain merges spells what it does not know in bytes, and so never gives its unknown token. */
function spellsUnknown(model: TokenizerDefinition['model'], added: AddedToken[]): boolean {
  const { type, byte_fallback, fuse_unk, unk_token, continuing_subword_suffix } = model;
  // Unknown tokens in a row would become one. As an added token, its name is never left to the merges.
  const unknownIsAdded = added.some(({ content }) => content === unk_token && !content.includes(spaceMark));
  return (
    type === 'BPE' && byte_fallback === true && !continuing_subword_suffix && (fuse_unk !== true || unknownIsAdded)
  );
}

function isSpaceReplacement(normalizer: unknown): boolean {
  if (!isObject(normalizer) || normalizer.type !== 'Replace' || !isObject(normalizer.pattern)) return false;
  return normalizer.pattern.String === ' ' && normalizer.content === spaceMark;
}

/** Whether a pre-tokenizer does nothing once spaces have been replaced. */
function splitsOnSpacesOnly(preTokenizer: unknown): boolean {
  if (preTokenizer === null) return true;
  return (
    isObject(preTokenizer) &&
    preTokenizer.type === 'Split' &&
    isObject(preTokenizer.pattern) &&
    preTokenizer.pattern.String === ' ' &&
    preTokenizer.invert !== true
  );
}

/** Whether any merge joins something that is no space mark with a following space mark. */
function mergesAcrossWords({ model: { merges, vocab } }: TokenizerDefinition): boolean {
  if (!Object.hasOwn(vocab, spaceMark)) return true;
  return merges.some((merge) => {
    if (typeof merge !== 'string') return merge[1].startsWith(spaceMark) && !merge[0].endsWith(spaceMark);
    const gap = merge.indexOf(' ', 1);
    return merge[gap + 1] === spaceMark && merge[gap - 1] !== spaceMark;
  });
}

/** UTF-16 units of the longest token. */
function longestToken({ model: { vocab, merges }, added_tokens }: TokenizerDefinition): number {
  let longest = 1;
  for (const token of Object.keys(vocab)) longest = Math.max(longest, token.length);
  for (const { content } of added_tokens) longest = Math.max(longest, content.length);
  for (const merge of merges)
    longest = Math.max(longest, typeof merge === 'string' ? merge.length - 1 : merge[0].length + merge[1].length);
  return longest;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
