/** `siglip2 search`: what is found, in which order, and where. */
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Best } from '../../lib/cli/best.js';
import { type Embeddings, Siglip2 } from '../../lib/index.js';
import { checkpoint, checkpointWithNaN, documentOf, images, siglip2 } from '../support/command-line.js';
import { temporaryFolder } from '../support/folders.js';
import { checkpointFolder } from '../support/golden.js';
import { Random, runSeed } from '../support/random.js';

interface Result {
  path: string;
  probability?: number;
  logit?: number;
  similarity?: number;
}
interface Document {
  searched: number;
  templates: string[];
  skipped: { path: string; code: string }[];
  queries: { text?: string; image?: string; results: Result[] }[];
}

const withModel = ['--model', checkpoint];
const files = readdirSync(images)
  .sort()
  .map((name) => path.join(images, name));
const texts = ['a cat', 'ein Hund', '鳥'];

let model: Siglip2;
let embedded: Embeddings;
beforeAll(async () => {
  model = await Siglip2.load(checkpoint);
  embedded = await model.embedImages(files);
});
afterAll(() => model.dispose());

/** What the API says a text finds among all images, best first. */
async function expectedFor(text: string, from = embedded, names = files): Promise<Result[]> {
  const { logits, probabilities } = model.similarity(from, await model.embedTexts(text));
  return names
    .map((name, i) => ({ path: name, probability: probabilities[i] as number, logit: logits[i] as number }))
    .sort((a, b) => b.logit - a.logit);
}

describe('texts', () => {
  it('find images of a folder as the API does, each for itself', async () => {
    const result = await siglip2(['search', ...texts, '--in', images, '--top', '4', '--json', ...withModel]);
    expect(result.code).toBe(0);
    const document = documentOf<Document>(result);
    expect(document).toMatchObject({ model: checkpoint, searched: 14, templates: ['{}'], skipped: [] });
    expect(document.queries.map(({ text }) => text)).toEqual(texts);
    for (const { text, results } of document.queries)
      expect(results).toEqual((await expectedFor(text as string)).slice(0, 4));
  });

  it('may have templates, whose embeddings are averaged, and five results unless told otherwise', async () => {
    const templates = ['a {}', '{} and {}'];
    const operands = ['cat', '--in', images, ...templates.flatMap((text) => ['--template', text])];
    const { queries } = documentOf<Document>(await siglip2(['search', ...operands, '--json', ...withModel]));
    const [first, second] = [await model.embedTexts('a cat'), await model.embedTexts('cat and cat')];
    const mean = first.data.map((value, i) => (value + (second.data[i] as number)) / 2);
    const { logits } = model.similarity(embedded, { data: mean, shape: [1, mean.length], row: () => mean });
    const expected = [...logits].sort((a, b) => b - a).slice(0, 5);
    expect(queries[0]?.results).toHaveLength(5);
    queries[0]?.results.forEach(({ logit }, i) => {
      expect(logit).toBeCloseTo(expected[i] as number, 3);
    });
  });

  it('are printed with ranks, probabilities and paths', async () => {
    const result = await siglip2(['search', 'a cat', '--in', images, '--top', '2', ...withModel]);
    const expected = await expectedFor('a cat');
    const [title, ...rows] = result.stdout.split('\n');
    expect(title).toBe('a cat');
    expect(rows).toEqual([
      ...expected
        .slice(0, 2)
        .map(
          ({ logit, path: name }, i) => `  ${i + 1}  ${'░'.repeat(20)}  <0.001 %  logit ${logit?.toFixed(2)}  ${name}`,
        ),
      '',
      '',
    ]);
    expect(result.stderr).toMatch(/^note: The weights .*\nnote: 14 images searched in [^\n]+\n$/);
    const quiet = await siglip2(['search', 'a cat', '--in', images, '--top', '2', '--quiet', ...withModel]);
    expect(quiet).toEqual({ ...result, stderr: '' });
  });
});

