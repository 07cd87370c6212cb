/** The sigmoid loss of images and texts that belong together by lists. */
import { describe, expect, it } from 'vitest';
import { type PositivePairs, sigmoidLoss, Tensor } from '../../../lib/kernels/index.js';
import { relativeError } from '../../support/compare.js';
import { activationTypes, draw, emulated, Place, shapesFor, testDevice, threadCounts } from '../../support/devices.js';
import { expectSiglipError } from '../../support/errors.js';
import { centralDifferences } from '../../support/finite-differences.js';
import {
  argumentsOf,
  batchOf,
  drawnLists,
  expectAgreement,
  type LossBatch,
  labelsOf,
  listedBatch,
  listsOf,
  run,
} from '../../support/sigmoid-loss.js';

const tested = Place.tested('float32');
const reference = Place.reference('float32');

type Shape = [n: number, m: number, width: number];
const none = () => false;
const all = () => true;

describe('sigmoid loss with lists of positives', () => {
  const shapes: Shape[] = [
    [1, 1, 768],
    [1, 37, 64],
    [41, 1, 64],
    [2, 5, 3],
    [7, 3, 1],
    ...shapesFor<Shape>(
      [
        [64, 128, 768],
        [128, 64, 72],
        [97, 193, 33],
        [193, 97, 127],
        [257, 599, 40],
        [601, 113, 5],
      ],
      [
        [64, 128, 24],
        [65, 129, 8],
        [131, 67, 35],
      ],
    ),
  ];
  const kinds: [string, (shape: Shape) => PositivePairs][] = [
    ['no positive', ([n, m]) => listsOf(n, m, none)],
    ['all positive', ([n, m]) => listsOf(n, m, all)],
    ['a few positives', ([n, m]) => drawnLists(draw(n * m), n, m, 3 / m)],
    ['half of them positive', ([n, m]) => drawnLists(draw(n * m + 1), n, m, 0.5)],
    // Tiles and blocks of all kernels end at multiples of 4, 6 or 14.
    ['the first and last of tiles', ([n, m]) => listsOf(n, m, (i, j) => onEdge(i, n) && onEdge(j, m))],
    ['only the last image and the last text', ([n, m]) => listsOf(n, m, (i, j) => i === n - 1 || j === m - 1)],
  ];
  const onEdge = (index: number, count: number): boolean =>
    index === count - 1 || [4, 6, 14].some((tile) => index % tile === 0 || index % tile === tile - 1);
  const cases = activationTypes.flatMap((dtype) =>
    kinds.flatMap(([kind, lists]) => shapes.map((shape) => [...shape, kind, dtype, lists] as const)),
  );
  it.each(cases)('%i images by %i texts of width %i, %s, in %s', async (n, m, width, _, dtype, lists) => {
    const shape: Shape = [n, m, width];
    await expectAgreement(listedBatch(n + m, shape, lists(shape)), 2e-6, dtype);
  });

  it.each(activationTypes)(
    'agrees with the reference on random shapes, lists, scales and biases in %s',
    async (dtype) => {
      const random = draw(8);
      const most = emulated ? 70 : 140;
      for (let round = 0; round < (emulated ? 10 : 60); round++) {
        const [n, m] = [random.integer(1, most), random.integer(1, most)];
        const positives = drawnLists(random, n, m, random.next() ** 3);
        const shape: Shape = [n, m, random.integer(1, emulated ? 60 : 300)];
        const batch = listedBatch(round, shape, positives, 4 * random.next() - 1, 24 * random.next() - 12);
        await expectAgreement(batch, 2e-6, dtype);
      }
    },
  );

  // On CPUs 32 MB hold 2796 images by 3000 texts, and 4096 images at most; GPUs take 1024.
  const chunked: Shape[] = shapesFor<Shape>(
    [
      [3000, 2900, 9],
      [5000, 3, 9],
      [3, 5000, 9],
      // Two strips of texts (sigmoid_loss_cuda.cu).
      [3, 8203, 9],
    ],
    [
      [1100, 70, 8],
      [3, 1100, 8],
      [2, 8203, 3],
    ],
  );
  it.each(chunked.flatMap((shape) => activationTypes.map((dtype) => [...shape, dtype] as const)))(
    'agrees with the reference on %i images by %i texts of width %i, in chunks, in %s',
    async (n, m, width, dtype) => {
      await expectAgreement(listedBatch(3, [n, m, width], drawnLists(draw(9), n, m, 2 / m)), 2e-6, dtype);
    },
  );

  it.each(activationTypes)('gives the same bits for the diagonal as lists as without lists in %s', async (dtype) => {
    const batches: [number, number][] = shapesFor(
      [
        [1, 768],
        [70, 24],
        [193, 127],
        [601, 40],
        [3001, 7],
      ],
      [
        [1, 64],
        [70, 24],
        [131, 36],
      ],
    );
    for (const [n, width] of batches) {
      const batch = batchOf(n, n, width);
      const diagonal = listsOf(n, n, (i, j) => i === j);
      const place = Place.tested(dtype);
      expect(await run({ ...batch, positives: diagonal }, place)).toEqual(await run(batch, place));
    }
  });

  it.runIf(threadCounts.length > 0)('gives the same bits on any number of threads', async () => {
    for (const [n, m, width] of [
      [401, 1300, 40],
      [900, 11, 129],
    ] as Shape[]) {
      const batch = listedBatch(1, [n, m, width], drawnLists(draw(10), n, m, 3 / m));
      const expected = await run(batch, tested, 1);
      for (const threads of [2, 3, 8]) expect(await run(batch, tested, threads)).toEqual(expected);
      expect(await sigmoidLoss(argumentsOf(batch, tested))).toEqual({ loss: expected.loss });
    }
  });

  it('keeps the digits of losses and gradients that are almost 0', async () => {
    // Three texts for each image, which are that image; images are orthogonal: logits are scale + bias for pairs that
    // belong together, else bias.
    const n = 19;
    const m = 3 * n;
    const images = new Float32Array(n * n);
    for (let i = 0; i < n; i++) images[i * (n + 1)] = 1;
    const texts = Float32Array.from({ length: m * n }, (_, index) => images[index % (n * n)] as number);
    const [scale, logitBias] = [Math.exp(4.2), -36.3];
    const positives = listsOf(n, m, (i, j) => j % n === i);
    const actual = await run({ n, m, width: n, images, texts, logitScale: 4.2, logitBias, positives }, tested);
    const [own, other] = [Math.exp(-(scale + logitBias)), Math.exp(logitBias)];
    expect(relativeError([actual.loss], [3 * own + (m - 3) * other])).toBeLessThan(3e-7);
    expect(relativeError([actual.gradLogitScale], [-scale * 3 * own])).toBeLessThan(3e-7);
    expect(relativeError([actual.gradLogitBias], [-3 * own + (m - 3) * other])).toBeLessThan(3e-7);
    const expectGradient = (gradient: Float32Array, rows: Float32Array, times: number): void =>
      gradient.forEach((value, index) => {
        const expected = (scale / n) * times * (rows[index] === 1 ? -own : other);
        expect(Math.abs(value / expected - 1)).toBeLessThan(4e-7);
      });
    expectGradient(actual.gradImages, images, 3);
    expectGradient(actual.gradTexts, texts, 1);
  });

  it('passes NaN on', async () => {
    const batch = listedBatch(4, [20, 33, 40], drawnLists(draw(11), 20, 33, 0.1));
    batch.images[3 * 40] = Number.NaN;
    const { loss, gradImages, gradTexts } = await run(batch, tested);
    expect(loss).toBeNaN();
    expect(gradImages.subarray(120, 160).every(Number.isNaN)).toBe(true);
    expect(gradTexts.every(Number.isNaN)).toBe(true);
  });
});

