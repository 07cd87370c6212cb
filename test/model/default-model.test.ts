/** The model that comes with the package. */
import { readdirSync, statSync } from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { defaultModel, Siglip2 } from '../../lib/index.js';

const folder = path.resolve(import.meta.dirname, '../../examples/emoji');
const files = readdirSync(folder).filter((name) => name.endsWith('.png'));
const names = files.map((file) => file.slice(0, -'.png'.length).replaceAll('-', ' '));

describe('the packaged model', () => {
  let model: Siglip2;
  let exact: Awaited<ReturnType<typeof search>>;
  beforeAll(async () => {
    model = await Siglip2.load(defaultModel, { dtype: 'float32' });
    exact = await search(model);
  });
  afterAll(() => model?.dispose());

  it('is small, complete and described', () => {
    const present = readdirSync(defaultModel);
    for (const name of ['README.md', 'config.json', 'preprocessor_config.json', 'tokenizer.json', 'model.safetensors'])
      expect(present).toContain(name);
    const bytes = present.reduce((sum, name) => sum + statSync(path.join(defaultModel, name)).size, 0);
    expect(bytes).toBeLessThan(25e6);
    expect(model.notices).toEqual([]);
    expect(model.config.architecture).toBe('naflex');
  });

  const paths = files.map((file) => path.join(folder, file));

  /** The pictures' embeddings, and the recalls that npm run eval:emoji reports, by own names: at 1, 5 and 10, both ways. */
  async function search(model: Siglip2) {
    const images = await model.embedImages(paths, { maxPatches: model.config.vision.numPatches });
    const { logits } = model.similarity(images, await model.embedTexts(names));
    const count = files.length;
    const all = Array.from(files.keys());
    const logit = (image: number, text: number) => logits[image * count + text] as number;
    const better = {
      'text → image': all.map((own) => all.filter((image) => logit(image, own) > logit(own, own)).length),
      'image → text': all.map((own) => all.filter((text) => logit(own, text) > logit(own, own)).length),
    };
    const recall = (way: keyof typeof better, first: number) =>
      better[way].filter((others) => others < first).length / count;
    const recalls = [1, 5, 10].flatMap((first) => [recall('text → image', first), recall('image → text', first)]);
    return { images, first10: recall('text → image', 10), mean: recalls.reduce((sum, each) => sum + each) / 6 };
  }

  it('finds drawings by their names far more often than chance', () => {
    expect(exact.first10, `recall at 10; by chance ${(10 / files.length).toFixed(3)}`).toBeGreaterThan(0.8);
  });

  it.each([
    ['bfloat16', 0.9995],
    ['int8', 0.995],
  ] as const)('finds as much in %s', async (dtype, leastCosine) => {
    using other = await Siglip2.load(defaultModel, { dtype });
    const rounded = await search(other);
    expect(Math.abs(rounded.mean - exact.mean)).toBeLessThanOrEqual(0.01);
    for (let image = 0; image < files.length; image++) {
      const row = rounded.images.row(image);
      const cosine = exact.images.row(image).reduce((sum, value, i) => sum + value * (row[i] as number), 0);
      expect(cosine, names[image]).toBeGreaterThan(leastCosine);
    }
  });
});
