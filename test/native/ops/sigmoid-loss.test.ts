/** The sigmoid loss against the reference, and the reference against finite differences. */
import { describe, expect, it } from 'vitest';
import { type Device, sigmoidLoss, Tensor } from '../../../lib/kernels/index.js';
import { relativeError } from '../../support/compare.js';
import {
  type ActivationType,
  activationTypes,
  draw,
  emulated,
  Place,
  shapesFor,
  testDevice,
} from '../../support/devices.js';
import { expectSiglipError } from '../../support/errors.js';
import { argumentsOf, batchOf, expectAgreement, type LossBatch, run } from '../../support/sigmoid-loss.js';

const tested = Place.tested('float32');
const reference = Place.reference('float32');

describe('sigmoid loss', () => {
  const shapes: [number, number][] = [
    [1, 1],
    [1, 768],
    [2, 3],
    [3, 1],
    [5, 64],
    ...shapesFor<[number, number]>(
      [
        [17, 769],
        [64, 768],
        [97, 33],
        [193, 127],
        [257, 400],
        [601, 5],
      ],
      [
        [17, 769],
        [33, 136],
        [97, 33],
        [151, 8],
      ],
    ),
  ];
  const shapesAndTypes = activationTypes.flatMap((dtype) =>
    shapes.map(([n, width]) => [n, width, dtype] as [number, number, ActivationType]),
  );
  it.each(shapesAndTypes)('%i pairs of width %i in %s', async (n, width, dtype) => {
    await expectAgreement(batchOf(n + width, n, width), 2e-6, dtype);
  });

  it.each(activationTypes)('agrees with the reference on random shapes, scales and biases in %s', async (dtype) => {
    const random = draw(7);
    for (let round = 0; round < (emulated ? 8 : 40); round++) {
      const [n, width] = [random.integer(1, emulated ? 70 : 140), random.integer(1, emulated ? 90 : 500)];
      const batch = batchOf(round, n, width, 4 * random.next() - 1, 24 * random.next() - 12);
      await expectAgreement(batch, 2e-6, dtype);
    }
  });

  it.each(activationTypes)('agrees with the reference where not all images are taken at once in %s', async (dtype) => {
    // Two chunks of images: on CPUs 32 MB hold 2796 of 3000, GPUs take 1024 at most.
    await expectAgreement(batchOf(3, emulated ? 1090 : 3000, 9), 2e-6, dtype);
  });

  it('gives the same bits on any number of threads, and the same loss without gradients', async () => {
    for (const batch of shapesFor(
      [batchOf(1, 3001, 20), batchOf(2, 401, 129), batchOf(3, 7, 768)],
      [batchOf(2, 61, 29), batchOf(3, 7, 768)],
    )) {
      const expected = await run(batch, tested, 1);
      for (const threads of [2, 3, 8]) expect(await run(batch, tested, threads)).toEqual(expected);
      expect(await sigmoidLoss({ ...argumentsOf(batch, tested), threads: 2 })).toEqual({ loss: expected.loss });
      expect(await sigmoidLoss({ ...argumentsOf(batch, tested), gradients: false })).toEqual({ loss: expected.loss });
    }
  });

  it.each([
    ['logits of ±10⁴', Math.log(1e4), 0],
    ['a bias of 10⁴', 0, 1e4],
    ['a bias of −10⁴', 2, -1e4],
    ['the largest scale', 80, 0],
    ['the largest scale and bias', 80, 1e30],
    ['the largest bias', 1, -1e30],
    ['a scale that adds nothing to the bias', -60, -3],
    ['a scale that cancels the bias', Math.log(1e4), 1234],
  ])('%s', async (_, logitScale, logitBias) => {
    // Logits of 10⁴ are right to 6e-8 of that, so slopes of the few that are not saturated to some 10⁻⁴.
    const tolerance = 1e-5;
    await expectAgreement(batchOf(11, 70, 24, logitScale, logitBias), tolerance);
  });

  it('has no NaN for a scale of 0', async () => {
    const batch = batchOf(12, 5, 8, -1e9, 2);
    const { loss, gradImages, gradTexts, gradLogitScale } = await run(batch, tested);
    expect(loss / (4 * Math.log1p(Math.exp(2)) + Math.log1p(Math.exp(-2)))).toBeCloseTo(1, 6);
    expect([...gradImages, ...gradTexts, gradLogitScale].every((value) => value === 0)).toBe(true);
  });

  it('keeps the digits of losses and gradients that are almost 0', async () => {
    // Texts are the images, which are orthogonal: logits are scale + bias for pairs that belong together, else bias.
    const n = 19;
    const images = new Float32Array(n * n);
    for (let i = 0; i < n; i++) images[i * (n + 1)] = 1;
    // Neither the scale nor a logit is a float32 number; what they lack would change losses by 10⁻⁶ of themselves.
    const [scale, logitBias] = [Math.exp(4.2), -36.3];
    const actual = await run({ n, m: n, width: n, images, texts: images, logitScale: 4.2, logitBias }, tested);
    const [own, other] = [Math.exp(-(scale + logitBias)), Math.exp(logitBias)];
    expect(relativeError([actual.loss], [own + (n - 1) * other])).toBeLessThan(3e-7);
    expect(relativeError([actual.gradLogitScale], [-scale * own])).toBeLessThan(3e-7);
    expect(relativeError([actual.gradLogitBias], [-own + (n - 1) * other])).toBeLessThan(3e-7);
    const gradient = Float64Array.from(images, (one) => (scale / n) * (one === 1 ? -own : other));
    for (const tensor of [actual.gradImages, actual.gradTexts])
      tensor.forEach((value, index) => {
        expect(Math.abs(value / (gradient[index] as number) - 1)).toBeLessThan(4e-7);
      });
  });

  it('passes NaN on', async () => {
    const batch = batchOf(4, 20, 40);
    batch.images[3 * 40] = Number.NaN;
    const { loss, gradImages, gradTexts } = await run(batch, tested);
    expect(loss).toBeNaN();
    expect(gradImages.subarray(120, 160).every(Number.isNaN)).toBe(true);
    expect(gradTexts.every(Number.isNaN)).toBe(true);
  });

  it.skipIf(testDevice !== 'cpu')('needs memory far below that of all logits', async () => {
    const [n, width] = [8192, 16];
    const args = argumentsOf(batchOf(5, n, width), tested);
    await sigmoidLoss({ ...argumentsOf(batchOf(5, 64, width), tested), gradients: true }); // starts threads
    const before = process.memoryUsage.rss();
    const seen: number[] = [];
    const watch = setInterval(() => seen.push(process.memoryUsage.rss()), 2);
    await sigmoidLoss({ ...args, gradients: true });
    clearInterval(watch);
    expect(seen.length).toBeGreaterThan(10);
    expect(Math.max(...seen) - before).toBeLessThan(100e6); // all logits are 268 MB
  });
});