/** The loss as its formula says, of embeddings in double precision. */
function plainLoss(batch: LossBatch, images: Float64Array, texts: Float64Array): number {
  const { n, m, width, logitScale, logitBias } = batch;
  let sum = 0;
  labelsOf(batch).forEach((label, index) => {
    const [i, j] = [Math.floor(index / m), index % m];
    let product = 0;
    for (let d = 0; d < width; d++) product += (images[i * width + d] as number) * (texts[j * width + d] as number);
    sum += Math.log1p(Math.exp(-label * (Math.exp(logitScale) * product + logitBias)));
  });
  return sum / n;
}

describe('sigmoid loss with lists of positives on reference', () => {
  it('has the loss of the formula and its gradients by finite differences', async () => {
    const random = draw(12);
    for (const [n, m] of [
      [5, 7],
      [7, 4],
      [1, 6],
      [6, 1],
    ] as const) {
      const batch = listedBatch(22 + n, [n, m, 4], drawnLists(random, n, m, 0.4), Math.log(3), -1);
      const [images, texts] = [Float64Array.from(batch.images), Float64Array.from(batch.texts)];
      const loss = (changed: Partial<LossBatch> = {}) => plainLoss({ ...batch, ...changed }, images, texts);
      const actual = await run(batch, reference);
      expect(Math.abs(actual.loss / loss() - 1)).toBeLessThan(1e-12);
      // Float32 results of size 1, and differences that are right to 1e-9.
      const expectGradient = (gradient: Float32Array, values: Float64Array) =>
        expect(relativeError(gradient, centralDifferences(loss, values), 1e-2)).toBeLessThan(3e-7);
      expectGradient(actual.gradImages, images);
      expectGradient(actual.gradTexts, texts);
      const step = 1e-5;
      for (const [name, gradient] of [
        ['logitScale', actual.gradLogitScale],
        ['logitBias', actual.gradLogitBias],
      ] as const) {
        const difference = loss({ [name]: batch[name] + step }) - loss({ [name]: batch[name] - step });
        expect(Math.abs(difference / (2 * step) - gradient)).toBeLessThan(1e-7);
      }
    }
  });
});

