/**
 * Small cases of every operation that has CUDA kernels, for mutation tests: together they come to every place where a
 * kernel synchronises or checks bounds. Shapes are no multiples of anything, so that every bounds check matters, and as
 * small as they can be with every path taken.
 */

import { Siglip2 } from '../../lib/index.js';
import {
  adamw,
  attention,
  attentionBackward,
  convert,
  gelu,
  geluBackward,
  l2Normalize,
  l2NormalizeBackward,
  layerNorm,
  layerNormBackward,
  linear,
  linearBackward,
  mapPool,
  mapPoolBackward,
  positionEmbedding,
  positionEmbeddingBackward,
  probeKeys,
  probeKeysBackward,
  sigmoidLoss,
  sumOfSquares,
  Tensor,
  tokenEmbedding,
  tokenEmbeddingBackward,
} from '../../lib/kernels/index.js';
import { native } from '../../lib/native.js';
import { type ActivationType, activationTypes, bfloat16Bits, type Place } from './devices.js';
import { checkpointFolder, hash } from './golden.js';
import { readInputs } from './golden-inputs.js';
import { Random } from './random.js';
import { listsOf } from './sigmoid-loss.js';

export interface MutationCase {
  name: string;
  operation: string;
  dtype: ActivationType;
  /** The operation's results on one device, from the same numbers each time. */
  run(place: Place): Promise<Float32Array[]>;
  /** The only sites that the case is to prove, for cases of a whole model. */
  sites?: RegExp;
}

/** Tensors from the same numbers on every device. */
class Inputs {
  #seed = 0;

  constructor(
    readonly place: Place,
    readonly dtype: ActivationType,
  ) {}

  values(shape: number[], scale = 1): Float32Array {
    return new Random(++this.#seed).floats(
      shape.reduce((product, size) => product * size, 1),
      scale,
    );
  }
  activation(...shape: number[]): Tensor {
    return this.place.activation(this.values(shape), shape);
  }
  parameter(...shape: number[]): Tensor {
    return this.place.parameter(this.values(shape), shape);
  }
  /** Rows of some length below 1. */
  features(rows: number, width: number): Tensor {
    return this.place.activation(this.values([rows, width], 0.9 * width ** -0.5), [rows, width]);
  }
  /** The type of results that are asked for; the oracle's are float32. */
  result(dtype: ActivationType = this.dtype): { dtype?: ActivationType } {
    return this.place.device === 'reference' ? {} : { dtype };
  }
}

type Result = Tensor | Float32Array | number;

async function read(result: Result): Promise<Float32Array> {
  if (result instanceof Tensor) return result.read();
  return typeof result === 'number' ? Float32Array.of(result) : result;
}

/** A case for each element type. */
function inTypes(
  types: readonly ActivationType[],
  name: string,
  run: (inputs: Inputs) => Promise<Record<string, Result>>,
): MutationCase[] {
  return types.map((dtype) => ({
    name: `${name}, ${dtype}`,
    operation: name.split(' ')[0] as string,
    dtype,
    run: async (place) => Promise.all(Object.values(await run(new Inputs(place, dtype))).map(read)),
  }));
}
const inEachType = inTypes.bind(undefined, activationTypes);
const inFloat32 = inTypes.bind(undefined, ['float32']);
const inBfloat16 = inTypes.bind(undefined, ['bfloat16']);

function offsetsOf(lengths: number[]): Int32Array {
  let sum = 0;
  return Int32Array.from([0, ...lengths.map((length) => (sum += length))]);
}