describe('images', () => {
  it('find what resembles them, themselves first, beside texts', async () => {
    const query = files[12] as string;
    const operands = ['a cat', '--image', query, '--in', images, '--top', '20'];
    const { queries } = documentOf<Document>(await siglip2(['search', ...operands, '--json', ...withModel]));
    expect(queries.map(({ text, image }) => [text, image])).toEqual([
      ['a cat', undefined],
      [undefined, query],
    ]);
    const cosines = files.map((name, i) => ({
      path: name,
      cosine: embedded.row(i).reduce((sum, value, at) => sum + value * (embedded.row(12)[at] as number), 0),
    }));
    cosines.sort((a, b) => b.cosine - a.cosine);
    expect(queries[1]?.results.map((result) => result.path)).toEqual(cosines.map((entry) => entry.path));
    queries[1]?.results.forEach(({ similarity, probability }, i) => {
      expect(similarity).toBeCloseTo(cosines[i]?.cosine as number, 5);
      expect(probability).toBeUndefined();
    });
    const text = await siglip2(['search', ...operands.slice(1), ...withModel]);
    expect(text.stdout).toContain(`like ${query}\n   1  ${'█'.repeat(20)}  cosine 1.000  ${query}\n   2  `);
  });

  it('that cannot be read are an error when they are what is looked for', async () => {
    const result = await siglip2(['search', '--image', 'missing.png', '--in', images, ...withModel]);
    expect(result).toMatchObject({ code: 1, stdout: '' });
    expect(result.stderr).toContain('error ERR_SIGLIP_IMAGE: --image: missing.png: cannot be read: no such file');
  });

  it('that cannot be read are skipped where they would have been searched, and the exit code is 1', async () => {
    const folder = temporaryFolder({ 'broken.png': 'no image' });
    cpSync(files[3] as string, path.join(folder, 'good.png'));
    const result = await siglip2(['search', 'a cat', '--in', folder, '--json', ...withModel]);
    expect(result.code).toBe(1);
    const { skipped, searched, queries } = documentOf<Document>(result);
    expect(searched).toBe(1);
    expect(skipped.map(({ path: name, code }) => [path.basename(name), code])).toEqual([
      ['broken.png', 'ERR_SIGLIP_IMAGE'],
    ]);
    expect(queries[0]?.results.map((entry) => path.basename(entry.path))).toEqual(['good.png']);
    expect(result.stderr).toContain(`skipped ${path.join(folder, 'broken.png')}: `);
    rmSync(path.join(folder, 'good.png'));
    const none = await siglip2(['search', 'a cat', '--in', folder, ...withModel]);
    expect(none).toMatchObject({ code: 1, stdout: '' });
    expect(none.stderr).toContain('error ERR_SIGLIP_IMAGE: there is no image to search in');
  });
});

describe('an index', () => {
  it('gives what its images give, in both forms, and together with images', async () => {
    const folder = temporaryFolder();
    const [matrix, lines] = [path.join(folder, 'a.npy'), path.join(folder, 'b.jsonl')];
    const [first, second, third] = [files.slice(0, 5), files.slice(5, 9), files.slice(9)];
    await siglip2(['embed', ...first, '--out', matrix, ...withModel]);
    await siglip2(['embed', ...second, '--no-normalize', '--out', lines, ...withModel]);
    const places = [matrix, lines, ...third].flatMap((place) => ['--in', place]);
    const result = await siglip2(['search', 'a cat', ...places, '--top', '99', '--json', ...withModel]);
    expect(result.code).toBe(0);
    const { queries, searched } = documentOf<Document>(result);
    expect(searched).toBe(14);
    const expected = await expectedFor('a cat');
    expect(queries[0]?.results.map((entry) => entry.path)).toEqual(expected.map((entry) => entry.path));
    queries[0]?.results.forEach(({ logit }, i) => {
      expect(logit).toBeCloseTo(expected[i]?.logit as number, 3);
    });
  });

  it('of another model is refused, whatever that is called; without its origin it is used with a note', async () => {
    const folder = temporaryFolder();
    const index = path.join(folder, 'a.npy');
    await siglip2(['embed', images, '--out', index, ...withModel]);
    const search = (name: string) => siglip2(['search', 'a cat', '--in', index, '--model', name]);
    const copy = path.join(folder, 'copy');
    cpSync(checkpoint, copy, { recursive: true });
    expect(await search(copy)).toMatchObject({ code: 0 });

    const changed = checkpointWithNaN('vision_model.head.probe');
    const refused = await search(changed);
    expect(refused).toMatchObject({ code: 1, stdout: '' });
    expect(refused.stderr).toContain(
      `error ERR_SIGLIP_DATA: ${index} was made by another model (${checkpoint}) than the one that searches (${changed})`,
    );
    expect(refused.stderr).toMatch(/\ntry: make the index again with siglip2 embed/);

    rmSync(`${index}.origin.json`);
    const unknown = await search(checkpoint);
    expect(unknown.code).toBe(0);
    expect(unknown.stderr).toContain(`note: ${index}.origin.json is missing`);
    const narrower = await search(checkpointFolder('naflex_hd72'));
    expect(narrower).toMatchObject({ code: 1, stdout: '' });
    expect(narrower.stderr).toMatch(/error ERR_SIGLIP_DATA: .* has embeddings of 128 numbers, and those of the model /);
  });

  it('of texts, or that is not there, is refused before a model is looked for', async () => {
    const folder = temporaryFolder();
    const index = path.join(folder, 'texts.npy');
    await siglip2(['embed', '--text', 'a cat', '--out', index, ...withModel]);
    const result = await siglip2(['search', 'a cat', '--in', index, '--model', 'nothing-here']);
    expect(result.stderr).toContain(`error ERR_SIGLIP_DATA: ${index} holds embeddings of texts`);
    const missing = await siglip2(['search', 'a cat', '--in', 'missing.npy', '--model', 'nothing-here']);
    expect(missing.stderr).toContain('error ENOENT: --in: "missing.npy" cannot be read: no such file or directory\n');
    mkdirSync(path.join(folder, 'folder.jsonl'));
    const other = await siglip2(['search', 'a cat', '--in', 'folder.jsonl', ...withModel], { cwd: folder });
    expect(other).toMatchObject({ code: 2, stdout: '' });
    expect(other.stderr).toContain('--in: "folder.jsonl" is a folder with the name of an index\n');
    expect(other.stderr).toContain('write "folder.jsonl/"\n');
    const items = await siglip2(['search', 'a', '--in', path.join(folder, 'texts.items.jsonl'), ...withModel]);
    expect(items.code).toBe(2);
    expect(items.stderr).toContain('names the rows of a matrix');
  });

  it('needs only the tower of what is looked for', async () => {
    const folder = temporaryFolder();
    const index = path.join(folder, 'a.npy');
    await siglip2(['embed', images, '--out', index, ...withModel]);
    // A tokenizer is part of the text tower.
    const vision = path.join(folder, 'vision');
    cpSync(checkpoint, vision, { recursive: true });
    rmSync(path.join(vision, 'tokenizer.json'));
    const operands = ['--in', index, '--model', vision];
    expect((await siglip2(['search', '--image', files[0] as string, ...operands])).code).toBe(0);
    expect((await siglip2(['search', 'a cat', ...operands])).stderr).toContain('ERR_SIGLIP_TOKENIZER');
  });
});

