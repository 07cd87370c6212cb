/** Every tiny checkpoint against Hugging Face transformers: features, logits, and the hidden states of every layer. */
import { describe, expect, it } from 'vitest';
import { Siglip2, type TensorData } from '../../lib/index.js';
import { cosine, largestDifference, relativeError } from '../support/compare.js';
import { emulated, type ModelType, modelTypes, testDevice } from '../support/devices.js';
import {
  type CheckpointName,
  checkpointFolder,
  checkpointNames,
  readGolden,
  type StoredTensor,
} from '../support/golden.js';
import { generatePixels, patchInput, readInputs, tensorOf } from '../support/golden-inputs.js';

/** The derived checkpoints share the inputs of the one that they are derived from. */
const inputsOf = (name: CheckpointName): string => `models/${name.replace(/_bf16.*$/, '')}/inputs.safetensors`;

/** The real tokens of the first items of a padded [n, padded, width] array. */
function realRows(values: ArrayLike<number>, padded: number, width: number, tokens: number[], items: number): number[] {
  const rows: number[] = [];
  for (let item = 0; item < items; item++) {
    const start = item * padded * width;
    for (let i = 0; i < (tokens[item] as number) * width; i++) rows.push(values[start + i] as number);
  }
  return rows;
}

function compareStates(
  tower: 'vision' | 'text',
  golden: Map<string, StoredTensor>,
  states: TensorData[],
  last: TensorData,
  tokens: number[],
  bound: number,
): void {
  const names = ['embeddings', ...states.slice(1).map((_, i) => `layer.${i}`)].map((name) => `${tower}.${name}`);
  expect(states.length).toBe(names.length);
  for (const [index, name] of [...names, `${tower}.last_hidden_state`].entries()) {
    const expected = tensorOf(golden, name);
    const actual = states[index] ?? last;
    const [items, padded, width] = expected.shape as [number, number, number];
    const real = tokens.length > 0 ? tokens : new Array<number>(items).fill(padded);
    const error = relativeError(
      realRows(actual.data, actual.shape[1] as number, width, real, items),
      realRows(expected.values, padded, width, real, items),
    );
    expect(error, name).toBeLessThan(bound);
  }
}

/**
 * Bounds of errors relative to the largest value. In bfloat16 twice what the emulated GPU has (features 0.008, states
 * 0.0165): every result of a layer is rounded by up to 2⁻⁸.
 */
const bounds: Record<ModelType, { features: number; states: number; logits: number }> = {
  float32: { features: 1e-5, states: 2e-5, logits: 1e-4 },
  // Logits are cosines, right to 0.0041, times a scale of some 112.
  bfloat16: { features: 0.02, states: 0.04, logits: 0.9 },
  int8: { features: 0.1, states: 0.2, logits: 5 },
};

const leastCosine: Record<ModelType, number> = { float32: 0.99999, bfloat16: 0.999, int8: 0.995 };

/** Requires the reference's features: each row's direction, and all values within the bound. */
function expectFeatures(actual: TensorData, expected: StoredTensor, dtype: ModelType): void {
  const [rows, width] = expected.shape as [number, number];
  for (let row = 0; row < rows; row++) {
    const of = (values: ArrayLike<number>) =>
      Array.from({ length: width }, (_, i) => values[row * width + i] as number);
    expect(cosine(of(actual.data), of(expected.values))).toBeGreaterThan(leastCosine[dtype]);
  }
  expect(relativeError(actual.data, expected.values)).toBeLessThan(bounds[dtype].features);
}

// An emulator needs seconds for each: one of each architecture and head dimension.
const names = checkpointNames.filter((name) => !emulated || /^(fixed_p14_hd64|fixed_p16_hd72|naflex_hd96)$/.test(name));
const namesAndTypes = names.flatMap((name) => modelTypes.map((dtype) => [name, dtype] as const));