const rowwise: MutationCase[] = [
  // Unaligned rows, and aligned ones whose last group of eight is not whole.
  ...[19, 20, 320].flatMap((width) => [
    ...inEachType(`convert of ${width} to bfloat16`, (inputs) =>
      convert({ input: inputs.activation(5, width), dtype: 'bfloat16' }),
    ),
    ...inEachType(`convert of ${width} to float32`, (inputs) =>
      convert({ input: inputs.activation(5, width), dtype: 'float32' }),
    ),
  ]),
  ...[77, 80].flatMap((width) => [
    ...inEachType(`gelu of ${width}`, (inputs) => gelu({ input: inputs.activation(5, width) })),
    ...inEachType(`geluBackward of ${width}`, (inputs) =>
      geluBackward({ input: inputs.activation(5, width), gradOutput: inputs.activation(5, width) }),
    ),
    ...inEachType(`l2Normalize of ${width}`, (inputs) =>
      l2Normalize({ input: inputs.activation(5, width), ...inputs.result() }),
    ),
    ...inEachType(`l2NormalizeBackward of ${width}`, (inputs) =>
      l2NormalizeBackward({ input: inputs.activation(5, width), gradOutput: inputs.activation(5, width) }),
    ),
    ...inEachType(`layerNormBackward of ${width}`, (inputs) =>
      layerNormBackward({
        input: inputs.activation(70, width),
        weight: inputs.parameter(width),
        gradOutput: inputs.activation(70, width),
      }),
    ),
  ]),
  ...[77, 80, 1104, 1600].flatMap((width) =>
    inEachType(`layerNorm of ${width}`, (inputs) =>
      layerNorm({
        input: inputs.activation(5, width),
        weight: inputs.parameter(width),
        bias: inputs.parameter(width),
      }),
    ),
  ),
];

/** `none` or all of what an epilogue may add. */
function linearCase(rows: number, width: number, out: number, decorated: boolean): MutationCase[] {
  return inEachType(`linear of ${rows} × ${width} × ${out}${decorated ? ', with all' : ''}`, (inputs) =>
    linear({
      input: inputs.activation(rows, width),
      weight: inputs.activation(out, width),
      ...(decorated ? { bias: inputs.parameter(out), residual: inputs.activation(rows, out), activation: 'gelu' } : {}),
    }),
  );
}

const products: MutationCase[] = [
  // Rows of whole 16 bytes, of 8 and of neither; more slabs than a ring has; tiles of 64 and of 128.
  ...linearCase(45, 72, 40, true),
  ...linearCase(45, 76, 44, true),
  ...linearCase(45, 75, 37, true),
  ...linearCase(70, 136, 72, false),
  ...linearCase(6100, 24, 200, false),
  ...inEachType('linear with a weight of float16', ({ place, ...inputs }) => {
    const all = new Inputs(place, inputs.dtype);
    const weight =
      place.device === 'reference'
        ? place.parameter(
            Float32Array.from({ length: 33 * 21 }, (_, i) => ((i % 7) - 3) / 4),
            [33, 21],
          )
        : Tensor.from(
            Uint16Array.from({ length: 33 * 21 }, (_, i) => float16Quarters((i % 7) - 3)),
            [33, 21],
            { dtype: 'float16', device: place.device },
          );
    return linear({ input: all.activation(9, 21), weight });
  }),
  // The last two have a depth that is cut.
  ...[
    [45, 72, 40],
    [45, 76, 44],
    [45, 75, 37],
    [300, 24, 9],
    [2100, 9, 11],
    [2100, 16, 24],
  ].flatMap(([rows, width, out]) =>
    inEachType(`linearBackward of ${rows} × ${width} × ${out}`, (inputs) =>
      linearBackward({
        input: inputs.activation(rows as number, width as number),
        weight: inputs.activation(out as number, width as number),
        gradOutput: inputs.activation(rows as number, out as number),
      }),
    ),
  ),
  ...[
    [37, 20, false],
    [70, 72, true],
    [131, 36, true],
    [67, 35, true],
  ].flatMap(([n, width, gradients]) =>
    inEachType(`sigmoidLoss of ${n} × ${width}${gradients ? ', with gradients' : ''}`, async (inputs) => ({
      ...(await sigmoidLoss({
        images: inputs.features(n as number, width as number),
        texts: inputs.features(n as number, width as number),
        logitScale: 1.5,
        logitBias: -2,
        gradients: gradients as boolean,
      })),
    })),
  ),
  // Neighbouring images with neighbouring texts: what is read beyond an image's list belongs to the next one's.
  ...inEachType('sigmoidLoss of 70 × 45 × 20, with lists', async (inputs) => ({
    ...(await sigmoidLoss({
      images: inputs.features(70, 20),
      texts: inputs.features(45, 20),
      positives: listsOf(70, 45, (image, text) => (text - image) % 7 === 0),
      logitScale: 1.5,
      logitBias: -2,
      gradients: true,
    })),
  })),
];

