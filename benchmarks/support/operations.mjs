/** Floating-point operations of a model, for rates: what its formulas ask for, whatever a program really does. */

/**
 * Of one layer of a transformer on sequences of `tokens`: four projections, the two layers of the MLP, and the two
 * products of the attention.
 */
function blockOperations(tokens, { hiddenSize, intermediateSize }) {
  const linear = 2 * tokens * (4 * hiddenSize ** 2 + 2 * hiddenSize * intermediateSize);
  return linear + 4 * tokens ** 2 * hiddenSize;
}

/** Of the forward pass of both towers for one pair of an image and a text; the pooling head is left out, a thousandth. */
export function forwardOperations({ vision, text }, patches, length) {
  const patchEmbedding = 2 * patches * 3 * vision.patchSize ** 2 * vision.hiddenSize;
  const images = patchEmbedding + vision.numHiddenLayers * blockOperations(patches, vision);
  return images + text.numHiddenLayers * blockOperations(length, text);
}
