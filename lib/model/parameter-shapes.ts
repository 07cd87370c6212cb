/** Names and shapes of a model's parameters, as Hugging Face's SiglipModel and Siglip2Model store them. */
import type { Siglip2Config, Tower } from './config.js';

/** Parameter shapes by name. Linear weights are [outputs, inputs]. */
export type ParameterShapes = Map<string, number[]>;

/**
 * Every parameter of a model of this configuration, by Hugging Face name, in the order of the model's definition.
 * `logit_scale` and `logit_bias` belong to the model, whichever towers are asked for.
 *
 * @param towers the towers wanted
 */
export function parameterShapes(config: Siglip2Config, towers: readonly Tower[] = ['vision', 'text']): ParameterShapes {
  const shapes: ParameterShapes = new Map([
    ['logit_scale', [1]],
    ['logit_bias', [1]],
  ]);
  if (towers.includes('text')) addTextTower(shapes, config);
  if (towers.includes('vision')) addVisionTower(shapes, config);
  return shapes;
}

function addTextTower(shapes: ParameterShapes, { text }: Siglip2Config): void {
  shapes.set('text_model.embeddings.token_embedding.weight', [text.vocabSize, text.hiddenSize]);
  shapes.set('text_model.embeddings.position_embedding.weight', [text.maxPositionEmbeddings, text.hiddenSize]);
  addEncoder(shapes, 'text_model', text);
  addNorm(shapes, 'text_model.final_layer_norm', text.hiddenSize);
  addLinear(shapes, 'text_model.head', text.projectionSize, text.hiddenSize);
}

function addVisionTower(shapes: ParameterShapes, { vision, architecture }: Siglip2Config): void {
  const { hiddenSize, intermediateSize, patchSize, numChannels } = vision;
  shapes.set(
    'vision_model.embeddings.patch_embedding.weight',
    architecture === 'fixed'
      ? [hiddenSize, numChannels, patchSize, patchSize]
      : [hiddenSize, numChannels * patchSize * patchSize],
  );
  shapes.set('vision_model.embeddings.patch_embedding.bias', [hiddenSize]);
  shapes.set('vision_model.embeddings.position_embedding.weight', [vision.numPatches, hiddenSize]);
  addEncoder(shapes, 'vision_model', vision);
  addNorm(shapes, 'vision_model.post_layernorm', hiddenSize);
  if (!vision.useHead) return;
  shapes.set('vision_model.head.probe', [1, 1, hiddenSize]);
  shapes.set('vision_model.head.attention.in_proj_weight', [3 * hiddenSize, hiddenSize]);
  shapes.set('vision_model.head.attention.in_proj_bias', [3 * hiddenSize]);
  addLinear(shapes, 'vision_model.head.attention.out_proj', hiddenSize, hiddenSize);
  addNorm(shapes, 'vision_model.head.layernorm', hiddenSize);
  addLinear(shapes, 'vision_model.head.mlp.fc1', intermediateSize, hiddenSize);
  addLinear(shapes, 'vision_model.head.mlp.fc2', hiddenSize, intermediateSize);
}

function addEncoder(
  shapes: ParameterShapes,
  tower: string,
  { hiddenSize, intermediateSize, numHiddenLayers }: Siglip2Config['vision' | 'text'],
): void {
  for (let layer = 0; layer < numHiddenLayers; layer++) {
    const prefix = `${tower}.encoder.layers.${layer}`;
    addNorm(shapes, `${prefix}.layer_norm1`, hiddenSize);
    for (const projection of ['q_proj', 'k_proj', 'v_proj', 'out_proj'])
      addLinear(shapes, `${prefix}.self_attn.${projection}`, hiddenSize, hiddenSize);
    addNorm(shapes, `${prefix}.layer_norm2`, hiddenSize);
    addLinear(shapes, `${prefix}.mlp.fc1`, intermediateSize, hiddenSize);
    addLinear(shapes, `${prefix}.mlp.fc2`, hiddenSize, intermediateSize);
  }
}

function addNorm(shapes: ParameterShapes, name: string, size: number): void {
  shapes.set(`${name}.weight`, [size]);
  shapes.set(`${name}.bias`, [size]);
}

function addLinear(shapes: ParameterShapes, name: string, outputs: number, inputs: number): void {
  shapes.set(`${name}.weight`, [outputs, inputs]);
  shapes.set(`${name}.bias`, [outputs]);
}
