// Learns the merges of a byte-pair vocabulary from words with counts (Sennrich, Haddow and Birch, arXiv 1508.07909).

/** Pairs by count, the most frequent first; entries whose count is no longer true are passed over. */
class PairQueue {
  #heap = [];

  push(entry) {
    const heap = this.#heap;
    let at = heap.length;
    heap.push(entry);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!before(heap[at], heap[parent])) break;
      [heap[at], heap[parent]] = [heap[parent], heap[at]];
      at = parent;
    }
  }

  pop() {
    const heap = this.#heap;
    const first = heap[0];
    const last = heap.pop();
    if (heap.length === 0) return first;
    heap[0] = last;
    for (let at = 0; ; ) {
      const left = 2 * at + 1;
      const right = left + 1;
      let least = at;
      if (left < heap.length && before(heap[left], heap[least])) least = left;
      if (right < heap.length && before(heap[right], heap[least])) least = right;
      if (least === at) return first;
      [heap[at], heap[least]] = [heap[least], heap[at]];
      at = least;
    }
  }
}

/** More frequent first, and of equally frequent ones the first in the order of their characters. */
function before(a, b) {
  return a.count !== b.count ? a.count > b.count : a.key < b.key;
}

const separator = '\u0000';

/**
 * The most frequent pair of neighbouring symbols is joined, again and again.
 *
 * @param {Map<string, number>} words how often each word occurs
 * @param {number} most merges to learn
 * @param {(symbol: string) => boolean} known symbols that take part; a character that is none stands for itself and is
 *   never joined
 * @returns {[string, string][]} the merges in the order in which they are applied
 */
export function learnMerges(words, most, known) {
  const spelled = [...words].map(([word, count]) => ({ symbols: [...word], count }));
  const counts = new Map();
  const places = new Map();
  const queue = new PairQueue();
  const change = (key, by, word) => {
    const count = (counts.get(key) ?? 0) + by;
    counts.set(key, count);
    if (by > 0) {
      if (!places.has(key)) places.set(key, new Set());
      places.get(key).add(word);
    }
    return count;
  };
  const pairsOf = ({ symbols }) =>
    symbols
      .slice(1)
      .flatMap((symbol, i) => (known(symbols[i]) && known(symbol) ? [symbols[i] + separator + symbol] : []));

  for (const word of spelled) for (const key of pairsOf(word)) change(key, word.count, word);
  for (const [key, count] of counts) queue.push({ key, count });
  const merges = [];
  while (merges.length < most) {
    const next = queue.pop();
    if (next === undefined) break;
    const { key, count } = next;
    const current = counts.get(key);
    if (current !== count) {
      // Its count has fallen since; it has its turn later.
      if (current > 0 && current < count) queue.push({ key, count: current });
      continue;
    }
    if (count < 2) break;
    const [left, right] = key.split(separator);
    merges.push([left, right]);
    const touched = new Map();
    for (const word of places.get(key)) {
      for (const pair of pairsOf(word)) touched.set(pair, change(pair, -word.count, word));
      word.symbols = joined(word.symbols, left, right);
      for (const pair of pairsOf(word)) touched.set(pair, change(pair, word.count, word));
    }
    places.delete(key);
    for (const [pair, now] of touched) if (now > 0 && pair !== key) queue.push({ key: pair, count: now });
  }
  return merges;
}

function joined(symbols, left, right) {
  const result = [];
  for (let i = 0; i < symbols.length; i++)
    if (symbols[i] === left && symbols[i + 1] === right) {
      result.push(left + right);
      i++;
    } else result.push(symbols[i]);
  return result;
}