/** float16 bits of a number of quarters from −3 to 3. */
function float16Quarters(quarters: number): number {
  const magnitude = [0, 0x3400, 0x3800, 0x3a00][Math.abs(quarters)] as number;
  return quarters < 0 ? magnitude | 0x8000 : magnitude;
}

function attentionCases(
  types: (name: string, run: (inputs: Inputs) => Promise<Record<string, Result>>) => MutationCase[],
  headDim: number,
  lengths: number[],
  keyLengths = lengths,
): MutationCase[] {
  const queryOffsets = offsetsOf(lengths);
  const keyOffsets = offsetsOf(keyLengths);
  const total = (offsets: Int32Array) => offsets[offsets.length - 1] as number;
  return [false, true].flatMap((causal) => {
    const name = `of ${headDim}${causal ? ', causal' : ''}, ${lengths} by ${keyLengths}`;
    const given = (inputs: Inputs) => ({
      query: inputs.activation(total(queryOffsets), 2, headDim),
      key: inputs.activation(total(keyOffsets), 2, headDim),
      value: inputs.activation(total(keyOffsets), 2, headDim),
      queryOffsets,
      keyOffsets,
      causal,
    });
    return [
      ...types(`attention ${name}`, (inputs) => attention(given(inputs))),
      ...types(`attentionBackward ${name}`, async (inputs) => {
        const args = given(inputs);
        const gradOutput = inputs.activation(total(queryOffsets), 2, headDim);
        return attentionBackward({ ...args, ...(await attention(args)), gradOutput });
      }),
    ];
  });
}

const attentions: MutationCase[] = [
  // Tensor cores: shorter than a tile, none, several tiles; one that takes two row tiles a warp.
  ...attentionCases(inBfloat16, 64, [37, 0, 70]),
  ...attentionCases(inBfloat16, 64, [210, 13]),
  ...attentionCases(inBfloat16, 72, [37, 0, 70]),
  ...attentionCases(inBfloat16, 72, [119, 110], [203, 0]),
  ...attentionCases(inBfloat16, 128, [37, 0, 70]),
  ...attentionCases(inBfloat16, 80, [119]),
  ...attentionCases(inBfloat16, 96, [119]),
  ...attentionCases(inBfloat16, 32, [37, 99]),
  // Ordinary arithmetic, with aligned and unaligned rows.
  ...attentionCases(inEachType, 24, [5, 0, 70]),
  ...attentionCases(inEachType, 30, [37, 3], [40, 9]),
  ...attentionCases(inFloat32, 72, [70]),
  ...attentionCases(inEachType, 130, [37]),
];

// All scores so low that weights would be infinite in places past the last key, where scores are 0.
const lowScores: MutationCase[] = inBfloat16('attentionBackward of 64, low scores', async (inputs) => {
  const shape = [70, 2, 64];
  // Scores are −300 but for what the other columns add.
  const withFirst = (first: number) => {
    const values = inputs.values(shape);
    return inputs.place.activation(
      values.map((value, i) => (i % 64 === 0 ? first : value)),
      shape,
    );
  };
  const args = { query: withFirst(600), key: withFirst(-4), value: inputs.activation(...shape) };
  return attentionBackward({ ...args, ...(await attention(args)), gradOutput: inputs.activation(...shape) });
});

