/** Kernels against values of PyTorch: attention, position tables, resized pixels, target sizes. */
import { createHash } from 'node:crypto';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { attention, attentionBackward, naflexPatchify, positionEmbedding, Tensor } from '../../lib/kernels/index.js';
import { readConfig } from '../../lib/model/config.js';
import { native } from '../../lib/native.js';
import { decodeImage } from '../../lib/processing/decode.js';
import { preprocessImages } from '../../lib/processing/prepare.js';
import { largestDifference, relativeError } from '../support/compare.js';
import {
  checkpointFolder,
  fixtures,
  hash,
  normalish,
  readFixtureJson,
  readGolden,
  type StoredTensor,
} from '../support/golden.js';

const devices = ['cpu', 'reference'] as const;

interface AttentionCase {
  index: number;
  batch: number;
  heads: number;
  tq: number;
  tk: number;
  head_dim: number;
  mode: 'none' | 'mask' | 'causal';
  seed: number;
  key_lengths: number[] | null;
  scale: number;
  lse_range: [number, number];
  o_rows: number[];
  dq_rows: number[];
  dk_rows: number[];
  dv_rows: number[];
}

/** Values of a case in our layout, packed tokens of [heads, dim]; the reference's is [batch, heads, tokens, dim]. */
function attentionInputs(entry: AttentionCase, device: (typeof devices)[number]) {
  const { batch, heads, tq, tk, head_dim: dim, seed } = entry;
  const queryLengths = new Array<number>(batch).fill(tq);
  const keyLengths = entry.key_lengths ?? new Array<number>(batch).fill(tk);
  const sum = (lengths: number[]) => lengths.reduce((a, b) => a + b, 0);
  const prefix = (lengths: number[]) => Int32Array.from([0, ...lengths.map((_, i) => sum(lengths.slice(0, i + 1)))]);
  const tensor = (which: number, padded: number, lengths: number[]) => {
    const packed = new Float32Array(sum(lengths) * heads * dim);
    let out = 0;
    for (let b = 0; b < batch; b++)
      for (let t = 0; t < (lengths[b] as number); t++)
        for (let h = 0; h < heads; h++)
          for (let j = 0; j < dim; j++)
            packed[out++] = normalish(hash(((b * heads + h) * padded + t) * dim + j, seed + which));
    return Tensor.from(packed, [sum(lengths), heads, dim], { device });
  };
  const forward = {
    query: tensor(0, tq, queryLengths),
    key: tensor(1, tk, keyLengths),
    value: tensor(2, tk, keyLengths),
    queryOffsets: prefix(queryLengths),
    keyOffsets: prefix(keyLengths),
    causal: entry.mode === 'causal',
    scale: entry.scale,
  };
  return { forward, gradOutput: tensor(3, tq, queryLengths) };
}

/** In the reference's order: the rows that it stores, and the sum of every row. Rows that we do not have are 0 there. */
function goldenRows(values: Float32Array, offsets: Int32Array, tokens: number, entry: AttentionCase, kept: number[]) {
  const { batch, heads, head_dim: dim } = entry;
  const rows: number[] = [];
  const sums: number[] = [];
  for (let b = 0; b < batch; b++)
    for (let h = 0; h < heads; h++)
      for (let t = 0; t < tokens; t++) {
        const token = (offsets[b] as number) + t;
        const start = (token * heads + h) * dim;
        const row = token < (offsets[b + 1] as number) ? values.subarray(start, start + dim) : new Float32Array(dim);
        sums.push(row.reduce((a, x) => a + x, 0));
        if (kept.includes(t)) rows.push(...row);
      }
  return { rows, sums };
}

describe.each(devices)('attention on %s', (device) => {
  const { tensors } = readGolden('attention/attention.safetensors');
  const cases = readFixtureJson<AttentionCase[]>('attention/attention.json');
  const title = 'case $index: $mode, $tq × $tk, head dim $head_dim';

  it.each(cases)(title, async (entry) => {
    const { forward } = attentionInputs(entry, device);
    const { output, logSumExp } = await attention(forward);
    const { rows, sums } = goldenRows(await output.read(), forward.queryOffsets, entry.tq, entry, entry.o_rows);
    expect(relativeError(rows, (tensors.get(`${entry.index}.o`) as StoredTensor).values)).toBeLessThan(2e-6);
    const expectedSums = tensors.get(`${entry.index}.o_rowsum`) as StoredTensor;
    expect(largestDifference(sums, expectedSums.values)).toBeLessThan(2e-5);
    const statistics = await logSumExp.read();
    expect(Math.min(...statistics)).toBeCloseTo(entry.lse_range[0], 4);
    expect(Math.max(...statistics)).toBeCloseTo(entry.lse_range[1], 4);
  });

  it.each(cases)(`gradients of ${title}`, async (entry) => {
    const { forward, gradOutput } = attentionInputs(entry, device);
    const gradients = await attentionBackward({ ...forward, ...(await attention(forward)), gradOutput });
    for (const [name, gradient, offsets, tokens, kept] of [
      ['dq', gradients.gradQuery, forward.queryOffsets, entry.tq, entry.dq_rows],
      ['dk', gradients.gradKey, forward.keyOffsets, entry.tk, entry.dk_rows],
      ['dv', gradients.gradValue, forward.keyOffsets, entry.tk, entry.dv_rows],
    ] as const) {
      const { rows, sums } = goldenRows(await gradient.read(), offsets, tokens, entry, kept);
      const expectedRows = tensors.get(`${entry.index}.${name}`) as StoredTensor;
      const expectedSums = tensors.get(`${entry.index}.${name}_rowsum`) as StoredTensor;
      // Of one key, queries and keys have gradient 0: what is left then is the rounding of products of size 1.
      const largest = expectedRows.values.reduce((most, value) => Math.max(most, Math.abs(value)), 0) || 1;
      expect(largestDifference(rows, expectedRows.values), name).toBeLessThan(2e-6 * largest);
      expect(largestDifference(sums, expectedSums.values), name).toBeLessThan(5e-5);
    }
  });
});