describe.each(namesAndTypes)('%s in %s', (name, dtype) => {
  const golden = readGolden(`models/${name.replace('_sharded', '')}/outputs.safetensors`).tensors;

  it('gives the features, logits and hidden states of the reference', async () => {
    const inputs = readInputs(inputsOf(name));
    using model = await Siglip2.load(checkpointFolder(name), { device: testDevice, dtype });
    expect([model.device, model.dtype]).toEqual([testDevice, dtype]);
    const images = await model.vision.forward(inputs.vision, { hiddenStates: true });
    const texts = await model.text.forward(inputs.ids, [inputs.texts, inputs.ids.length / inputs.texts], {
      hiddenStates: true,
    });
    expectFeatures(images.pooled, tensorOf(golden, 'image_features'), dtype);
    expectFeatures(texts.pooled, tensorOf(golden, 'text_features'), dtype);

    const embeddings = (pooled: TensorData) => ({
      data: pooled.data,
      shape: pooled.shape as [number, number],
      row: (i: number) => pooled.data.subarray(i, i + 1),
    });
    const { logits } = model.similarity(embeddings(images.pooled), embeddings(texts.pooled));
    expect(largestDifference(logits, tensorOf(golden, 'logits_per_image').values)).toBeLessThan(bounds[dtype].logits);

    if (!golden.has('vision.embeddings')) return;
    const bound = bounds[dtype].states;
    compareStates('vision', golden, images.hiddenStates as TensorData[], images.lastHiddenState, inputs.tokens, bound);
    compareStates('text', golden, texts.hiddenStates as TensorData[], texts.lastHiddenState, [], bound);
  });

  it('gives embeddings of unit length', async () => {
    using model = await Siglip2.load(checkpointFolder(name), { device: testDevice, dtype, towers: ['vision'] });
    const data = Uint8Array.from({ length: 3 * 40 * 30 }, (_, i) => (i * 7) % 251);
    const options = model.config.architecture === 'naflex' ? { maxPatches: 16 } : {};
    const { data: embedding } = await model.embedImages({ data, width: 40, height: 30, channels: 3 }, options);
    expect(Math.hypot(...embedding)).toBeCloseTo(1, 6);
  });
});

describe.skipIf(emulated).each(checkpointNames.filter((name) => name.startsWith('naflex')))('%s', (name) => {
  it('gives the reference features of images of up to 256 patches', async () => {
    const { tensors, metadata } = readGolden(`models/${name}/long_256.safetensors`);
    const spatialShapes = Int32Array.from(tensorOf(tensors, 'spatial_shapes').values);
    const n = spatialShapes.length / 2;
    const [padded, patchDim] = [256, 768];
    const mask = new Int32Array(n * padded);
    const tokens = Array.from(
      { length: n },
      (_, i) => (spatialShapes[2 * i] as number) * (spatialShapes[2 * i + 1] as number),
    );
    tokens.forEach((count, i) => {
      mask.fill(1, i * padded, i * padded + count);
    });
    const patches = generatePixels(Number(metadata.pixel_seed), [n, padded, patchDim], mask);
    using model = await Siglip2.load(checkpointFolder(name), {
      device: testDevice,
      dtype: 'float32',
      towers: ['vision'],
    });
    const output = await model.vision.forward(patchInput(patches, [n, padded, patchDim], mask, spatialShapes));
    expect(relativeError(output.pooled.data, tensorOf(tensors, 'image_features').values)).toBeLessThan(1e-5);

    const width = output.lastHiddenState.shape[2] as number;
    const { data } = output.lastHiddenState;
    const token = (index: number) =>
      tokens.flatMap((_, i) => [...data.subarray((i * padded + index) * width, (i * padded + index + 1) * width)]);
    expect(relativeError(token(0), tensorOf(tensors, 'last_hidden_state_token_0').values)).toBeLessThan(2e-5);
    const sums = tokens.flatMap((count, i) =>
      Array.from({ length: width }, (_, column) => {
        let sum = 0;
        for (let row = 0; row < count; row++) sum += data[(i * padded + row) * width + column] as number;
        return sum;
      }),
    );
    expect(relativeError(sums, tensorOf(tensors, 'last_hidden_state_token_sum').values)).toBeLessThan(2e-5);
    // Padding costs nothing and yields nothing.
    tokens.forEach((count, i) => {
      expect(data.subarray((i * padded + count) * width, (i + 1) * padded * width).every((value) => value === 0)).toBe(
        true,
      );
    });
  });
});