describe('sigmoid loss on reference', () => {
  it('has the gradients that finite differences have', async () => {
    const batch = batchOf(21, 5, 4, Math.log(3), -1);
    const lossOf = async (changed: Partial<LossBatch>) =>
      (await sigmoidLoss(argumentsOf({ ...batch, ...changed }, reference))).loss;
    const { gradImages, gradTexts, gradLogitScale, gradLogitBias } = await run(batch, reference);
    const step = 2 ** -10;
    const slopes = async (name: 'images' | 'texts'): Promise<number[]> => {
      const result: number[] = [];
      for (let index = 0; index < batch[name].length; index++) {
        const [above, below] = [batch[name].slice(), batch[name].slice()];
        (above[index] as number) += step;
        (below[index] as number) -= step;
        const distance = (above[index] as number) - (below[index] as number);
        result.push(((await lossOf({ [name]: above })) - (await lossOf({ [name]: below }))) / distance);
      }
      return result;
    };
    // The rest of the series is step²/6 times third derivatives, which are below 3³ here.
    expect(relativeError(gradImages, await slopes('images'))).toBeLessThan(5e-6);
    expect(relativeError(gradTexts, await slopes('texts'))).toBeLessThan(5e-6);
    for (const [name, gradient] of [
      ['logitScale', gradLogitScale],
      ['logitBias', gradLogitBias],
    ] as const) {
      const difference =
        (await lossOf({ [name]: batch[name] + step })) - (await lossOf({ [name]: batch[name] - step }));
      expect(Math.abs(difference / (2 * step) - gradient)).toBeLessThan(5e-6);
    }
  });
});

