/** `siglip2 classify`: tables and documents of probabilities. */
import path from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { Siglip2 } from '../../lib/index.js';
import { checkpoint, checkpointWithNaN, documentOf, images, siglip2 } from '../support/command-line.js';
import { temporaryFolder } from '../support/folders.js';

let model: Siglip2;
beforeAll(async () => {
  model = await Siglip2.load(checkpoint);
});
afterAll(() => model.dispose());

const chelsea = path.join(images, '12_photo_chelsea_300x240.png');
const coffee = path.join(images, '13_photo_coffee_240x240.png');
const labels = ['a cat', 'a cup of coffee', 'a mountain'];
const withModel = ['--model', checkpoint];

interface Document {
  notice: string;
  failed: number;
  images: {
    path: string;
    labels?: { label: string; probability: number; logit: number }[];
    error?: { code: string };
  }[];
}

it('gives what the API gives, as a document', async () => {
  const result = await siglip2(['classify', chelsea, coffee, '--labels', labels.join(' , '), '--json', ...withModel]);
  expect(result.code).toBe(0);
  const document = documentOf<Document>(result);
  expect(document.notice).toContain('random');
  expect(document.failed).toBe(0);
  expect(document.images).toEqual([
    { path: chelsea, labels: await model.classify(chelsea, labels) },
    { path: coffee, labels: await model.classify(coffee, labels) },
  ]);
});

it('averages templates, limits patches and takes labels from a file, with commas', async () => {
  const folder = temporaryFolder({ 'labels.txt': '\ufeffcat, asleep\r\n\r\n  Hund \n' });
  const templates = ['a {}.', '{} and {}'];
  const options = [...templates.flatMap((text) => ['--template', text]), '--max-patches', '64', '--top', '2'];
  const operands = [chelsea, '--labels', 'bird', '--labels-file', path.join(folder, 'labels.txt'), ...options];
  const { images: found } = documentOf<Document>(await siglip2(['classify', ...operands, '--json', ...withModel]));
  const expected = await model.classify(chelsea, ['bird', 'cat, asleep', 'Hund'], {
    template: templates,
    maxPatches: 64,
  });
  expect(found).toEqual([{ path: chelsea, labels: expected.slice(0, 2) }]);
});

it('prints a table without colours where there is no terminal, best label first', async () => {
  const result = await siglip2(['classify', coffee, '--labels', labels.join(','), ...withModel]);
  expect(result.stderr).toMatch(/^note: The weights of this checkpoint are random/);
  const expected = await model.classify(coffee, labels);
  const [title, ...rows] = result.stdout.trimEnd().split('\n');
  expect(title).toBe(coffee);
  expect(rows).toEqual(
    expected.map(({ label, logit }) => `  ${'░'.repeat(20)}  <0.001 %  logit ${logit.toFixed(2)}  ${label}`),
  );
  const ascii = await siglip2(['classify', coffee, '--labels', 'a', '--quiet', ...withModel], { env: { LANG: 'C' } });
  expect(ascii.stdout).toContain(`  ${'.'.repeat(20)}  `);
  expect(ascii.stderr).toBe('');
});

it('reports images that cannot be read, classifies the others, and exits with 1', async () => {
  const operands = ['missing.png', chelsea, 'ftp://example.org/x.png', '--labels', 'cat'];
  const text = await siglip2(['classify', ...operands, ...withModel]);
  expect(text.code).toBe(1);
  expect(text.stdout).toMatch(/^\S+chelsea_300x240.png\n.* cat\n\n$/);
  expect(text.stderr).toContain('skipped missing.png: cannot be read: no such file or directory\n');
  const json = await siglip2(['classify', ...operands, '--json', ...withModel]);
  expect(json.code).toBe(1);
  const document = documentOf<Document>(json);
  expect(document.failed).toBe(2);
  expect(document.images.map(({ path: name, error }) => [name, error?.code])).toEqual([
    ['missing.png', 'ERR_SIGLIP_IMAGE'],
    [chelsea, undefined],
    ['ftp://example.org/x.png', 'ERR_SIGLIP_IMAGE'],
  ]);
});

it.each([
  ['vision_model.post_layernorm.bias', 'chelsea_300x240.png: the embedding holds NaN'],
  [
    'text_model.final_layer_norm.bias',
    'error ERR_SIGLIP_CHECKPOINT: the labels cannot be used: the embedding holds NaN',
  ],
])('gives no probabilities when %s holds NaN', async (tensor, message) => {
  const result = await siglip2(['classify', chelsea, '--labels', 'cat', '--model', checkpointWithNaN(tensor)]);
  expect(result.stdout).toBe('');
  expect(result.stderr).toContain(message);
  expect(result.code).toBe(1);
});

it('ends quietly when nobody reads on', async () => {
  const operands = [...new Array<string>(200).fill(coffee), '--labels', 'cat', ...withModel];
  let printed = '';
  const started = Date.now();
  const result = await siglip2(['classify', ...operands], {
    onStart: (child) =>
      child.stdout?.once('data', (text: string) => {
        printed = text;
        child.stdout?.destroy();
      }),
  });
  expect(printed).toContain('coffee');
  expect(result.stderr).toMatch(/^note: .*\n$/);
  expect(result.code).toBe(0);
  expect(Date.now() - started, 'milliseconds; all 200 images take longer').toBeLessThan(30_000);
});

it('refuses a file of labels that is not UTF-8', async () => {
  const cwd = temporaryFolder({ 'labels.txt': Buffer.from('Katze\nBär\n', 'latin1') });
  const result = await siglip2(['classify', coffee, '--labels-file', 'labels.txt', ...withModel], { cwd });
  expect(result).toMatchObject({ code: 2, stdout: '' });
  expect(result.stderr).toContain('error ERR_SIGLIP_USAGE: --labels-file: "labels.txt" is not valid UTF-8\n');
});

it.each([
  [['--labels', ' , '], 'no labels are given'],
  [['--labels', 'a', '--template', 'a photo'], '--template: expected a text with {} for the label, got "a photo"'],
  [['--labels', 'a', '--top', '0'], 'Expected an integer of at least 1'],
  [['--labels', 'a', '--device', 'tpu'], '--device: expected '],
])('refuses %j', async (options, message) => {
  const result = await siglip2(['classify', coffee, ...options, ...withModel]);
  expect(result.code).toBe(2);
  expect(result.stderr).toContain('error ERR_SIGLIP_USAGE: ');
  expect(result.stderr).toContain(message);
});
