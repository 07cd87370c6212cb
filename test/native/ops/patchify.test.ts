/** Resizing, normalising and cutting into patches: against Pillow, and the CPU against the reference device. */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import path from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import type { Device } from '../../../lib/device.js';
import { type DevicePixels, naflexPatchify, type RawPixels, Tensor } from '../../../lib/kernels/index.js';
import { loadNative, type NativeImages, native } from '../../../lib/native.js';
import { largestDifference } from '../../support/compare.js';
import { draw, emulated, testDevice, threadCounts } from '../../support/devices.js';
import { fixtures, hash, readFixtureJson } from '../../support/golden.js';
import { runSeed } from '../../support/random.js';

interface ResizeCase {
  source: [number, number];
  channels: number;
  seed: number;
  kind: 'noise' | 'extremes';
  target: [number, number];
  filter: 'bilinear' | 'bicubic';
  sha256: string;
}
const cases = readFixtureJson<ResizeCase[]>('resize/resize.json');
const nameOf = ({ source, target, filter, channels }: ResizeCase) =>
  `${source.join(' × ')} × ${channels} to ${target.join(' × ')}, ${filter}`;

type Image = NativeImages['images'][number];

function noise(height: number, width: number, channels: number, seed: number): Image {
  const data = Uint8Array.from({ length: height * width * channels }, (_, i) => hash(i, seed) >>> 24);
  return { data, width, height, channels };
}

interface Settings {
  mode?: 'pil' | 'float';
  filter?: 'bilinear' | 'bicubic';
  layout?: 'patches' | 'planar';
  patchSize?: number;
  threads?: number;
  rescale?: number;
  mean?: number[];
  deviation?: number[];
}

function prepare(images: Image[], targets: number[][], device: string, settings: Settings = {}): Promise<Float32Array> {
  const { mode = 'pil', filter = 'bilinear', rescale = 1, mean = [0, 0, 0], deviation = [1, 1, 1] } = settings;
  const { layout = 'patches', patchSize = 16, threads = 1 } = settings;
  return native().prepareImages(
    { images, targetSizes: Int32Array.from(targets.flat()), mean, deviation, rescale, mode, filter },
    { device, threads, patchSize, layout },
    native().createCancelToken(),
  );
}

/** What a child process with this instruction set makes of the fixture; undefined where the machine lacks it. */
async function resizeWith(isa: string) {
  const addon = loadNative().attempts.at(-1)?.path as string;
  const script = path.join(import.meta.dirname, 'resize-with-isa.cjs');
  try {
    const { stdout } = await promisify(execFile)(
      process.execPath,
      [script, addon, path.join(fixtures, 'resize', 'resize.json')],
      { env: { ...process.env, SIGLIP2_ISA: isa } },
    );
    return JSON.parse(stdout) as {
      devices: { name: string; description: string }[];
      results: { sha256: string; difference: number }[];
    };
  } catch (error) {
    if (/SIGLIP2_ISA: expected one of/.test(String((error as { stderr?: string }).stderr))) return undefined;
    throw error;
  }
}

const instructionSets = ['baseline', 'wide16', 'avx2', 'avx512', 'avx512vnni', 'avx512bf16', 'amxemulated'];

describe.skipIf(testDevice !== 'cpu').each(instructionSets)('resizing with %s', (isa) => {
  it("gives Pillow's bytes, and unrounded values within float32 of the reference", async (context) => {
    const output = await resizeWith(isa);
    if (output === undefined) {
      expect(isa).toMatch(/^avx/); // the portable builds run everywhere
      context.skip();
      return;
    }
    expect(output.devices.find(({ name }) => name === 'cpu')?.description).toBe(isa);
    expect(output.results.length).toBe(cases.length);
    output.results.forEach(({ sha256, difference }, i) => {
      const name = nameOf(cases[i] as ResizeCase);
      expect(sha256, name).toBe(cases[i]?.sha256);
      expect(difference, name).toBeLessThan(255 * 1e-6);
    });
  });
});

describe.each(testDevice === 'cpu' ? ['reference'] : [testDevice])('resizing on %s', (device) => {
  const most = emulated ? 20_000 : 200_000;
  const small = cases.filter(({ source, target }) => source[0] * source[1] + target[0] * target[1] < most);
  it.each(small.map((item) => ({ name: nameOf(item), item })))('$name: Pillow to the bit', async ({ item }) => {
    const image = noise(item.source[0], item.source[1], item.channels, item.seed);
    if (item.kind === 'extremes') image.data = image.data.map((byte) => (byte > 127 ? 255 : 0));
    const values = await prepare([image], [item.target], device, { filter: item.filter, layout: 'planar' });
    const plane = values.length / 3;
    const bytes = Uint8Array.from(values, (_, i) => values[(i % 3) * plane + Math.floor(i / 3)] as number);
    expect(createHash('sha256').update(bytes).digest('hex')).toBe(item.sha256);
  });
});

