import { describe, expect, it } from 'vitest';
import { type AugmentOptions, augmentation } from '../../../lib/training/data/augment.js';
import { RandomStream } from '../../../lib/training/data/random.js';
import { type Drawing, draw, layerPyramid } from '../../../lib/training/data/warp.js';
import { runSeed } from '../../support/random.js';

const unchanged = [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0];
const none = [0, 0, 0];

function randomPicture(width: number, height: number, random: RandomStream): Uint8Array {
  return Uint8Array.from({ length: width * height * 4 }, () => random.below(256));
}

function drawing(width: number, height: number, changes: Partial<Drawing>): Drawing {
  return {
    width,
    height,
    center: [width / 2, height / 2],
    scale: [1, 1],
    rotation: 0,
    colors: unchanged,
    background: [[255, 255, 255], none, none],
    blur: 0,
    ...changes,
  };
}

/** A picture over a colour, the definition of transparency. */
function over(rgba: Uint8Array, color: readonly number[]): number[] {
  const result: number[] = [];
  for (let i = 0; i < rgba.length; i += 4) {
    const alpha = (rgba[i + 3] as number) / 255;
    for (let c = 0; c < 3; c++) result.push((rgba[i + c] as number) * alpha + (color[c] as number) * (1 - alpha));
  }
  return result;
}

/** One canvas pixel by definition: where it comes from, and the weighted mean of the four pixels around that place. */
function expectedPixel(rgba: Uint8Array, width: number, height: number, d: Drawing, x: number, y: number): number[] {
  const [dx, dy] = [x + 0.5 - d.center[0], y + 0.5 - d.center[1]];
  const [cosine, sine] = [Math.cos(-d.rotation), Math.sin(-d.rotation)];
  const u = (cosine * dx - sine * dy) / d.scale[0] + width / 2 - 0.5;
  const v = (sine * dx + cosine * dy) / d.scale[1] + height / 2 - 0.5;
  const sum = [0, 0, 0];
  let covered = 0;
  for (let j = Math.floor(v); j <= Math.floor(v) + 1; j++)
    for (let i = Math.floor(u); i <= Math.floor(u) + 1; i++) {
      if (i < 0 || j < 0 || i >= width || j >= height) continue;
      const weight = (1 - Math.abs(u - i)) * (1 - Math.abs(v - j));
      const alpha = (weight * (rgba[(j * width + i) * 4 + 3] as number)) / 255;
      covered += alpha;
      for (let c = 0; c < 3; c++) sum[c] = (sum[c] as number) + alpha * (rgba[(j * width + i) * 4 + c] as number);
    }
  return [0, 1, 2].map((row) => {
    const m = (column: number): number => d.colors[4 * row + column] as number;
    const color = m(0) * (sum[0] as number) + m(1) * (sum[1] as number) + m(2) * (sum[2] as number) + m(3) * covered;
    const [start, right, down] = d.background;
    const behind = start[row]! + (x / d.width) * right[row]! + (y / d.height) * down[row]!;
    return Math.min(Math.max(color, 0), 255 * covered) + (1 - covered) * behind;
  });
}

function largestDifference(actual: ArrayLike<number>, expected: readonly number[]): number {
  expect(actual.length).toBe(expected.length);
  return expected.reduce((most, value, i) => Math.max(most, Math.abs(value - (actual[i] as number))), 0);
}

