/** What a new model may start from instead of big_vision's defaults. */
import { requireNumber, requireOneOf, requireOptions, wrongRange } from '../arguments.js';
import type { Siglip2Config } from '../model/config.js';

/** Initial values of a model that is made from a configuration, where they should not be big_vision's for SigLIP. */
export interface InitializationOptions {
  /** The raw parameter, of which logits have the exponential as their factor; default ln 10. */
  logitScale?: number;
  /** Default −10, for batches of tens of thousands. About −ln(texts of a batch) is where one text in a batch is right. */
  logitBias?: number;
  /** `normal` (default): drawn at random. `sincos2d`: waves along both axes, so that positions mean something at once. */
  visionPositions?: 'normal' | 'sincos2d';
  /**
   * Of `sincos2d`: by how much the longest wave is longer than the shortest, which has 2π patches; default 10,000. For a
   * grid of 8 × 8 patches 10 is enough.
   */
  positionTemperature?: number;
}

/**
 * Positions on a square grid as sines and cosines (MoCo v3, arXiv 2104.02057, section 4; `posemb_sincos_2d` in
 * google-research/big_vision, models/vit.py): with ω_k = temperature^(−k / (width/4 − 1)) a position in row y and column
 * x is [sin(ω x), cos(ω x), sin(ω y), cos(ω y)].
 *
 * @param side rows and columns
 * @param width channels, a multiple of 4 and at least 8
 * @returns [side², width], row by row
 */
export function sincosPositions2d(side: number, width: number, temperature: number): Float32Array {
  const waves = width / 4;
  const positions = new Float32Array(side * side * width);
  for (let position = 0; position < side * side; position++)
    for (let wave = 0; wave < waves; wave++) {
      const frequency = temperature ** (-wave / (waves - 1));
      const column = frequency * (position % side);
      const row = frequency * Math.floor(position / side);
      [Math.sin(column), Math.cos(column), Math.sin(row), Math.cos(row)].forEach((value, part) => {
        positions[position * width + part * waves + wave] = value;
      });
    }
  return positions;
}

/**
 * The initial values that options choose, by parameter.
 * @throws TypeError, RangeError naming the option
 */
export function chosenInitialValues(
  config: Siglip2Config,
  options: InitializationOptions | undefined,
): Map<string, Float32Array> {
  const argument = 'options.initialization';
  const known = ['logitScale', 'logitBias', 'visionPositions', 'positionTemperature'];
  const checked = requireOptions(argument, options, known);
  const chosen = new Map<string, Float32Array>();
  for (const [key, name] of [
    ['logitScale', 'logit_scale'],
    ['logitBias', 'logit_bias'],
  ] as const) {
    if (checked[key] === undefined) continue;
    const value = requireNumber(`${argument}.${key}`, checked[key], 'a finite number', () => true);
    chosen.set(name, Float32Array.of(value));
  }
  const positions = requireOneOf(`${argument}.visionPositions`, checked.visionPositions ?? 'normal', [
    'normal',
    'sincos2d',
  ]);
  const { positionTemperature = 10_000 } = checked;
  requireNumber(
    `${argument}.positionTemperature`,
    positionTemperature,
    'a number of at least 1',
    (value) => value >= 1,
  );
  if (positions === 'normal') return chosen;
  const { hiddenSize, numPatches } = config.vision;
  const side = Math.round(Math.sqrt(numPatches));
  if (side * side !== numPatches || hiddenSize % 4 !== 0 || hiddenSize < 8)
    throw wrongRange(
      `${argument}.visionPositions`,
      `normal for a model of ${numPatches} positions and width ${hiddenSize}: sincos2d needs a square number and a multiple of 4 from 8 on`,
      positions,
    );
  chosen.set(
    'vision_model.embeddings.position_embedding.weight',
    sincosPositions2d(side, hiddenSize, positionTemperature),
  );
  return chosen;
}