const pooling: MutationCase[] = [
  [20, 2],
  [22, 2],
  [140, 5],
  [66, 22],
].flatMap(([width, heads]) => {
  const offsets = offsetsOf([0, 35, 71, 2]);
  const [tokens, sequences] = [108, 4];
  const given = (inputs: Inputs) => ({
    tokens: inputs.activation(tokens, width as number),
    offsets,
    probeKeys: inputs.parameter(heads as number, width as number),
    valueWeight: inputs.parameter(width as number, width as number),
  });
  const probe = (inputs: Inputs) => ({
    probe: inputs.parameter(width as number),
    queryWeight: inputs.parameter(width as number, width as number),
    queryBias: inputs.parameter(width as number),
    keyWeight: inputs.parameter(width as number, width as number),
  });
  return [
    ...inEachType(`mapPool of ${width}`, (inputs) =>
      mapPool({ ...given(inputs), valueBias: inputs.parameter(width as number) }),
    ),
    ...inEachType(`mapPoolBackward of ${width}`, (inputs) =>
      mapPoolBackward({ ...given(inputs), gradOutput: inputs.activation(sequences, width as number) }),
    ),
    ...inFloat32(`probeKeys of ${width}`, (inputs) => probeKeys({ ...probe(inputs), heads: heads as number })),
    ...inFloat32(`probeKeysBackward of ${width}`, (inputs) =>
      probeKeysBackward({ ...probe(inputs), gradProbeKeys: inputs.parameter(heads as number, width as number) }),
    ),
  ];
});

const embeddings: MutationCase[] = [
  ...[12, 13].flatMap((width) => {
    const spatialShapes = Int32Array.of(2, 5, 4, 3, 7, 1);
    return [
      ...inEachType(`positionEmbedding of ${width}`, (inputs) =>
        positionEmbedding({ table: inputs.parameter(3, 4, width), spatialShapes, ...inputs.result() }),
      ),
      ...inEachType(`positionEmbeddingBackward of ${width}`, (inputs) =>
        positionEmbeddingBackward({ gradTokens: inputs.activation(29, width), spatialShapes, tableShape: [3, 4] }),
      ),
    ];
  }),
  ...[12, 13, 24].flatMap((width) => {
    // One token is in most of the rows.
    const ids = Int32Array.from({ length: 300 }, (_, i) => (i % 10 === 0 ? (i / 10) % 7 : 3));
    return [
      ...inEachType(`tokenEmbedding of ${width}`, (inputs) =>
        tokenEmbedding({
          ids: ids.subarray(0, 15),
          table: inputs.parameter(7, width),
          positions: inputs.parameter(3, width),
          ...inputs.result(),
        }),
      ),
      ...inEachType(`tokenEmbedding of ${width}, a table of bfloat16`, (inputs) => {
        const values = inputs.values([7, width]);
        const table =
          inputs.place.device === 'reference'
            ? inputs.place.parameter(
                values.map((value) => Math.round(value)),
                [7, width],
              )
            : Tensor.from(
                Uint16Array.from(values, (value) => bfloat16Bits(Math.round(value))),
                [7, width],
                {
                  device: inputs.place.device,
                },
              );
        return tokenEmbedding({
          ids: ids.subarray(0, 15),
          table,
          positions: inputs.parameter(3, width),
          ...inputs.result(),
        });
      }),
      ...inEachType(`tokenEmbeddingBackward of ${width}`, (inputs) =>
        tokenEmbeddingBackward({ ids, gradOutput: inputs.activation(300, width), vocabularySize: 7, length: 3 }),
      ),
    ];
  }),
];

const optimizer: MutationCase[] = [
  ...inFloat32('adamw', (inputs) =>
    adamw({
      parameter: inputs.parameter(41, 5),
      gradient: inputs.parameter(41, 5),
      firstMoment: inputs.parameter(41, 5),
      secondMoment: inputs.place.parameter(inputs.values([205]).map(Math.abs), [41, 5]),
      step: 2,
      learningRate: 0.01,
    }),
  ),
  ...inFloat32('sumOfSquares', async (inputs) => ({ sum: await sumOfSquares({ values: inputs.parameter(41, 5) }) })),
];

