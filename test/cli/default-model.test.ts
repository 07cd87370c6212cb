/** The model that comes with the package: found by the API and by the commands. */
import { spawnSync } from 'node:child_process';
import { cpSync, realpathSync, symlinkSync } from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { expect, it } from 'vitest';
import { Siglip2 } from '../../lib/index.js';
import { Trainer } from '../../lib/training/index.js';
import { checkpoint, documentOf, images, packageWith, siglip2 } from '../support/command-line.js';
import { temporaryFolder } from '../support/folders.js';

const coffee = path.join(images, '13_photo_coffee_240x240.png');
const notice = 'note: using the packaged emoji model; for photographs: --model google/siglip2-base-patch16-naflex\n';

/** Makes a checkpoint that is meant for 64 patches, with random weights. */
async function makeModelOf64Patches(folder: string): Promise<void> {
  using model = await Siglip2.load(checkpoint);
  const { json: _, ...config } = model.config;
  const small = { ...config, vision: { ...config.vision, numPatches: 64 } };
  using trainer = await Trainer.create(small, { seed: 1, tokenizer: checkpoint });
  await trainer.saveModel(folder);
}

it('is found by programs, in both module systems', () => {
  const packageRoot = packageWith(checkpoint);
  const expected = path.join(realpathSync(packageRoot), 'models', 'siglip2-emoji');
  const print = 'console.log(defaultModel)';
  for (const [type, program] of [
    ['module', `import { defaultModel } from ${JSON.stringify(`${packageRoot}/dist/esm/index.js`)};${print}`],
    ['commonjs', `const { defaultModel } = require(${JSON.stringify(`${packageRoot}/dist/cjs/index.js`)});${print}`],
  ])
    expect(
      spawnSync(process.execPath, [`--input-type=${type}`, '-e', program as string], { encoding: 'utf8' }),
    ).toMatchObject({
      stdout: `${expected}\n`,
      status: 0,
    });
});

it.each([
  ['search', ['a cat', '--in', coffee]],
  ['classify', [coffee, '--labels', 'a,b']],
  ['embed', [coffee, '--out', 'o.npy']],
])('is what %s uses when no model is named, and says', async (command, operands) => {
  const packageRoot = packageWith(checkpoint);
  const cwd = temporaryFolder();
  const text = await siglip2([command, ...operands], { packageRoot, cwd });
  expect(text.code).toBe(0);
  expect(text.stderr).toContain(notice);
  const quiet = await siglip2([command, ...operands, '--quiet', '--json'], { packageRoot, cwd });
  expect(quiet.stderr).toBe('');
  expect(documentOf<{ model: string }>(quiet).model).toBe(
    path.join(realpathSync(packageRoot), 'models', 'siglip2-emoji'),
  );
  const named = await siglip2([command, ...operands, '--model', checkpoint], { packageRoot, cwd });
  expect(named.code).toBe(0);
  expect(named.stderr).not.toContain('packaged');
});

it('is asked without "This is a photo of"', async () => {
  const packageRoot = packageWith(checkpoint);
  const operands = ['classify', coffee, '--labels', 'a,b', '--json'];
  const templates = async (...options: string[]) =>
    documentOf<{ templates: string[] }>(await siglip2([...operands, ...options], { packageRoot })).templates;
  expect(await templates()).toEqual(['{}']);
  const folder = path.join(realpathSync(packageRoot), 'models', 'siglip2-emoji');
  const link = path.join(temporaryFolder(), 'link');
  symlinkSync(folder, link);
  for (const name of [folder, `${folder}/`, link, pathToFileURL(folder).href])
    expect(await templates('--model', name), name).toEqual(['{}']);
  expect(await templates('--template', 'the {}')).toEqual(['the {}']);
  // The same checkpoint in another folder is another model.
  const other = path.join(temporaryFolder(), 'other');
  cpSync(checkpoint, other, { recursive: true });
  expect(await templates('--model', other)).toEqual(['This is a photo of {}.']);
});

it('finds what the examples of the help look for', async () => {
  const helps = await Promise.all([['--help'], ['search', '--help']].map((operands) => siglip2(operands)));
  const examples = helps.map(({ stdout }) => /^ {2}siglip2 search (.*) --in emoji$/m.exec(stdout)?.[1] ?? '');
  const queries = examples.flatMap((example) => [...example.matchAll(/"(.*?)"/g)].map((match) => match[1] as string));
  const result = await siglip2(['search', ...queries, '--in', 'emoji', '--top', '1', '--json'], {
    cwd: path.resolve(import.meta.dirname, '../../examples'),
  });
  const found = documentOf<{ queries: { text: string; results: { path: string }[] }[] }>(result).queries;
  expect(found.map(({ text, results }) => [text, results[0]?.path])).toEqual([
    ['guitarra', 'emoji/guitar.png'],
    ['ピザ', 'emoji/pizza.png'],
    ['angry face', 'emoji/angry-face.png'],
    ['rocket', 'emoji/rocket.png'],
  ]);
});

it('is missed with a clear error', async () => {
  const packageRoot = packageWith();
  const result = await siglip2(['search', 'a cat', '--in', coffee], { packageRoot });
  expect(result).toMatchObject({ code: 1, stdout: '' });
  expect(result.stderr).toMatch(
    /^error ERR_SIGLIP_CHECKPOINT: the model that comes with the package is not at ".*\/models\/siglip2-emoji": install the package again/,
  );
  expect(result.stderr).toMatch(/\ntry: --model takes a folder .*\n$/);
});

it('has as many patches an image as a model is meant for, unless told otherwise', async () => {
  const folder = path.join(temporaryFolder(), 'model');
  await makeModelOf64Patches(folder);
  using model = await Siglip2.load(folder);
  expect(model.config.vision.numPatches).toBe(64);
  const logits = async (maxPatches: number) =>
    (await model.classify(coffee, ['a'], { maxPatches })).map((entry) => entry.logit);
  expect(await logits(64)).not.toEqual(await logits(256));
  const found = async (...operands: string[]) => {
    const result = await siglip2([...operands, '--json', '--model', folder]);
    return documentOf<{ images?: { labels: { logit: number }[] }[]; queries?: { results: { logit: number }[] }[] }>(
      result,
    );
  };
  const classify = ['classify', coffee, '--labels', 'a'];
  const logitOf = async (...options: string[]) => [
    (await found(...classify, ...options)).images?.[0]?.labels[0]?.logit,
  ];
  expect(await logitOf()).toEqual(await logits(64));
  expect(await logitOf('--max-patches', '256')).toEqual(await logits(256));
  const { queries } = await found('search', 'This is a photo of a.', '--in', coffee);
  expect(queries?.[0]?.results.map(({ logit }) => logit)).toEqual(await logits(64));
});