describe('draw', () => {
  it.each([
    [1, 1],
    [7, 5],
    [16, 16],
    [3, 31],
  ])('puts a picture of %i × %i over the background, where nothing else is asked for', (width, height) => {
    const random = new RandomStream(runSeed, width, height);
    const rgba = randomPicture(width, height, random);
    const color = [random.below(256), random.below(256), random.below(256)];
    const { data } = draw(
      layerPyramid(rgba, width, height),
      drawing(width, height, { background: [color, none, none] }),
    );
    // Colours are rounded once when they are multiplied by transparency, and once at the end.
    expect(largestDifference(data, over(rgba, color))).toBeLessThanOrEqual(1);
  });

  it('gives what its formula gives, wherever and however the picture is drawn', () => {
    const random = new RandomStream(runSeed, 1);
    for (let trial = 0; trial < 40; trial++) {
      const [width, height] = [1 + random.below(12), 1 + random.below(12)];
      const [canvasWidth, canvasHeight] = [1 + random.below(20), 1 + random.below(20)];
      const rgba = randomPicture(width, height, random);
      const number = (): number => random.between(-1, 1);
      const d = drawing(canvasWidth, canvasHeight, {
        center: [random.between(-2, canvasWidth + 2), random.between(-2, canvasHeight + 2)],
        // Above 1 / √2 no smaller size of the picture is taken.
        scale: [random.between(0.8, 3) * (random.below(2) === 0 ? 1 : -1), random.between(0.8, 3)],
        rotation: random.between(-4, 4),
        colors: [0.5 + number(), number(), number(), 40 * number(), number(), 0.5 + number(), number(), 9, 0, 0, 1, -7],
        background: [
          [random.below(200), 20, 60],
          [30, 0, 40],
          [20, 100, 7],
        ],
      });
      const { data } = draw(layerPyramid(rgba, width, height), d);
      const expected: number[] = [];
      for (let y = 0; y < canvasHeight; y++)
        for (let x = 0; x < canvasWidth; x++) expected.push(...expectedPixel(rgba, width, height, d, x, y));
      // Half a unit for each rounding; those of the colours go through factors of up to 1.5 + 1 + 1.
      expect(largestDifference(data, expected)).toBeLessThanOrEqual(0.51 + 0.5 * 3.5);
    }
  });

  it('takes a smaller size of the picture for a small drawing, so that fine patterns become their mean', () => {
    const side = 32;
    const board = new Uint8Array(side * side * 4);
    for (let i = 0; i < side * side; i++)
      board.fill(((i % side) + Math.floor(i / side)) % 2 === 0 ? 255 : 0, 4 * i, 4 * i + 3);
    for (let i = 3; i < board.length; i += 4) board[i] = 255;
    const { data } = draw(layerPyramid(board, side, side), drawing(8, 8, { scale: [0.25, 0.25] }));
    for (const value of data) expect(value).toBeCloseTo(128, -0.5);
  });
});

