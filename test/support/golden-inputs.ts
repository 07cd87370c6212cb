/** The inputs that the golden models were run on. */
import type { VisionForwardInput } from '../../lib/index.js';
import { hash, pixel, readGolden, type StoredTensor } from './golden.js';

export interface GoldenInputs {
  ids: Int32Array;
  texts: number;
  vision: VisionForwardInput;
  /** Real tokens of each image. */
  tokens: number[];
}

/** A tensor that must be in a fixture. */
export function tensorOf(tensors: Map<string, StoredTensor>, name: string): StoredTensor {
  const tensor = tensors.get(name);
  if (tensor === undefined) throw new Error(`the fixture has no ${name}`);
  return tensor;
}

/** Pixels from the reference's generator, zero where the mask is. */
export function generatePixels(seed: number, shape: number[], mask?: Int32Array): Float32Array {
  const values = new Float32Array(shape.reduce((a, b) => a * b, 1));
  const row = shape[shape.length - 1] as number;
  for (let i = 0; i < values.length; i++)
    values[i] = mask !== undefined && mask[Math.floor(i / row)] === 0 ? 0 : pixel(hash(i, seed));
  return values;
}

/** Padded patches as `Siglip2.vision.forward` takes them. */
export function patchInput(
  patches: Float32Array,
  shape: number[],
  mask: Int32Array,
  spatialShapes: Int32Array,
): VisionForwardInput {
  return { patches, shape: shape as [number, number, number], mask, spatialShapes };
}

/** Inputs from a fixture: stored, or computed from the seed in its metadata. */
export function readInputs(fixture: string): GoldenInputs {
  const { tensors, metadata } = readGolden(fixture);
  const ids = tensorOf(tensors, 'input_ids');
  const common = { ids: Int32Array.from(ids.values), texts: ids.shape[0] as number };
  const stored = tensors.get('pixel_values');
  const shape = stored?.shape ?? (JSON.parse(metadata.pixel_shape as string) as number[]);
  const mask = tensors.get('pixel_attention_mask');
  if (mask === undefined) {
    const pixelValues = stored ? Float32Array.from(stored.values) : generatePixels(Number(metadata.pixel_seed), shape);
    return { ...common, vision: { pixelValues, shape: shape as [number, 3, number, number] }, tokens: [] };
  }
  const maskValues = Int32Array.from(mask.values);
  const spatialShapes = Int32Array.from(tensorOf(tensors, 'spatial_shapes').values);
  const patches = stored
    ? Float32Array.from(stored.values)
    : generatePixels(Number(metadata.pixel_seed), shape, maskValues);
  const tokens = Array.from(
    { length: spatialShapes.length / 2 },
    (_, i) => (spatialShapes[2 * i] as number) * (spatialShapes[2 * i + 1] as number),
  );
  return { ...common, vision: patchInput(patches, shape, maskValues, spatialShapes), tokens };
}
