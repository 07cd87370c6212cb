/** The model that comes with the package. */
import { existsSync, readdirSync, statSync } from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { defaultModel, Siglip2 } from '../../lib/index.js';

const folder = path.resolve(import.meta.dirname, '../../examples/emoji');
const files = readdirSync(folder).filter((name) => name.endsWith('.png'));
const names = files.map((file) => file.slice(0, -'.png'.length).replaceAll('-', ' '));

describe.skipIf(!existsSync(path.join(defaultModel, 'config.json')))('the packaged model', () => {
  let model: Siglip2;
  beforeAll(async () => {
    model = await Siglip2.load(defaultModel);
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

  it('finds drawings by their names far more often than chance', async () => {
    const maxPatches = model.config.vision.numPatches;
    const images = await model.embedImages(
      files.map((file) => path.join(folder, file)),
      { maxPatches },
    );
    const { logits } = model.similarity(images, await model.embedTexts(names));
    const count = files.length;
    // The place of each picture among all, by its own name.
    const among = names.map((_, own) => {
      const logit = logits[own * count + own] as number;
      let better = 0;
      for (let image = 0; image < count; image++) if ((logits[image * count + own] as number) > logit) better++;
      return better;
    });
    const recall = among.filter((better) => better < 10).length / count;
    expect(recall, `recall among the first 10; by chance ${(10 / count).toFixed(3)}`).toBeGreaterThan(0.15);
  });
});
