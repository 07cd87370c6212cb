/** Metrics of retrieval and classification, against cases worked out by hand and an independent computation. */
import { describe, expect, it } from 'vitest';
import { Siglip2 } from '../../lib/index.js';
import { type Embeddings, joinEmbeddings } from '../../lib/model/embeddings.js';
import { openDataset } from '../../lib/training/data/index.js';
import { evaluateRetrieval, evaluateZeroShot, retrievalMetrics, zeroShotAccuracy } from '../../lib/training/index.js';
import { checkpoint } from '../support/command-line.js';
import { expectSiglipError } from '../support/errors.js';
import { temporaryFolder } from '../support/folders.js';
import { Random } from '../support/random.js';
import { picture } from '../support/training-data.js';

function rows(...values: number[][]): Embeddings {
  return joinEmbeddings([Float32Array.from(values.flat())], values[0]!.length);
}

const angle = (degrees: number): number[] => [Math.cos((degrees * Math.PI) / 180), Math.sin((degrees * Math.PI) / 180)];

describe('retrieval', () => {
  it('finds everything where every text is its picture, of any length', async () => {
    const images = rows([1, 0, 0], [0, 2, 0], [0, 0, 0.1]);
    const texts = rows([0, 0, 7], [3, 0, 0], [0, 1, 0]);
    expect(await retrievalMetrics(images, texts, Int32Array.of(2, 0, 1))).toEqual({
      images: 3,
      texts: 3,
      imageToText: { 1: 1, 5: 1, 10: 1 },
      textToImage: { 1: 1, 5: 1, 10: 1 },
    });
  });

  it('counts ranks: a case worked out by hand', async () => {
    // Pictures at 0, 40 and 90 degrees. Texts of the first at 25 and 85, of the second at 60, of the third at 80.
    const images = rows(angle(0), angle(40), angle(90));
    const texts = rows(angle(25), angle(85), angle(60), angle(80));
    const metrics = await retrievalMetrics(images, texts, Int32Array.of(0, 0, 1, 2), [1, 2, 3]);
    // Nearest pictures: 25 → 40, 0, 90 (second); 85 → 90, 40, 0 (third); 60 → 40, 90, 0 (first); 80 → 90 (first).
    expect(metrics.textToImage).toEqual({ 1: 2 / 4, 2: 3 / 4, 3: 1 });
    // Nearest texts: 0 → 25 (first); 40 → 25, 60 (second); 90 → 85, 80 (second).
    expect(metrics.imageToText).toEqual({ 1: 1 / 3, 2: 1, 3: 1 });
  });

  it('counts ties against the model, and what is no number too', async () => {
    const same = (count: number): Embeddings => rows(...Array.from({ length: count }, () => [1, 1]));
    const collapsed = await retrievalMetrics(same(6), same(6), Int32Array.of(0, 1, 2, 3, 4, 5));
    expect(collapsed.textToImage).toEqual({ 1: 0, 5: 0, 10: 1 });
    expect(collapsed.imageToText).toEqual({ 1: 0, 5: 0, 10: 1 });
    const zeros = await retrievalMetrics(rows([0, 0], [0, 0]), same(2), Int32Array.of(0, 1), [1]);
    expect(zeros.textToImage).toEqual({ 1: 0 });
    const broken = await retrievalMetrics(
      rows([Number.NaN, 1], [Number.NaN, 0], [1, Number.NaN]),
      rows([1, 0], [0, 1], [1, 1]),
      Int32Array.of(0, 1, 2),
      [1, 2],
    );
    expect(broken.textToImage).toEqual({ 1: 0, 2: 0 });
    expect(broken.imageToText).toEqual({ 1: 0, 2: 0 });
  });

  it('leaves pictures without texts out of one direction, and lets them distract in the other', async () => {
    const images = rows([1, 0], [0, 1], [0.9, 0.1]);
    const texts = rows([0.9, 0.1], [0, 1]);
    const metrics = await retrievalMetrics(images, texts, Int32Array.of(0, 1), [1, 2]);
    expect(metrics.imageToText).toEqual({ 1: 1, 2: 1 });
    expect(metrics.textToImage).toEqual({ 1: 1 / 2, 2: 1 });
  });

  it.each([
    [1, 1, 1],
    [37, 37, 5],
    [53, 211, 16],
    [101, 83, 7],
  ])('agrees with sorting all scores: %d pictures, %d texts of width %d', async (imageCount, textCount, dim) => {
    const random = new Random(imageCount * 1000 + textCount);
    const images = joinEmbeddings([random.floats(imageCount * dim)], dim);
    const texts = joinEmbeddings([random.floats(textCount * dim)], dim);
    const textToImage = Int32Array.from({ length: textCount }, () => random.integer(0, imageCount - 1));
    const cosine = (a: Float32Array, b: Float32Array): number => {
      const dot = (x: Float32Array, y: Float32Array) => x.reduce((sum, value, i) => sum + value * y[i]!, 0);
      return dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
    };
    const order = (scores: number[]): number[] => scores.map((_, i) => i).sort((a, b) => scores[b]! - scores[a]!);
    const range = (count: number): number[] => Array.from({ length: count }, (_, i) => i);
    const textRanks = range(textCount).map((text) =>
      order(range(imageCount).map((image) => cosine(images.row(image), texts.row(text)))).indexOf(textToImage[text]!),
    );
    const imageRanks = range(imageCount)
      .filter((image) => textToImage.includes(image))
      .map((image) => {
        const sorted = order(range(textCount).map((text) => cosine(images.row(image), texts.row(text))));
        return sorted.findIndex((text) => textToImage[text] === image);
      });
    const share = (ranks: number[], k: number): number => ranks.filter((rank) => rank < k).length / ranks.length;
    const metrics = await retrievalMetrics(images, texts, textToImage, [1, 3, 10]);
    for (const k of [1, 3, 10]) {
      expect(metrics.textToImage[k]).toBeCloseTo(share(textRanks, k), 12);
      expect(metrics.imageToText[k]).toBeCloseTo(share(imageRanks, k), 12);
    }
  });

  it('works in blocks that do not divide the number of rows', async () => {
    // 3001 columns make blocks of 2795 rows: the second one is smaller.
    const count = 3001;
    const random = new Random(7);
    const images = joinEmbeddings([random.floats(count * 8)], 8);
    const shift = 1234;
    const textToImage = Int32Array.from({ length: count }, (_, i) => (i + shift) % count);
    const texts = rows(...Array.from(textToImage, (image) => [...images.row(image)]));
    const metrics = await retrievalMetrics(images, texts, textToImage, [1]);
    expect(metrics.textToImage).toEqual({ 1: 1 });
    expect(metrics.imageToText).toEqual({ 1: 1 });
  });

  it('names what is wrong', async () => {
    const two = rows([1, 0], [0, 1]);
    const map = Int32Array.of(0, 1);
    await expectSiglipError(() => retrievalMetrics(two, rows([1, 0, 0]), map), 'ERR_SIGLIP_SHAPE', 'texts', '3');
    await expectSiglipError(
      () => retrievalMetrics(two, two, Int32Array.of(0)),
      'ERR_SIGLIP_SHAPE',
      'textToImage: expected one entry a text, 2, got 1',
    );
    await expectSiglipError(() => retrievalMetrics(joinEmbeddings([], 2), two, map), 'ERR_SIGLIP_SHAPE', 'images');
    await expect(retrievalMetrics(two, two, Int32Array.of(0, 2))).rejects.toThrow(
      'textToImage[1]: expected a picture from 0 to 1, got 2',
    );
    await expect(retrievalMetrics(two, two, map, [])).rejects.toThrow(RangeError);
    await expect(retrievalMetrics(two, two, map, [1.5])).rejects.toThrow('ks[0]');
    await expect(retrievalMetrics(two, two, [0, 1] as never)).rejects.toThrow('textToImage: expected an Int32Array');
  });
});