describe('sigmoid loss names what does not fit in lists of positives', () => {
  const tensor = (shape: number[]) =>
    Tensor.from(new Float32Array(shape.reduce((a, b) => a * b, 1)), shape, { device: testDevice });
  const rest = { images: tensor([3, 4]), texts: tensor([5, 4]), logitScale: 1, logitBias: 0 };
  const lists = (offsets: number[], texts: number[]) => ({
    offsets: Int32Array.from(offsets),
    texts: Int32Array.from(texts),
  });
  const attempt = (positives: unknown, args: object = {}) =>
    sigmoidLoss({ ...rest, ...args, positives: positives as PositivePairs });

  it.each<[string, number[], number[], ...(string | RegExp)[]]>([
    ['too few offsets', [0, 1, 2], [0, 1], 'args.positives.offsets', '4 entries', 'got 3'],
    ['too many offsets', [0, 1, 2, 2, 2], [0, 1], 'args.positives.offsets', '4 entries', 'got 5'],
    ['no offsets', [], [], 'args.positives.offsets', 'got none'],
    ['a first offset', [1, 1, 2, 2], [0, 1], 'args.positives.offsets', 'the first entry to be 0, got 1'],
    ['falling offsets', [0, 2, 1, 2], [0, 1], 'args.positives.offsets', 'entry 2 to be at least 2, got 1'],
    ['a last offset', [0, 1, 2, 3], [0, 1], 'args.positives.offsets', '2 texts in the lists, got 3'],
    [
      'a text above the last',
      [0, 1, 2, 2],
      [0, 5],
      'args.positives.texts',
      'from 0 to 4',
      'got 5 at entry 1, of image 1',
    ],
    ['a negative text', [0, 1, 2, 2], [-1, 3], 'args.positives.texts', 'from 0 to 4', 'got -1 at entry 0'],
    ['falling texts', [0, 0, 2, 2], [3, 1], 'args.positives.texts', 'image 1 to ascend', 'got 1 after 3 at entry 1'],
    ['a text twice', [0, 0, 0, 2], [3, 3], 'args.positives.texts', 'image 2 to ascend', 'got 3 after 3'],
  ])('%s', async (_, offsets, texts, ...words) => {
    await expectSiglipError(() => attempt(lists(offsets, texts)), 'ERR_SIGLIP_SHAPE', ...words);
  });

  it('shapes of images and texts', async () => {
    const empty = (n: number) => lists(new Array(n + 1).fill(0), []);
    const expectShape = (args: object, n: number, ...words: string[]) =>
      expectSiglipError(() => attempt(empty(n), args), 'ERR_SIGLIP_SHAPE', ...words);
    await expectShape({ texts: tensor([5, 3]) }, 3, 'args.texts', 'width of args.images, 4, got 3');
    await expectShape({ images: tensor([0, 4]) }, 0, 'images has no rows', 'no loss over no pairs');
    await expectShape({ texts: tensor([0, 4]) }, 3, 'texts has no rows', 'no loss over no pairs');
    await expectSiglipError(() => sigmoidLoss(rest), 'ERR_SIGLIP_SHAPE', 'args.texts', '[3, 4]', '[5, 4]');
  });

  it('kinds of values', async () => {
    await expect(attempt(null)).rejects.toThrow(/args\.positives: expected \{ offsets, texts \}, got null/);
    await expect(attempt([[0], [1]])).rejects.toThrow(/args\.positives: expected an options object/);
    await expect(attempt({ offsets: [0, 0, 0, 0], texts: new Int32Array() })).rejects.toThrow(
      /args\.positives\.offsets: expected an Int32Array/,
    );
    await expect(attempt({ offsets: new Int32Array(4) })).rejects.toThrow(
      /args\.positives\.texts: expected an Int32Array/,
    );
    await expect(attempt({ ...lists([0, 0, 0, 0], []), text: 1 })).rejects.toThrow(/args\.positives\.text: expected/);
  });

  it('in the native core, too', async () => {
    // What lib/ checks is checked again where memory is accessed.
    const { native } = await import('../../../lib/native.js');
    const core = (offsets: number[], texts: number[]) =>
      native().sigmoidLoss({
        images: rest.images.handle(),
        texts: rest.texts.handle(),
        positives: lists(offsets, texts),
        logitScale: 1,
        logitBias: 0,
        gradients: true,
        threads: 1,
      });
    for (const [offsets, texts, ...words] of [
      [[0, 1, 2], [0, 1], 'positives.offsets', 'must be 4, got 3'],
      [[0, 1, 2, 3], [0, 1], 'positives.texts', 'must be 3, got 2'],
      [[1, 1, 2, 2], [0, 1], 'positives.offsets must start at 0, got 1'],
      [[0, 2, 1, 2], [0, 1], 'positives.offsets must not fall: entry 2 is 1 after 2'],
      [[0, 1, 2, 2], [0, 5], 'entry 1 of positives.texts must be from 0 to 4, got 5'],
      [[0, 1, 2, 2], [-1, 3], 'entry 0 of positives.texts must be from 0 to 4, got -1'],
      [[0, 0, 2, 2], [3, 3], 'must ascend within an image: entry 1, of image 1, is 3 after 3'],
    ] as [number[], number[], ...string[]][])
      await expectSiglipError(() => core(offsets, texts), 'ERR_SIGLIP_SHAPE', ...words);
  });
});
