// The model's tokenizer: byte pairs learned from the words of the languages that are trained, in Hugging Face's form.
//
// Lower case, composed characters (NFC) and no merges across spaces: a word has the same tokens wherever it stands. What is no character of the
// alphabet is spelled in bytes.
import { learnMerges } from './byte-pair-training.mjs';

const specialTokens = ['<pad>', '<eos>', '<bos>', '<unk>'];
const spaceMark = '▁';

/** Lower case as the package's tokenizer makes it before anything else. */
export const lowerCase = (text) => text.replaceAll('Σ', 'σ').toLowerCase();

/**
 * @param {Iterable<string>} texts what the vocabulary is learned from
 * @param {{ vocabularySize: number, context: number }} options
 * @returns {{ tokenizer: object, configuration: object }} contents of tokenizer.json and tokenizer_config.json
 */
export function learnTokenizer(texts, { vocabularySize, context }) {
  const words = new Map();
  for (const text of texts)
    for (const word of lowerCase(text).split(/\s+/u)) if (word !== '') words.set(word, (words.get(word) ?? 0) + 1);
  const alphabet = learnAlphabet(words);
  const bytes = Array.from({ length: 256 }, (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`);
  const start = [...specialTokens, ...bytes, spaceMark, ...alphabet];
  if (start.length >= vocabularySize)
    throw new RangeError(
      `vocabularySize: expected more than the ${start.length} tokens of the alphabet, got ${vocabularySize}`,
    );
  const known = new Set(alphabet);
  const merges = learnMerges(
    words,
    vocabularySize - start.length,
    (symbol) => known.has(symbol) || [...symbol].length > 1,
  );
  const tokens = [...start];
  const all = new Set(start);
  for (const [left, right] of merges)
    if (!all.has(left + right)) {
      all.add(left + right);
      tokens.push(left + right);
    }
  const eos = { id: '<eos>', ids: [specialTokens.indexOf('<eos>')], tokens: ['<eos>'] };
  return {
    tokenizer: {
      version: '1.0',
      truncation: null,
      padding: null,
      added_tokens: specialTokens.map((content, id) => ({
        id,
        content,
        single_word: false,
        lstrip: false,
        rstrip: false,
        normalized: false,
        special: true,
      })),
      normalizer: {
        type: 'Sequence',
        normalizers: [{ type: 'Lowercase' }, { type: 'Replace', pattern: { String: ' ' }, content: spaceMark }],
      },
      pre_tokenizer: null,
      post_processor: {
        type: 'TemplateProcessing',
        single: [{ Sequence: { id: 'A', type_id: 0 } }, { SpecialToken: { id: '<eos>', type_id: 0 } }],
        pair: [
          { Sequence: { id: 'A', type_id: 0 } },
          { SpecialToken: { id: '<eos>', type_id: 0 } },
          { Sequence: { id: 'B', type_id: 0 } },
          { SpecialToken: { id: '<eos>', type_id: 0 } },
        ],
        special_tokens: { '<eos>': eos },
      },
      decoder: {
        type: 'Sequence',
        decoders: [
          { type: 'Replace', pattern: { String: spaceMark }, content: ' ' },
          { type: 'ByteFallback' },
          { type: 'Fuse' },
        ],
      },
      model: {
        type: 'BPE',
        dropout: null,
        unk_token: '<unk>',
        continuing_subword_prefix: null,
        end_of_word_suffix: null,
        fuse_unk: true,
        byte_fallback: true,
        ignore_merges: false,
        vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
        merges,
      },
    },
    configuration: {
      // The class that takes tokenizer.json as it is; Gemma's own would not lower the case.
      tokenizer_class: 'PreTrainedTokenizerFast',
      processor_class: 'Siglip2Processor',
      model_input_names: ['input_ids'],
      clean_up_tokenization_spaces: false,
      add_bos_token: false,
      add_eos_token: true,
      bos_token: '<bos>',
      eos_token: '<eos>',
      pad_token: '<pad>',
      unk_token: '<unk>',
      do_lower_case: true,
      model_max_length: context,
      padding_side: 'right',
    },
  };
}

/** Characters that occur at least twice, and the printable ones of ASCII. */
function learnAlphabet(words) {
  const counts = new Map();
  for (const [word, count] of words)
    for (const character of word) counts.set(character, (counts.get(character) ?? 0) + count);
  for (let code = 0x21; code < 0x7f; code++) {
    const character = String.fromCharCode(code);
    if (lowerCase(character) === character) counts.set(character, (counts.get(character) ?? 0) + 2);
  }
  return [...counts]
    .filter(([, count]) => count >= 2)
    .map(([character]) => character)
    .sort();
}