describe('zero-shot accuracy', () => {
  it('averages normalised prompts and normalises again: a case worked out by hand', async () => {
    // Class 0: prompts at 0 and 60 degrees, of lengths 100 and 1, mean direction 30. Class 1: both at 80.
    const scaled = (factor: number, degrees: number): number[] => angle(degrees).map((value) => value * factor);
    const prompts = rows(scaled(100, 0), angle(60), angle(80), scaled(5, 80));
    const images = rows(angle(50), angle(60), angle(20));
    const metrics = await zeroShotAccuracy(images, prompts, Int32Array.of(0, 0, 0), { promptsPerClass: 2, ks: [1, 2] });
    // 50 is nearer to 30 than to 80; 60 is not. Without the first normalisation class 0 would be at 0 degrees.
    expect(metrics).toEqual({ images: 3, classes: 2, accuracy: { 1: 2 / 3, 2: 1 } });
  });

  it('does not prefer a class whose prompts agree over one whose prompts differ', async () => {
    // The mean of class 0 has length cos 60 = 0.5; its direction is what counts.
    const prompts = rows(angle(-60), angle(60), angle(50), angle(50));
    const metrics = await zeroShotAccuracy(rows(angle(10)), prompts, Int32Array.of(0), { promptsPerClass: 2 });
    expect(metrics.accuracy).toEqual({ 1: 1, 5: 1 });
  });

  it('names what is wrong', async () => {
    const two = rows([1, 0], [0, 1]);
    await expectSiglipError(
      () => zeroShotAccuracy(two, two, Int32Array.of(0, 0), { promptsPerClass: 3 }),
      'ERR_SIGLIP_SHAPE',
      'prompts: expected a multiple of 3 rows, got 2',
    );
    await expect(zeroShotAccuracy(two, two, Int32Array.of(0, -1))).rejects.toThrow('labels[1]: expected a class');
    await expect(zeroShotAccuracy(two, two, Int32Array.of(0, 1), { k: 1 } as never)).rejects.toThrow('options.k');
  });
});

