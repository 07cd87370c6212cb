import { describe, expect, it } from 'vitest';
import { parseConfig } from '../../lib/model/config.js';
import { parameterShapes } from '../../lib/model/parameter-shapes.js';
import { type NativeInitializationKind, native } from '../../lib/native.js';
import { initializationOf } from '../../lib/training/initialization.js';
import { releasedModels } from '../support/released-models.js';

describe('initializationOf', () => {
  const deviation = 0.87962566103423978;
  /** The table of big_vision's initialisers for a tower of width d, MLP width m. */
  const rows = (tower: string, d: number, m: number): [RegExp, string, number][] => {
    const encoder = `${tower}_model\\.encoder\\.layers\\.\\d+\\.`;
    return [
      [new RegExp(`^${encoder}self_attn\\.[qkv]_proj\\.weight$`), 'uniform', Math.sqrt(3 / d)],
      [new RegExp(`^${encoder}self_attn\\.out_proj\\.weight$`), 'uniform', Math.sqrt(3 / d)],
      [new RegExp(`^${encoder}self_attn\\..*bias$`), 'constant', 0],
      [new RegExp(`^${encoder}mlp\\.fc[12]\\.weight$`), 'uniform', Math.sqrt(6 / (d + m))],
      [new RegExp(`^${encoder}mlp\\.fc[12]\\.bias$`), 'normal', 1e-6],
      [new RegExp(`^${encoder}layer_norm[12]\\.weight$`), 'constant', 1],
      [new RegExp(`^${encoder}layer_norm[12]\\.bias$`), 'constant', 0],
      [new RegExp(`^${tower}_model\\.embeddings\\.(token|position)_embedding\\.weight$`), 'normal', 1 / Math.sqrt(d)],
    ];
  };

  it.each(releasedModels)('knows every parameter of $name', ({ name: model, config: json }) => {
    const config = parseConfig(json, model);
    const { vision, text } = config;
    const [d, m] = [vision.hiddenSize, vision.intermediateSize];
    const expected: [RegExp, string, number][] = [
      ...rows('text', text.hiddenSize, text.intermediateSize),
      ...rows('vision', d, m),
      [/^logit_scale$/, 'constant', Math.log(10)],
      [/^logit_bias$/, 'constant', -10],
      [/^text_model\.head\.weight$/, 'truncated_normal', Math.sqrt(1 / text.hiddenSize) / deviation],
      [/^text_model\.final_layer_norm\.weight$/, 'constant', 1],
      [/^vision_model\.(post_layernorm|head\.layernorm)\.weight$/, 'constant', 1],
      [/patch_embedding\.weight$/, 'truncated_normal', Math.sqrt(1 / (3 * vision.patchSize ** 2)) / deviation],
      [/^vision_model\.head\.probe$/, 'uniform', Math.sqrt(6 / (1 + d))],
      [/^vision_model\.head\.attention\.(in_proj_|out_proj\.)weight$/, 'uniform', Math.sqrt(3 / d)],
      [/^vision_model\.head\.mlp\.fc[12]\.weight$/, 'uniform', Math.sqrt(6 / (d + m))],
      [/^vision_model\.head\.mlp\.fc[12]\.bias$/, 'normal', 1e-6],
      [/(final_layer_norm|post_layernorm|head\.layernorm|patch_embedding|text_model\.head)\.bias$/, 'constant', 0],
      [/^vision_model\.head\.attention\.(in_proj_|out_proj\.)bias$/, 'constant', 0],
    ];
    for (const [name, shape] of parameterShapes(config)) {
      const matching = expected.filter(([pattern]) => pattern.test(name));
      expect(matching.length, name).toBe(1);
      const { kind, scale } = initializationOf(name, shape, config);
      const [, wantedKind, wantedScale] = matching[0] as [RegExp, string, number];
      expect(kind, name).toBe(wantedKind);
      if (kind === 'constant') expect(scale, name).toBe(wantedScale);
      else expect(scale / wantedScale, name).toBeCloseTo(1, 14);
    }
  });

  it('refuses names that the model does not have', () => {
    const config = parseConfig(releasedModels[1]?.config ?? {}, 'base');
    for (const name of [
      '',
      'logit_scales',
      'text_model.encoder.layers.12.layer_norm1.weight',
      'text_model.encoder.layers.00.layer_norm1.weight',
      'model.text_model.head.weight',
      'text.head.weight',
      'text_model.embeddings.patch_embedding.weight',
      'text_model.head.probe',
      'vision_model.embeddings.token_embedding.weight',
      'vision_model.encoder.layers.0.self_attn.in_proj_weight',
      'vision_model.encoder.layers.0.post_layernorm.weight',
      'vision_model.head.weight',
      'vision_model.head.attention.in_proj_weight.bias',
    ])
      expect(() => initializationOf(name, [768, 768], config), name).toThrow(RangeError);
  });
});