it('finds nothing with an embedding that holds NaN', async () => {
  const broken = checkpointWithNaN('text_model.final_layer_norm.bias');
  const result = await siglip2(['search', 'a cat', '--in', images, '--model', broken]);
  expect(result).toMatchObject({ code: 1, stdout: '' });
  expect(result.stderr).toContain('error ERR_SIGLIP_CHECKPOINT: the texts cannot be used: the embedding holds NaN');
});

it.each([
  [['--in', images], 'nothing to search for'],
  [['a cat'], "required option '--in <place>' not specified"],
  [['a cat', '--in', images, '--top', '0'], 'Expected an integer of at least 1'],
  [['a cat', '--in', images, '--template', 'x'], '--template: expected a text with {} for the label, got "x"'],
])('refuses %j', async (options, message) => {
  const result = await siglip2(['search', ...options, ...withModel]);
  expect(result.code).toBe(2);
  expect(result.stderr).toContain('error ERR_SIGLIP_USAGE: ');
  expect(result.stderr).toContain(message);
  expect(result.stderr).toMatch(/\ntry: \S.*\n$/);
});

it('keeps the best of many, the earlier of equals', () => {
  const random = new Random(runSeed);
  for (let round = 0; round < 200; round++) {
    const entries = Array.from({ length: random.integer(0, 40) }, (_, at) => ({ at, score: random.integer(-5, 5) }));
    const limit = random.integer(1, 12);
    const best = new Best<(typeof entries)[number]>(limit);
    for (const entry of entries) best.add(entry);
    // Sorting is stable.
    expect(best.entries).toEqual([...entries].sort((a, b) => b.score - a.score).slice(0, limit));
  }
});

it('reads an older index that says nothing of its origin', async () => {
  const folder = temporaryFolder();
  const file = path.join(folder, 'a.jsonl');
  await siglip2(['embed', files[0] as string, '--out', file, ...withModel]);
  const line = JSON.parse(readFileSync(file, 'utf8')) as { path: string };
  rmSync(`${file}.origin.json`);
  writeFileSync(file, `${JSON.stringify({ ...line, path: 'elsewhere.png' })}\n`);
  const { queries } = documentOf<Document>(await siglip2(['search', 'a cat', '--in', file, '--json', ...withModel]));
  expect(queries[0]?.results.map((entry) => entry.path)).toEqual(['elsewhere.png']);
});