interface Picture {
  source: [number, number];
  target: [number, number];
  channels: number;
}

/** Images resized and cut, on either layout. */
function patchifyCase(
  name: string,
  pictures: Picture[],
  settings: {
    mode: 'pil' | 'float';
    filter?: 'bilinear' | 'bicubic';
    layout?: 'patches' | 'planar';
    patchSize?: number;
  },
): MutationCase[] {
  const { mode, filter = 'bilinear', layout = 'patches', patchSize = 5 } = settings;
  const images = pictures.map(({ source: [height, width], channels }, image) => ({
    data: Uint8Array.from({ length: height * width * channels }, (_, i) => hash(i, image) >>> 24),
    height,
    width,
    channels,
  }));
  const targetSizes = Int32Array.from(pictures.flatMap(({ target }) => target));
  const processing = { images, targetSizes, mean: [0.4, 0.5, 0.6], deviation: [0.2, 0.3, 0.4], rescale: 1 / 255 };
  const label = `patchify ${name}, ${mode}, ${filter}, ${layout}`;
  const prepared = inFloat32(label, async ({ place }) => ({
    values: await native().prepareImages(
      { ...processing, mode, filter },
      { device: place.device, threads: 1, patchSize, layout },
      native().createCancelToken(),
    ),
  }));
  if (layout === 'planar') return prepared;
  const tokens = inBfloat16(label, async (inputs) => {
    const { device } = inputs.place;
    const { dtype = 'float32' } = inputs.result();
    const { patches } = await native().naflexPatchify({
      ...processing,
      mode,
      filter,
      patchSize,
      dtype,
      device,
      threads: 1,
    });
    return { patches: new Tensor(patches as NonNullable<typeof patches>, device) };
  });
  return [...prepared, ...tokens];
}

const shrunk: Picture = { source: [37, 53], target: [11, 17], channels: 3 };
const enlarged: Picture = { source: [7, 9], target: [23, 19], channels: 4 };
const grey: Picture = { source: [31, 12], target: [12, 21], channels: 1 };
const greyAlpha: Picture = { source: [10, 11], target: [10, 11], channels: 2 };
/** So much that its filter does not fit shared memory. */
const far = (channels: number): Picture => ({ source: [2, 6001], target: [6, 5], channels });

const patches: MutationCase[] = [
  ...(['pil', 'float'] as const).flatMap((mode) => [
    ...patchifyCase('of shrunk', [shrunk], { mode }),
    ...patchifyCase('of all kinds', [shrunk, enlarged, grey, greyAlpha], { mode, patchSize: 2 }),
    ...patchifyCase('of all kinds', [shrunk, enlarged, grey, greyAlpha], { mode, filter: 'bicubic', patchSize: 8 }),
    ...patchifyCase('of grey', [{ ...grey, target: [12, 16] }], { mode, layout: 'planar' }),
    ...patchifyCase('far', [far(3)], { mode }),
    ...patchifyCase('far', [far(2)], { mode }),
  ]),
  // Pixels are cut only as a part of the vision tower; patches of 14 go by single pixels, those of 16 by fours.
  ...(['fixed_p14_hd64', 'fixed_p16_hd72'] as const).map(
    (checkpoint): MutationCase => ({
      name: `vision tower of ${checkpoint}`,
      operation: 'patchifyPixels',
      dtype: 'float32',
      sites: /patchify_cuda\.cu/,
      run: async ({ device }) => {
        using model = await Siglip2.load(checkpointFolder(checkpoint), {
          device,
          dtype: 'float32',
          towers: ['vision'],
        });
        const { vision } = readInputs(`models/${checkpoint}/inputs.safetensors`);
        const { pooled } = await model.vision.forward(vision);
        return [pooled.data as Float32Array];
      },
    }),
  ),
];

export const mutationCases: readonly MutationCase[] = [
  ...rowwise,
  ...products,
  ...attentions,
  ...lowScores,
  ...pooling,
  ...embeddings,
  ...optimizer,
  ...patches,
];