describe('augmentation', () => {
  const rgba = randomPicture(24, 16, new RandomStream(runSeed, 2));
  const levels = layerPyramid(rgba, 24, 16);
  const all: AugmentOptions = {
    size: 32,
    background: ['white', 'light', 'dark', 'any'],
    scale: [0.5, 1],
    aspectRatio: 1.5,
    rotation: 20,
    brightness: 0.3,
    contrast: 0.3,
    saturation: 0.5,
    hue: 20,
    greyscale: 0.1,
    mirror: 0.5,
    blur: 0.2,
  };

  it('depends on the random numbers alone', () => {
    const augment = augmentation('augment', all);
    const first = augment.draw(levels, new RandomStream(runSeed, 3));
    expect(augment.draw(levels, new RandomStream(runSeed, 3))).toEqual(first);
    expect(augment.draw(levels, new RandomStream(runSeed, 4)).data).not.toEqual(first.data);
  });

  it('changes nothing that it is not asked to change', () => {
    const image = augmentation('augment', { size: 24 }).draw(levels, new RandomStream(runSeed, 5));
    expect([image.width, image.height]).toEqual([24, 16]);
    expect(largestDifference(image.data, over(rgba, [255, 255, 255]))).toBeLessThanOrEqual(1);
  });

  it('makes canvases of the longer side that is asked for, of every shape up to the largest', () => {
    const augment = augmentation('augment', { size: 40, aspectRatio: 2 });
    const square = layerPyramid(randomPicture(8, 8, new RandomStream(runSeed, 6)), 8, 8);
    const shapes = Array.from({ length: 60 }, (_, i) => augment.draw(square, new RandomStream(runSeed, 7, i)));
    for (const { width, height } of shapes) {
      expect(Math.max(width, height)).toBe(40);
      expect(Math.min(width, height)).toBeGreaterThanOrEqual(20);
    }
    expect(shapes.some(({ width, height }) => width > 1.5 * height)).toBe(true);
    expect(shapes.some(({ width, height }) => height > 1.5 * width)).toBe(true);
  });

  it('keeps the whole picture on the canvas at every size and place', () => {
    const black = new Uint8Array(16 * 16 * 4);
    for (let i = 3; i < black.length; i += 4) black[i] = 255;
    const square = layerPyramid(black, 16, 16);
    const augment = augmentation('augment', { size: 32, scale: [0.25, 1] });
    const areas = Array.from({ length: 50 }, (_, i) => {
      const { data } = augment.draw(square, new RandomStream(runSeed, 8, i));
      return data.reduce((sum, value) => sum + (255 - value) / 255, 0) / 3;
    });
    // From a quarter of the side to all of it, less what edges lose by fading out.
    expect(Math.min(...areas)).toBeGreaterThanOrEqual(0.7 * 8 * 8);
    expect(Math.min(...areas)).toBeLessThan(16 * 16);
    expect(Math.max(...areas)).toBeGreaterThan(24 * 24);
  });

  it('takes all colour from a picture that is to be grey, and mirrors one that is to be mirrored', () => {
    const opaque = rgba.map((value, i) => (i % 4 === 3 ? 255 : value));
    const picture = layerPyramid(opaque, 24, 16);
    const grey = augmentation('augment', { size: 24, greyscale: 1 }).draw(picture, new RandomStream(runSeed, 9));
    for (let i = 0; i < grey.data.length; i += 3) {
      const luma = 0.299 * opaque[(i / 3) * 4]! + 0.587 * opaque[(i / 3) * 4 + 1]! + 0.114 * opaque[(i / 3) * 4 + 2]!;
      for (let c = 0; c < 3; c++) expect(Math.abs((grey.data[i + c] as number) - luma)).toBeLessThanOrEqual(1.1);
    }
    const mirrored = augmentation('augment', { size: 24, mirror: 1 }).draw(picture, new RandomStream(runSeed, 10));
    const plain = augmentation('augment', { size: 24 }).draw(picture, new RandomStream(runSeed, 10));
    for (let y = 0; y < 16; y++)
      for (let x = 0; x < 24; x++)
        for (let c = 0; c < 3; c++)
          expect(mirrored.data[(y * 24 + x) * 3 + c]).toBe(plain.data[(y * 24 + 23 - x) * 3 + c]);
  });

  it('never draws from the sizes that it does without', () => {
    const random = new RandomStream(runSeed, 11);
    let spared = 0;
    for (let trial = 0; trial < 60; trial++) {
      const [width, height] = [1 + random.below(90), 1 + random.below(90)];
      const rgba = randomPicture(width, height, random);
      const from = random.between(0.1, 1.5);
      const augment = augmentation('augment', {
        ...all,
        size: 1 + random.below(48),
        scale: [from, random.between(from, 1.6)],
        aspectRatio: random.between(1, 4),
      });
      const whole = layerPyramid(rgba, width, height);
      const part = layerPyramid(rgba, width, height, augment.smallestLevel(width, height));
      spared += part.spared;
      for (let i = 0; i < 20; i++)
        expect(augment.draw(part, new RandomStream(runSeed, 12, trial, i))).toEqual(
          augment.draw(whole, new RandomStream(runSeed, 12, trial, i)),
        );
    }
    expect(spared).toBeGreaterThan(20);
  });

  it('keeps of a picture of 128 pixels, for canvases of 64, what is at most 64 pixels large', () => {
    const { smallestLevel } = augmentation('augment', { size: 64, scale: [0.6, 1], aspectRatio: 1.25 });
    expect([smallestLevel(128, 128), smallestLevel(128, 40), smallestLevel(64, 64)]).toEqual([1, 1, 0]);
    const levels = layerPyramid(new Uint8Array(128 * 128 * 4), 128, 128, 1);
    expect([levels.spared, levels.levels]).toEqual([1, 4]);
    expect(levels.data.length).toBe((64 * 64 + 32 * 32 + 16 * 16) * 4);
    // A picture has a smallest size, however small it is to be drawn.
    expect(layerPyramid(new Uint8Array(3 * 3 * 4), 3, 3, 5).data.length).toBe(3 * 3 * 4);
  });

  it.each<[string, AugmentOptions, RegExp]>([
    ['an unknown key', { size: 8, rotate: 1 } as unknown as AugmentOptions, /augment\.rotate: /],
    ['no size', {} as AugmentOptions, /augment\.size: expected an integer/],
    ['a size of 0', { size: 0 }, /augment\.size: .*got 0/],
    [
      'an unknown background',
      { size: 8, background: ['blue' as 'any'] },
      /augment\.background: .*white, light, dark, any/,
    ],
    ['no backgrounds', { size: 8, background: [] }, /augment\.background/],
    ['a share above 1', { size: 8, mirror: 1.5 }, /augment\.mirror: expected a number from 0 to 1, got 1\.5/],
    ['a text', { size: 8, hue: 'red' as unknown as number }, /augment\.hue: expected a number/],
    ['a scale the wrong way round', { size: 8, scale: [1, 0.5] }, /augment\.scale: expected the smaller number first/],
  ])('refuses %s', (_, options, message) => {
    expect(() => augmentation('augment', options)).toThrow(message);
  });
});