describe('sigmoid loss names what does not fit', () => {
  const tensor = (shape: number[], device: Device = testDevice) =>
    Tensor.from(new Float32Array(shape.reduce((a, b) => a * b, 1)), shape, { device });
  const images = tensor([3, 4]);
  const rest = { texts: tensor([3, 4]), logitScale: 1, logitBias: 0 };

  it('shapes and devices', async () => {
    const expectShape = (args: object, ...words: string[]) =>
      expectSiglipError(() => sigmoidLoss({ images, ...rest, ...args }), 'ERR_SIGLIP_SHAPE', ...words);
    await expectShape({ texts: tensor([2, 4]) }, 'args.texts', '[3, 4]', '[2, 4]');
    await expectShape({ texts: tensor([3, 5]) }, 'args.texts', '[3, 5]');
    await expectShape({ texts: tensor([12]) }, 'args.texts', '2 dimensions');
    await expectShape({ images: tensor([0, 4]), texts: tensor([0, 4]) }, 'no loss over no pairs');
    await expectShape({ images: tensor([3, 0]), texts: tensor([3, 0]), gradients: true }, 'columns of images');
    await expectShape({ texts: tensor([3, 4], 'reference') }, 'texts', 'device');
    const halves = Tensor.from(new Uint16Array(12), [3, 4], { device: testDevice });
    await expectSiglipError(() => sigmoidLoss({ images, ...rest, texts: halves }), 'ERR_SIGLIP_UNSUPPORTED', 'float32');
  });

  it('scales and biases beyond float32', async () => {
    const attempt = (args: object) => () => sigmoidLoss({ images, ...rest, ...args });
    await expectSiglipError(attempt({ logitScale: 80.001 }), 'ERR_SIGLIP_UNSUPPORTED', 'logit_scale', '80');
    await expectSiglipError(attempt({ logitBias: -2e30 }), 'ERR_SIGLIP_UNSUPPORTED', 'logit_bias');
    await expect(attempt({ logitScale: Number.NaN })()).rejects.toThrow(RangeError);
    await expect(attempt({ logitBias: Number.NEGATIVE_INFINITY })()).rejects.toThrow(/args\.logitBias.*finite/);
    await expect(attempt({ logitScale: '1' })()).rejects.toThrow(TypeError);
  });

  it('arguments', async () => {
    const attempt = (args: object) => sigmoidLoss({ images, ...rest, ...args } as never);
    await expect(attempt({ images: [1] })).rejects.toThrow(/args\.images: expected a Tensor/);
    await expect(attempt({ gradients: 'yes' })).rejects.toThrow(/args\.gradients: expected true or false/);
    await expect(attempt({ threads: 0 })).rejects.toThrow(/threads/);
    await expect(attempt({ bogus: 1 })).rejects.toThrow(/bogus/);
    await expect(sigmoidLoss(undefined as never)).rejects.toThrow(/args: expected an object/);
    const disposed = tensor([3, 4]);
    disposed.dispose();
    await expectSiglipError(() => sigmoidLoss({ images, ...rest, texts: disposed }), 'ERR_SIGLIP_DISPOSED');
  });
});
