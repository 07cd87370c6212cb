/** Small models and batches for tests of training. */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { Siglip2 } from '../../lib/index.js';
import { Trainer, type TrainerOptions, type TrainingBatch } from '../../lib/training/index.js';
import { type CheckpointName, checkpointFolder, parseSafetensors } from './golden.js';
import { textInput, visionInput } from './inputs.js';

/** A trainer of a tiny checkpoint. */
export async function tinyTrainer(
  options: TrainerOptions = {},
  name: CheckpointName = 'naflex_hd96',
): Promise<Trainer> {
  using model = await Siglip2.load(checkpointFolder(name));
  return Trainer.create(model, options);
}

/** A made-up batch of pairs; other seeds, other pairs. Images have different shapes where the model allows it. */
export function madeUpBatch(trainer: Trainer, examples: number, seed = 0): TrainingBatch {
  const { config } = trainer.model;
  const seeds = Array.from({ length: examples }, (_, i) => 1000 * seed + i);
  const [inputIds, shape] = textInput(config, seeds);
  const images = visionInput(config, seeds, [
    [2, 3],
    [4, 4],
    [1, 5],
  ]);
  return { images, texts: { inputIds, shape } };
}

/** The parameters that a folder's model.safetensors holds, by name. */
export function storedParameters(folder: string): Map<string, Float64Array> {
  const { tensors } = parseSafetensors(readFileSync(path.join(folder, 'model.safetensors')));
  return new Map([...tensors].map(([name, { values }]) => [name, values]));
}

/** Largest difference of two models' parameters, relative to each parameter's largest value. */
export function parameterDistance(left: Map<string, Float64Array>, right: Map<string, Float64Array>): number {
  if (left.size !== right.size || left.size === 0) return Infinity;
  let largest = 0;
  for (const [name, values] of left) {
    const others = right.get(name);
    if (others === undefined || others.length !== values.length) return Infinity;
    let magnitude = 1e-3;
    let difference = 0;
    values.forEach((value, i) => {
      magnitude = Math.max(magnitude, Math.abs(value));
      const distance = Math.abs(value - (others[i] as number));
      // Math.max keeps a NaN.
      difference = Math.max(difference, distance);
    });
    largest = Math.max(largest, difference / magnitude);
  }
  return largest;
}
