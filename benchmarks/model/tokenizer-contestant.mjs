// Tokenizers that run in Node as contestants, for tokenizer.mjs; see ../peers/README.md.
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { Tokenizer as HuggingFaceTokenizer } from '@huggingface/tokenizers';
import { Tokenizer } from 'siglip2';
import { answerRequests } from '../support/answer.mjs';

/** Each makes a function from texts to ids, [texts, length]. */
const makers = {
  async siglip2(folder) {
    const tokenizer = await Tokenizer.fromFolder(folder);
    return (texts) => tokenizer.encode(texts).inputIds;
  },
  /** The library as one would use it by itself: the rules of docs/text.md written out around it. */
  async library(folder, length) {
    const json = JSON.parse(readFileSync(path.join(folder, 'tokenizer.json'), 'utf8'));
    const tokenizer = new HuggingFaceTokenizer({ ...json, post_processor: null, decoder: null }, {});
    return (texts) => {
      const ids = new Int32Array(texts.length * length);
      texts.forEach((text, row) => {
        const all = tokenizer.encode(text.replaceAll('Σ', 'σ').toLowerCase()).ids.slice(0, length - 1);
        ids.set([...all, 1], row * length);
      });
      return ids;
    };
  },
};
const descriptions = { siglip2: 'one thread', library: '@huggingface/tokenizers, one thread' };
const length = 64;
let encode;
let turn = 0;

await answerRequests({
  async load({ folder, maker }) {
    const start = performance.now();
    const before = process.cpuUsage();
    encode = await makers[maker](folder, length);
    encode(['a photo of a cat']);
    const { user, system } = process.cpuUsage(before);
    return {
      description: descriptions[maker],
      milliseconds: performance.now() - start,
      cpuMilliseconds: (user + system) / 1000,
    };
  },
  prepare: (_kind, _shape, { texts }) => JSON.parse(Buffer.from(texts).toString('utf8')),
  // A run encodes all batches; timed ones take turns, since encoders remember texts that they have met.
  forward: async (batches, { part }) => encode(part === 'all' ? batches.flat() : batches[turn++ % batches.length]),
});