describe('patchify against the reference', () => {
  /** Small random whole numbers from the hash. */
  const dice = (seed: number) => {
    let count = 0;
    return (low: number, high: number) => low + (hash(count++, seed) % (high - low + 1));
  };
  const normalisation = { rescale: 1 / 255, mean: [0.485, 0.456, 0.406], deviation: [0.229, 0.224, 0.225] };

  it.each(Array.from({ length: emulated ? 12 : 40 }, (_, seed) => seed))('batch %i of random sizes', async (seed) => {
    const roll = dice(seed + 1000 + runSeed);
    const most = emulated ? 50 : 90;
    const patchSize = [1, 2, 7, 14, 16][roll(0, 4)] as number;
    const layout = (['patches', 'planar'] as const)[seed % 2] as 'patches' | 'planar';
    const filter = (['bilinear', 'bicubic'] as const)[roll(0, 1)] as 'bilinear' | 'bicubic';
    const images = Array.from({ length: roll(1, 4) }, (_, i) => noise(roll(1, 130), roll(1, 130), roll(1, 4), i));
    const shared = [roll(patchSize, most), roll(patchSize, most)];
    const targets = images.map(() => (layout === 'planar' ? shared : [roll(patchSize, most), roll(patchSize, most)]));
    for (const mode of ['pil', 'float'] as const) {
      const settings = { ...normalisation, mode, filter, layout, patchSize };
      const expected = await prepare(images, targets, 'reference', settings);
      const actual = await prepare(images, targets, testDevice, settings);
      // Values reach 3 after normalisation; kPil rounds once from double and must be equal.
      if (mode === 'pil') expect(largestDifference(actual, expected)).toBe(0);
      else expect(largestDifference(actual, expected)).toBeLessThan(5e-6);
      for (const threads of threadCounts)
        expect(largestDifference(await prepare(images, targets, testDevice, { ...settings, threads }), actual)).toBe(0);
    }
  });

  it('normalises every byte to what the reference makes of it, whatever mean and deviation', async () => {
    const random = draw(runSeed + 7);
    const image = { data: Uint8Array.from({ length: 768 }, (_, i) => i % 256), width: 16, height: 16, channels: 3 };
    const three = (value: () => number) => [value(), value(), value()];
    const drawn = Array.from({ length: emulated ? 6 : 60 }, () => ({
      rescale: 1 / random.integer(1, 300),
      mean: three(() => random.next()),
      deviation: three(() => 0.1 + random.next()),
    }));
    const extremes = [
      { rescale: 1 / 255, mean: [0.5, 0.5, 0.5], deviation: [0.5, 0.5, 0.5] },
      { rescale: 1 / 255, mean: [0, 1, -7e8], deviation: [1e-9, 1e9, -2] },
      { rescale: 0, mean: [0, 0.1, 3], deviation: [1, 2, 3] },
      { rescale: 1e30, mean: [1e35, 0, 0], deviation: [1e-9, 1, 1e30] },
    ];
    for (const normalisation of [...drawn, ...extremes])
      for (const layout of ['patches', 'planar'] as const) {
        const settings = { ...normalisation, layout, patchSize: 7 };
        const expected = await prepare([image], [[16, 16]], 'reference', settings);
        const actual = await prepare([image], [[16, 16]], testDevice, settings);
        expect(actual, JSON.stringify(settings)).toEqual(expected);
      }
  });

  it('orders values row, column, channel in patches of row-major order, and drops what fills no patch', async () => {
    const image = noise(7, 8, 3, 5);
    const values = await prepare([image], [[7, 8]], testDevice, { patchSize: 3 });
    const expected: number[] = [];
    for (const top of [0, 3])
      for (const left of [0, 3])
        for (let row = top; row < top + 3; row++)
          for (let column = left; column < left + 3; column++)
            for (let channel = 0; channel < 3; channel++)
              expected.push(image.data[(row * 8 + column) * 3 + channel] as number);
    expect([...values]).toEqual(expected);
  });

  it('repeats grey, ignores alpha, and leaves planes of unchanged size alone', async () => {
    for (const channels of [1, 2, 3, 4]) {
      const image = noise(5, 6, channels, channels);
      const values = await prepare([image], [[5, 6]], testDevice, { layout: 'planar' });
      const expected = [0, 1, 2].flatMap((channel) =>
        Array.from({ length: 30 }, (_, i) => image.data[i * channels + (channels < 3 ? 0 : channel)] as number),
      );
      expect([...values]).toEqual(expected);
    }
  });

  it('refuses what it cannot resize, naming the argument', async () => {
    const image = noise(4, 4, 3, 1);
    const refused = (images: Image[], targets: number[][], settings: Settings) =>
      prepare(images, targets, testDevice, settings).then(
        () => 'resolved',
        (error: { code?: string; message: string }) => `${error.code}: ${error.message}`,
      );
    expect(await refused([image], [[15, 32]], {})).toMatch(/ERR_SIGLIP_SHAPE: .*target size 0 .* got 15 x 32/);
    const sizes = [
      [16, 16],
      [16, 17],
    ];
    expect(await refused([image, image], sizes, { layout: 'planar' })).toMatch(/SHAPE: .*target size 1 is 16 x 17/);
    expect(await refused([image], [[16, 16]], { deviation: [1, 0, 1] })).toMatch(/SHAPE: .*deviation of channel 1/);
    const wide = { data: new Uint8Array((1 << 20) + 1), width: (1 << 20) + 1, height: 1, channels: 1 };
    expect(await refused([wide], [[16, 16]], {})).toMatch(/ERR_SIGLIP_IMAGE: .*image 0 .* got 1 x 1048577/);
  });
});

