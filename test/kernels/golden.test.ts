/** Kernels against values of PyTorch: attention, position tables, resized pixels, target sizes. */
import { createHash } from 'node:crypto';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { attention, naflexPatchify, positionEmbedding, Tensor } from '../../lib/kernels/index.js';
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
}

describe.each(devices)('attention on %s', (device) => {
  const { tensors } = readGolden('attention/attention.safetensors');
  const cases = readFixtureJson<AttentionCase[]>('attention/attention.json');

  it.each(cases)('case $index: $mode, $tq × $tk, head dim $head_dim', async (entry) => {
    const { batch, heads, tq, tk, head_dim: dim, seed } = entry;
    const lengths = entry.key_lengths ?? new Array<number>(batch).fill(tk);
    // The reference's layout is [batch, heads, tokens, dim], padded; ours is packed tokens of [heads, dim].
    const pack = (which: number, padded: number, rows: number[]): Float32Array => {
      const packed = new Float32Array(rows.reduce((a, b) => a + b, 0) * heads * dim);
      let out = 0;
      for (let b = 0; b < batch; b++)
        for (let t = 0; t < (rows[b] as number); t++)
          for (let h = 0; h < heads; h++)
            for (let j = 0; j < dim; j++)
              packed[out++] = normalish(hash(((b * heads + h) * padded + t) * dim + j, seed + which));
      return packed;
    };
    const queryLengths = new Array<number>(batch).fill(tq);
    const keys = lengths.reduce((a, b) => a + b, 0);
    const prefix = (rows: number[]) =>
      Int32Array.from([0, ...rows.map((_, i) => rows.slice(0, i + 1).reduce((a, b) => a + b, 0))]);
    const options = { device };
    const { output, logSumExp } = await attention({
      query: Tensor.from(pack(0, tq, queryLengths), [batch * tq, heads, dim], options),
      key: Tensor.from(pack(1, tk, lengths), [keys, heads, dim], options),
      value: Tensor.from(pack(2, tk, lengths), [keys, heads, dim], options),
      queryOffsets: prefix(queryLengths),
      keyOffsets: prefix(lengths),
      causal: entry.mode === 'causal',
      scale: entry.scale,
    });
    const values = await output.read();
    const actualRows: number[] = [];
    const actualSums: number[] = [];
    for (let b = 0; b < batch; b++)
      for (let h = 0; h < heads; h++)
        for (let t = 0; t < tq; t++) {
          const start = ((b * tq + t) * heads + h) * dim;
          const row = values.subarray(start, start + dim);
          actualSums.push(row.reduce((a, x) => a + x, 0));
          if (entry.o_rows.includes(t)) actualRows.push(...row);
        }
    const rows = tensors.get(`${entry.index}.o`) as StoredTensor;
    const sums = tensors.get(`${entry.index}.o_rowsum`) as StoredTensor;
    expect(relativeError(actualRows, rows.values)).toBeLessThan(2e-6);
    expect(largestDifference(actualSums, sums.values)).toBeLessThan(2e-5);
    const statistics = await logSumExp.read();
    expect(Math.min(...statistics)).toBeCloseTo(entry.lse_range[0], 4);
    expect(Math.max(...statistics)).toBeCloseTo(entry.lse_range[1], 4);
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