describe.each(devices)('position embedding on %s', (device) => {
  const { tensors } = readGolden('pe/pe.safetensors');
  const table = tensors.get('position_embedding') as StoredTensor;
  const grids = [...tensors.keys()].filter((name) => /^\d+x\d+$/.test(name));

  it.each(grids)('resizes the table to %s', async (grid) => {
    const [rows, columns] = grid.split('x').map(Number) as [number, number];
    const { output } = await positionEmbedding({
      table: Tensor.from(Float32Array.from(table.values), table.shape, { device }),
      spatialShapes: Int32Array.of(rows, columns),
    });
    const values = await output.read();
    const width = table.shape[2] as number;
    // Grids of more than 400 patches are stored a third.
    const stride = rows * columns > 400 ? 3 : 1;
    const kept = Array.from({ length: Math.ceil((rows * columns) / stride) }, (_, i) => i * stride).flatMap((row) => [
      ...values.subarray(row * width, (row + 1) * width),
    ]);
    expect(largestDifference(kept, (tensors.get(grid) as StoredTensor).values)).toBeLessThan(1e-6);
  });

  it('resizes several tables of one batch as it does each alone', async () => {
    const handle = Tensor.from(Float32Array.from(table.values), table.shape, { device });
    const shapes = [2, 4, 3, 3, 1, 7];
    const together = await (
      await positionEmbedding({ table: handle, spatialShapes: Int32Array.from(shapes) })
    ).output.read();
    const alone: number[] = [];
    for (let i = 0; i < shapes.length; i += 2) {
      const spatialShapes = Int32Array.from(shapes.slice(i, i + 2));
      alone.push(...(await (await positionEmbedding({ table: handle, spatialShapes })).output.read()));
    }
    expect([...together]).toEqual(alone);
  });
});

interface PreprocessingGolden {
  images: { file: string; outputs: Record<string, { pil_sha256: string; spatial_shape?: [number, number] }> }[];
}

describe('preprocessing', () => {
  const golden = readFixtureJson<PreprocessingGolden>('preprocessing/preprocessing.json');
  /** uint8 pixels from values normalised with mean and deviation ½; exact, because the steps are far apart. */
  const toPixels = (values: Float32Array) => Uint8Array.from(values, (value) => Math.round((value + 1) * 127.5));
  const digest = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');

  describe.each(golden.images)('$file', ({ file, outputs }) => {
    const picture = path.join(fixtures, 'images', file);

    it.each(Object.keys(outputs).filter((name) => name.startsWith('naflex_')))('%s, bit for bit', async (variant) => {
      const decoded = await decodeImage(picture);
      const maxPatches = Number(variant.slice('naflex_'.length));
      const { patches, spatialShapes } = await naflexPatchify([decoded], { patchSize: 16, maxPatches });
      expect([...spatialShapes]).toEqual(outputs[variant]?.spatial_shape);
      expect(digest(toPixels(await patches.read()))).toBe(outputs[variant]?.pil_sha256);
    });

    it('fixed_256, bit for bit', async () => {
      const stated = await readConfig(checkpointFolder('fixed_p16_hd32'));
      const config = {
        ...stated,
        vision: { ...stated.vision, imageSize: 256 },
        preprocessing: { ...stated.preprocessing, size: { height: 256, width: 256 } },
      };
      const input = await preprocessImages(picture, { config });
      if (!('pixelValues' in input)) throw new Error('a fixed-resolution model takes pixels');
      expect(input.shape).toEqual([1, 3, 256, 256]);
      const planar = toPixels(input.pixelValues);
      const interleaved = new Uint8Array(planar.length);
      for (let channel = 0; channel < 3; channel++)
        for (let i = 0; i < 65536; i++) interleaved[3 * i + channel] = planar[channel * 65536 + i] as number;
      expect(digest(interleaved)).toBe(outputs.fixed_256?.pil_sha256);
    });
  });

  it('finds the NaFlex target size of Hugging Face for all 300 sizes', () => {
    const { rows } = readFixtureJson<{ rows: [number, number, number, number, number, number][] }>(
      'preprocessing/target_sizes.json',
    );
    expect(rows.length).toBe(300);
    for (const [height, width, maxPatches, patchSize, targetHeight, targetWidth] of rows)
      expect(native().naflexTargetSize(height, width, patchSize, maxPatches)).toEqual([targetHeight, targetWidth]);
  });
});