describe('pixels that are on the device', () => {
  const options = { patchSize: 4, maxPatches: 12, device: testDevice };
  const onDevice = ({ data, height, width, channels }: Image, device: Device = testDevice): DevicePixels => ({
    data: Tensor.from(data, [height, width, channels], { device }),
  });
  const refusal = (images: unknown[]) =>
    naflexPatchify(images as RawPixels[], options).then(
      () => 'resolved',
      (error: { code?: string; message: string }) => `${error.code}: ${error.message}`,
    );

  it.each(['pil', 'float'] as const)('make what pixels of the host make, mixed with those, %s', async (mode) => {
    // Any width, so that rows begin anywhere; one so tall that Pillow filters it vertically first; one shrunk so far that
    // another kernel takes it.
    const images = [
      noise(37, 23, 3, 1),
      noise(9, 50, 4, 2),
      noise(24, 24, 1, 3),
      noise(301, 2, 3, 4),
      noise(3, 5, 2, 5),
      noise(2, 4000, 3, 6),
    ] as (Image & RawPixels)[];
    const expected = await naflexPatchify(images, { ...options, mode });
    const values = await expected.patches.read();
    expect(new Set(values).size).toBeGreaterThan(100);
    for (const kept of [[], [0, 3], [1, 2, 4], [5]]) {
      const mixed = images.map((image, i) => (kept.includes(i) ? image : onDevice(image)));
      const actual = await naflexPatchify(mixed, { ...options, mode });
      expect(largestDifference(await actual.patches.read(), values)).toBe(0);
      expect(actual.spatialShapes).toEqual(expected.spatialShapes);
      for (const { data } of mixed) if (data instanceof Tensor) data.dispose();
    }
  });

  it('may be disposed of once the call is made', async () => {
    const image = noise(40, 30, 3, 7) as Image & RawPixels;
    const moved = onDevice(image);
    const running = naflexPatchify([moved], options);
    moved.data.dispose();
    const expected = await naflexPatchify([image], options);
    expect(largestDifference(await (await running).patches.read(), await expected.patches.read())).toBe(0);
    expect(await refusal([moved])).toMatch(/ERR_SIGLIP_DISPOSED/);
  });

  it('must be bytes of three dimensions on the device of the call', async () => {
    const image = noise(4, 5, 3, 8);
    expect(await refusal([onDevice(image, 'reference')])).toMatch(
      /ERR_SIGLIP_SHAPE: images\[0\]\.data: is on device reference, not on /,
    );
    const shaped = (shape: number[]) => ({ data: Tensor.from(image.data, shape, { device: testDevice }) });
    for (const shape of [[60], [20, 3], [1, 4, 5, 3], [4, 3, 5]])
      expect(await refusal([onDevice(image), shaped(shape)])).toMatch(/ERR_SIGLIP_SHAPE: images\[1\]\.data: .*\[/);
    const empty = { data: Tensor.from(new Uint8Array(0), [0, 5, 3], { device: testDevice }) };
    expect(await refusal([empty])).toMatch(/ERR_SIGLIP_SHAPE: .*\[0, 5, 3\]/);
    const floats = { data: Tensor.from(new Float32Array(60), [4, 5, 3], { device: testDevice }) };
    expect(await refusal([floats])).toMatch(/ERR_SIGLIP_UNSUPPORTED: images\[0\]\.data: .*uint8.*float32/);
    expect(await refusal([{ ...onDevice(image), width: 5 }])).toMatch(/images\[0\].*width/);
  });
});

describe('the NaFlex target size', () => {
  it.each([
    [0, 5, 16, 256],
    [5, (1 << 20) + 1, 16, 256],
    [5, 5, 0, 256],
    [5, 5, 16, 0],
  ])('is refused for %i × %i, patch %i, %i patches', (height, width, patchSize, maxPatches) => {
    expect(() => native().naflexTargetSize(height, width, patchSize, maxPatches)).toThrow();
  });

  it('never has more patches than allowed, even for the most extreme shape', () => {
    for (const maxPatches of [1, 2, 255, 256, 4096])
      for (const [height, width] of [
        [1, 1 << 20],
        [1 << 20, 1],
        [1 << 20, 1 << 20],
        [1, 1],
      ] as const) {
        const [targetHeight, targetWidth] = native().naflexTargetSize(height, width, 16, maxPatches);
        expect((targetHeight / 16) * (targetWidth / 16)).toBeLessThanOrEqual(maxPatches);
        expect((targetHeight % 16) + (targetWidth % 16)).toBe(0);
      }
  });
});
