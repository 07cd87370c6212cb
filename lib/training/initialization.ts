/** How the parameters of a new model are initialised: as big_vision does it for SigLIP. */
import { wrongRange } from '../arguments.js';
import type { Siglip2Config, Tower } from '../model/config.js';
import type { NativeInitializationKind } from '../native.js';

/** The distribution of a parameter's initial values. */
export interface Initialization {
  /**
   * `constant`: `scale` everywhere. `uniform`: from −scale to scale. `normal`: mean 0, standard deviation `scale`.
   * `truncated_normal`: a standard normal value between −2 and 2, times `scale`.
   */
  readonly kind: NativeInitializationKind;
  readonly scale: number;
}

/** Standard deviation of a standard normal distribution cut at ±2. */
const truncatedDeviation = 0.87962566103423978;

const zeros: Initialization = { kind: 'constant', scale: 0 };
const ones: Initialization = { kind: 'constant', scale: 1 };
const xavier = (inputs: number, outputs: number): Initialization => ({
  kind: 'uniform',
  scale: Math.sqrt(6 / (inputs + outputs)),
});
/** Standard deviation 1/√inputs after the cut. */
const lecun = (inputs: number): Initialization => ({
  kind: 'truncated_normal',
  scale: Math.sqrt(1 / inputs) / truncatedDeviation,
});
const normal = (scale: number): Initialization => ({ kind: 'normal', scale });

type Rule = (shape: readonly number[]) => Initialization;
const size = (shape: readonly number[], axis: number): number => shape.at(axis) as number;
const matrix: Rule = (shape) => xavier(size(shape, 1), size(shape, 0));
const table: Rule = (shape) => normal(1 / Math.sqrt(size(shape, 1)));

const index = '(?:0|[1-9]\\d*)';
/** A parameter of every encoder layer. */
const inLayer = (rest: string): RegExp => new RegExp(`^(?:text|vision)_model\\.encoder\\.layers\\.${index}\\.${rest}$`);

const rules: readonly [RegExp, Rule][] = [
  [/^logit_scale$/, () => ({ kind: 'constant', scale: Math.LN10 })],
  [/^logit_bias$/, () => ({ kind: 'constant', scale: -10 })],
  [/^text_model\.embeddings\.(token|position)_embedding\.weight$/, table],
  [/^vision_model\.embeddings\.position_embedding\.weight$/, table],
  // A convolution [out, channels, rows, columns] or a linear layer [out, inputs]: every input of an output counts.
  [/^vision_model\.embeddings\.patch_embedding\.weight$/, (shape) => lecun(shape.slice(1).reduce((a, b) => a * b, 1))],
  [/^vision_model\.embeddings\.patch_embedding\.bias$/, () => zeros],
  [inLayer('layer_norm[12]\\.weight'), () => ones],
  [inLayer('layer_norm[12]\\.bias'), () => zeros],
  [inLayer('self_attn\\.(q|k|v|out)_proj\\.weight'), matrix],
  [inLayer('self_attn\\.(q|k|v|out)_proj\\.bias'), () => zeros],
  [inLayer('mlp\\.fc[12]\\.weight'), matrix],
  [inLayer('mlp\\.fc[12]\\.bias'), () => normal(1e-6)],
  [/^(text_model\.final_layer_norm|vision_model\.(post_layernorm|head\.layernorm))\.weight$/, () => ones],
  [/^(text_model\.final_layer_norm|vision_model\.(post_layernorm|head\.layernorm))\.bias$/, () => zeros],
  [/^text_model\.head\.weight$/, (shape) => lecun(size(shape, 1))],
  [/^text_model\.head\.bias$/, () => zeros],
  // JAX takes the last two axes of [1, 1, width] for inputs and outputs.
  [/^vision_model\.head\.probe$/, (shape) => xavier(1, size(shape, 2))],
  // Three matrices, of query, key and value, in one.
  [/^vision_model\.head\.attention\.in_proj_weight$/, (shape) => xavier(size(shape, 1), size(shape, 0) / 3)],
  [/^vision_model\.head\.attention\.in_proj_bias$/, () => zeros],
  [/^vision_model\.head\.attention\.out_proj\.weight$/, matrix],
  [/^vision_model\.head\.attention\.out_proj\.bias$/, () => zeros],
  [/^vision_model\.head\.mlp\.fc[12]\.weight$/, matrix],
  [/^vision_model\.head\.mlp\.fc[12]\.bias$/, () => normal(1e-6)],
];

/**
 * The initialisation of one parameter, after big_vision's and Flax's defaults (google-research/big_vision,
 * models/vit.py and models/proj/image_text): Xavier uniform matrices, each part of a joint projection by itself; LeCun
 * normal patch embedding and text head; embedding tables with deviation 1/√width.
 *
 * @param name Hugging Face's name
 * @param shape as `parameterShapes` lists it
 * @param config says how many layers there are
 * @throws RangeError when a model of this configuration has no parameter of that name
 */
export function initializationOf(name: string, shape: readonly number[], config: Siglip2Config): Initialization {
  const rule = rules.find(([pattern]) => pattern.test(name));
  const [, tower, layer] = /^(text|vision)_model\.encoder\.layers\.(\d+)\./.exec(name) ?? [];
  if (rule === undefined || (tower !== undefined && Number(layer) >= config[tower as Tower].numHiddenLayers))
    throw wrongRange('name', 'the name of a parameter', name);
  return rule[1](shape);
}