/** Philox4x32-10 after its authors' description, on arrays of four and two words. */
function philox(counter: number[], key: number[]): number[] {
  let [a, b, c, d] = counter.map(BigInt) as [bigint, bigint, bigint, bigint];
  let [k, l] = key.map(BigInt) as [bigint, bigint];
  const mask = 0xffffffffn;
  for (let round = 0; round < 10; round++) {
    const [left, right] = [0xd2511f53n * a, 0xcd9e8d57n * c];
    [a, b, c, d] = [(right >> 32n) ^ b ^ k, right & mask, (left >> 32n) ^ d ^ l, left & mask];
    [k, l] = [(k + 0x9e3779b9n) & mask, (l + 0xbb67ae85n) & mask];
  }
  return [a, b, c, d].map(Number);
}

describe('initialize', () => {
  const make = async (
    kind: NativeInitializationKind,
    scale: number,
    count: number,
    { seed = 42, stream = 7, threads = 2 } = {},
  ): Promise<Float32Array> => {
    const { values } = await native().initialize({ kind, scale, seed, stream, count, device: 'cpu', threads });
    expect(values.shape).toEqual([count]);
    return native().readTensorValues(values.handle);
  };

  it('has the generator of the published test vectors', async () => {
    // The known answers for philox4x32 of 10 rounds that come with Random123 (kat_vectors): all bits clear, all bits
    // set, digits of π.
    const [zeros, ones] = [0, 0xffffffff];
    expect(philox([zeros, zeros, zeros, zeros], [zeros, zeros])).toEqual([
      0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8,
    ]);
    expect(philox([ones, ones, ones, ones], [ones, ones])).toEqual([0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]);
    expect(philox([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], [0xa4093822, 0x299f31d0])).toEqual([
      0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1,
    ]);
    // Values from −1 to 1 show its words: element i takes half of the four at counter ⌊i/2⌋.
    for (const [seed, stream] of [
      [0, 0],
      [0x1234_5678_9abc_d, 0x1f_ffff_ffff_fff],
    ] as const) {
      const parts = (word: number): number[] => [word % 2 ** 32, Math.floor(word / 2 ** 32)];
      const values = await make('uniform', 1, 7, { seed, stream });
      const expected = Array.from({ length: 4 }, (_, pair) => {
        const words = philox([pair, 0, ...parts(stream)], parts(seed));
        return [0, 2].map((i) => {
          const bits = (BigInt(words[i + 1] as number) << 32n) | BigInt(words[i] as number);
          return Math.fround(2 * (Number(bits >> 11n) / 2 ** 53) - 1);
        });
      }).flat();
      expect([...values]).toEqual(expected.slice(0, 7));
    }
  });

  it('depends on seed, stream and element alone', async () => {
    for (const kind of ['uniform', 'normal', 'truncated_normal'] as const) {
      const values = await make(kind, 0.5, 50_001);
      for (const threads of [1, 3]) expect(await make(kind, 0.5, 50_001, { threads })).toEqual(values);
      for (const count of [0, 1, 2, 8193]) expect(await make(kind, 0.5, count)).toEqual(values.subarray(0, count));
      const others = [await make(kind, 0.5, 1000, { seed: 43 }), await make(kind, 0.5, 1000, { stream: 8 })];
      for (const other of others) expect(other.filter((value, i) => value === values[i]).length).toBeLessThan(3);
    }
  });

  const count = 400_000;
  /** The error function, by its Maclaurin series in double precision (|x| ≤ 3). */
  const erf = (x: number): number => {
    let [term, sum] = [x, x];
    for (let n = 1; n < 80; n++) {
      term *= -(x * x) / n;
      sum += term / (2 * n + 1);
    }
    return (2 / Math.sqrt(Math.PI)) * sum;
  };
  const normalBelow = (x: number): number => 0.5 * (1 + erf(x / Math.SQRT2));
  const cut = normalBelow(-2);
  it.each([
    ['uniform', 3, (x: number) => (x + 1) / 2, 1 / Math.sqrt(3)],
    ['normal', 0.02, normalBelow, 1],
    ['truncated_normal', 5, (x: number) => (normalBelow(x) - cut) / (1 - 2 * cut), 0.87962566103423978],
  ] as const)('draws from its distribution: %s', async (kind, scale, below, deviation) => {
    const values = await make(kind, scale, count);
    // Four standard errors of each estimate: one run in 16,000 would fail, and the seed is fixed.
    const mean = values.reduce((sum, value) => sum + value, 0) / count;
    expect(Math.abs(mean)).toBeLessThan((4 * scale * deviation) / Math.sqrt(count));
    const variance = values.reduce((sum, value) => sum + value * value, 0) / count;
    expect(Math.abs(Math.sqrt(variance) / (scale * deviation) - 1)).toBeLessThan(4 / Math.sqrt(2 * count));
    // Shares below a point, for points over the whole range.
    const sorted = values.map((value) => value / scale).sort();
    for (let x = -2.5; x <= 2.5; x += 0.25) {
      let [low, high] = [0, count];
      while (low < high) {
        const middle = (low + high) >> 1;
        if ((sorted[middle] as number) < x) low = middle + 1;
        else high = middle;
      }
      const share = Math.min(Math.max(below(x), 0), 1);
      const bounded = kind === 'normal' || Math.abs(x) < (kind === 'uniform' ? 1 : 2);
      const expected = bounded ? share : x > 0 ? 1 : 0;
      const tolerance = 4.5 * Math.sqrt((expected * (1 - expected)) / count);
      expect(Math.abs(low / count - expected), `below ${x}`).toBeLessThanOrEqual(tolerance);
    }
    // Neighbours, which come of one draw, are not correlated.
    let product = 0;
    for (let i = 0; i + 1 < count; i += 2) product += (values[i] as number) * (values[i + 1] as number);
    expect(Math.abs(product / (count / 2))).toBeLessThan((4 * (scale * deviation) ** 2) / Math.sqrt(count / 2));
  });

  it('inverts the normal distribution to the last digit', async () => {
    // The words are known from the uniform values of the same seed, to float32's half unit.
    const uniform = await make('uniform', 1, 20_000);
    const values = await make('truncated_normal', 1, 20_000);
    // x has an error of 2⁻²⁴ · 2, the uniform value one of 2⁻²⁵; slopes are at most 0.84.
    for (const [i, x] of values.entries())
      expect(Math.abs(erf(x / Math.SQRT2) - (uniform[i] as number) * erf(Math.SQRT2))).toBeLessThan(1.6e-7);
  });

  it('stays within the bounds', async () => {
    const bound = 0.1;
    const uniform = await make('uniform', bound, 2_000_000);
    expect(uniform.every((value) => value >= -Math.fround(bound) && value < Math.fround(bound))).toBe(true);
    // A draw so close to 1 that it rounds to the bound.
    const [, close] = await make('uniform', bound, 2, { seed: 0, stream: 19_564_427 });
    expect(close).toBe(Math.fround(bound) - 2 ** -27);
    const truncated = await make('truncated_normal', bound, 300_000);
    const most = truncated.reduce((largest, value) => Math.max(largest, Math.abs(value)), 0);
    expect(most).toBeLessThanOrEqual(Math.fround(2 * bound));
    expect(most).toBeGreaterThan(1.99 * bound);
    expect(new Set(await make('constant', -1.5, 5))).toEqual(new Set([-1.5]));
    expect((await make('normal', 0, 5)).every((value) => value === 0)).toBe(true);
  });

  it('refuses what it does not know', async () => {
    await expect(make('cauchy' as 'normal', 1, 5)).rejects.toThrow(/kind.*cauchy/);
    await expect(make('normal', 1, -1)).rejects.toThrow(RangeError);
    await expect(make('normal', 1, 5, { seed: -1 })).rejects.toThrow(/seed/);
  });
});