describe('evaluation of a model', () => {
  const caption = (n: number): string => `number ${n}`;

  it('embeds every picture once, with all its texts, and leaves broken ones out', async () => {
    using model = await Siglip2.load(checkpoint);
    const names = ['a.png', 'b.png', 'c.png'];
    const lines = [
      { image: 'a.png', text: [caption(0), caption(1)] },
      { image: 'broken.png', text: caption(2) },
      { image: 'b.png', text: caption(3) },
      { image: 'missing.png', text: caption(4) },
      { image: 'c.png', text: caption(5) },
      { image: 'a.png', text: caption(6) },
      { image: 'a.png' },
    ];
    const folder = temporaryFolder({
      'a.png': picture(1000, 20),
      'b.png': picture(30_000, 7),
      'c.png': picture(60_000, 40),
      'broken.png': 'no picture',
      'captions.jsonl': lines.map((line) => JSON.stringify(line)).join('\n'),
    });
    const open = () => openDataset({ folder, captions: 'captions.jsonl' }, { shuffle: false, epochs: 1 });
    const result = await evaluateRetrieval(model, await open(), { batchSize: 2 });
    const images = await model.embedImages(names.map((name) => `${folder}/${name}`));
    const texts = await model.embedTexts([caption(0), caption(1), caption(3), caption(5), caption(6)]);
    const expected = await retrievalMetrics(images, texts, Int32Array.of(0, 0, 1, 2, 0));
    expect(result).toEqual({ ...expected, skipped: 3 });
    expect(result).toMatchObject({ images: 3, texts: 5 });
    const limited = await evaluateRetrieval(model, await open(), { limit: 1 });
    expect(limited).toMatchObject({ images: 1, texts: 2, skipped: 0 });
  });

  it('says so when no picture can be used', async () => {
    using model = await Siglip2.load(checkpoint);
    const folder = temporaryFolder({ 'captions.jsonl': JSON.stringify({ image: 'missing.png', text: 'a' }) });
    const dataset = await openDataset({ folder, captions: 'captions.jsonl' }, { epochs: 1 });
    await expectSiglipError(() => evaluateRetrieval(model, dataset), 'ERR_SIGLIP_DATA', 'missing.png');
  });

  it('classifies as classify does', async () => {
    using model = await Siglip2.load(checkpoint);
    const pictures = [picture(1000, 20), picture(30_000, 7), picture(60_000, 40), picture(5, 3)];
    const classes = ['cat', 'dog', 'a very long street'];
    const template = ['a {}', 'art of a {}.'];
    const labels = await Promise.all(
      pictures.map(async (image) => classes.indexOf((await model.classify(image, classes, { template }))[1]!.label)),
    );
    const images = pictures.map((image, i) => ({ image, label: labels[i]! }));
    const second = await evaluateZeroShot(model, { classes, images }, { template });
    // Every label is the second best: none is right at 1, all are at 5.
    expect(second).toEqual({ images: 4, classes: 3, accuracy: { 1: 0, 5: 1 }, skipped: 0 });
    const limited = await evaluateZeroShot(model, { classes, images }, { template, limit: 3 });
    expect(limited.images).toBe(3);
  });
});
