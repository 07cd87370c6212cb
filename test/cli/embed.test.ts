/** `siglip2 embed`: files of embeddings. */
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { checkOutput, writeEmbeddings } from '../../lib/cli/npy.js';
import { Siglip2 } from '../../lib/index.js';
import { fingerprint } from '../../lib/model/fingerprint.js';
import { builtFile, checkpoint, checkpointWithNaN, documentOf, images, siglip2 } from '../support/command-line.js';
import { temporaryFolder } from '../support/folders.js';

let model: Siglip2;
beforeAll(async () => {
  model = await Siglip2.load(checkpoint);
});
afterAll(() => model.dispose());

const withModel = ['--model', checkpoint];
const files = readdirSync(images).sort();
const picture = (name: string) => path.join(images, name);

/** A reader of `.npy` of the tests' own. */
function readNpy(file: string): { shape: number[]; values: Float32Array } {
  const content = readFileSync(file);
  expect(content.toString('latin1', 0, 8)).toBe('\u0093NUMPY\u0001\u0000');
  const start = 10 + content.readUInt16LE(8);
  expect(start % 64).toBe(0);
  const header = content.toString('latin1', 10, start);
  expect(header).toMatch(/^\{'descr': '<f4', 'fortran_order': False, 'shape': \(\d+, \d+\), \} *\n$/);
  const shape = [...header.matchAll(/(\d+)[,)]/g)].map((match) => Number(match[1]));
  const values = new Float32Array(
    content.buffer.slice(content.byteOffset + start, content.byteOffset + content.length),
  );
  expect(values.length).toBe((shape[0] as number) * (shape[1] as number));
  return { shape, values };
}

function readLines<T>(file: string): T[] {
  const text = readFileSync(file, 'utf8');
  expect(text.endsWith('\n')).toBe(true);
  const lines = text.slice(0, -1).split('\n');
  return lines.map((line) => JSON.parse(line) as T);
}

describe('a folder of images', () => {
  it('becomes a matrix with the numbers of the API, and a file that names its rows', async () => {
    const folder = temporaryFolder();
    const out = path.join(folder, 'a.npy');
    const result = await siglip2(['embed', images, '--out', out, '--batch-size', '4', ...withModel]);
    expect(result.code).toBe(0);
    expect(result.stdout).toContain('float32 [14, 128]');
    expect(result.stderr).toBe(`note: ${readFileSync(path.join(checkpoint, 'RANDOM_WEIGHTS'), 'utf8')}`);
    const { shape, values } = readNpy(out);
    expect(shape).toEqual([14, 128]);
    expect(values).toEqual((await model.embedImages(files.map(picture))).data);
    expect(readLines(path.join(folder, 'a.items.jsonl'))).toEqual(
      files.map((name, row) => ({ row, path: picture(name) })),
    );
    expect(readdirSync(folder).sort()).toEqual(['a.items.jsonl', 'a.npy', 'a.npy.origin.json']);
    expect(JSON.parse(readFileSync(path.join(folder, 'a.npy.origin.json'), 'utf8'))).toEqual({
      model: checkpoint,
      fingerprint: await fingerprint(checkpoint),
      dtype: model.dtype,
      kind: 'images',
    });
  });

  it('becomes lines that give back every float32, unnormalised and of fewer patches when asked to', async () => {
    const out = path.join(temporaryFolder(), 'a.jsonl');
    const options = ['--no-normalize', '--max-patches', '64', '--json'];
    const result = await siglip2(['embed', images, '--out', out, ...options, ...withModel]);
    expect(documentOf(result)).toMatchObject({
      file: out,
      origin: `${out}.origin.json`,
      kind: 'images',
      shape: [14, 128],
      skipped: [],
      device: 'cpu',
      notice: expect.stringContaining('random'),
    });
    const lines = readLines<{ path: string; embedding: number[] }>(out);
    expect(lines.map((line) => path.basename(line.path))).toEqual(files);
    const expected = await model.embedImages(files.map(picture), { normalize: false, maxPatches: 64 });
    expect(Float32Array.from(lines.flatMap((line) => line.embedding))).toEqual(expected.data);
  });

  it('is searched for extensions, in order, without hidden files, and deeper only when asked to', async () => {
    const folder = temporaryFolder({ 'b/notes.txt': 'x', 'b/.hidden.png': 'x', '.cache/x.png': 'x' });
    for (const name of ['b/Z.PNG', 'b/a.png', 'a.jpeg', 'data:x.png'])
      cpSync(picture('13_photo_coffee_240x240.png'), path.join(folder, name));
    const found = async (...options: string[]) => {
      const result = await siglip2(['embed', '.', '--out', 'o.npy', ...options, ...withModel], { cwd: folder });
      expect(result.stderr.replace(/^note: .*\n/, '')).toBe('');
      return readLines<{ path: string }>(path.join(folder, 'o.items.jsonl')).map((line) => line.path);
    };
    expect(await found()).toEqual(['a.jpeg', 'data:x.png']);
    expect(await found('--recursive')).toEqual(['a.jpeg', 'b/Z.PNG', 'b/a.png', 'data:x.png']);
  });
});

describe('images that cannot be read', () => {
  it('are reported and skipped; the rest is kept and the exit code is 1', async () => {
    const folder = temporaryFolder({ 'broken.png': 'no image', 'empty.jpg': '' });
    const truncated = readFileSync(picture('13_photo_coffee_240x240.png')).subarray(0, 20_000);
    writeFileSync(path.join(folder, 'truncated.png'), truncated);
    const good = ['02_rgb_17x31.png', '08_gray_200x150.png', '12_photo_chelsea_300x240.png'].map(picture);
    const out = path.join(folder, 'o.npy');
    const operands = [good[0] as string, folder, good[1] as string, 'nothing.png', good[2] as string];
    const result = await siglip2(['embed', ...operands, '--out', out, '--batch-size', '4', '--json', ...withModel]);
    expect(result.code).toBe(1);
    const { skipped, shape } = documentOf<{ skipped: { path: string; code: string }[]; shape: number[] }>(result);
    expect(shape).toEqual([3, 128]);
    expect(skipped.map(({ path: name, code }) => [path.basename(name), code])).toEqual(
      ['broken.png', 'empty.jpg', 'truncated.png', 'nothing.png'].map((name) => [name, 'ERR_SIGLIP_IMAGE']),
    );
    expect(result.stderr).toContain('skipped nothing.png: cannot be read: no such file or directory\n');
    expect(result.stderr).toContain(`skipped ${path.join(folder, 'empty.jpg')}: the picture is empty (0 bytes)\n`);
    expect(readNpy(out).values).toEqual((await model.embedImages(good)).data);
    expect(readLines(path.join(folder, 'o.items.jsonl'))).toEqual(good.map((name, row) => ({ row, path: name })));
  });

  it('leave no file, and an older one untouched, when there are no others', async () => {
    const folder = temporaryFolder({ 'broken.png': 'no image', 'o.npy': 'older', 'o.items.jsonl': 'older' });
    const result = await siglip2(['embed', 'broken.png', 'also.png', '--out', 'o.npy', ...withModel], { cwd: folder });
    expect(result.code).toBe(1);
    expect(result.stderr).toContain(
      'error ERR_SIGLIP_IMAGE: 0 of 2 images could be embedded, so o.npy was not written\ntry: ',
    );
    expect(readdirSync(folder).sort()).toEqual(['broken.png', 'o.items.jsonl', 'o.npy']);
    for (const name of ['o.npy', 'o.items.jsonl']) expect(readFileSync(path.join(folder, name), 'utf8')).toBe('older');
  });
});

it('embeds the texts of the command line and then the lines of a file', async () => {
  const folder = temporaryFolder({ 'texts.txt': '\ufeffa cat\r\n\r\nein Hund\r\n' });
  const operands = ['--text', 'first, with a comma', '--texts', 'texts.txt', '--out', 't.npy', '--batch-size', '3'];
  const result = await siglip2(['embed', ...operands, '--quiet', ...withModel], { cwd: folder });
  expect(result).toEqual({ code: 0, signal: null, stdout: '', stderr: '' });
  const texts = ['first, with a comma', 'a cat', '', 'ein Hund'];
  expect(readNpy(path.join(folder, 't.npy')).values).toEqual((await model.embedTexts(texts)).data);
  expect(readLines(path.join(folder, 't.items.jsonl'))).toEqual(texts.map((text, row) => ({ row, text })));
});

it('writes no embedding that holds NaN', async () => {
  const folder = temporaryFolder();
  const broken = checkpointWithNaN('vision_model.post_layernorm.bias');
  const operands = [picture('02_rgb_17x31.png'), '--out', path.join(folder, 'o.npy'), '--model', broken];
  const result = await siglip2(['embed', ...operands]);
  expect(result.code).toBe(1);
  expect(result.stderr).toContain('02_rgb_17x31.png: the embedding holds NaN');
  expect(result.stderr).toContain('error ERR_SIGLIP_CHECKPOINT: 0 of 1 image could be embedded');
  expect(readdirSync(folder)).toEqual([]);
});

describe('an interruption', () => {
  it.each([
    ['SIGINT', 1, 130],
    ['SIGINT', 2, 130],
    ['SIGTERM', 1, 143],
  ] as const)('by %s, %i time(s), leaves no part of a file', async (signal, times, code) => {
    const folder = temporaryFolder({ 'out/o.npy': 'older' });
    mkdirSync(path.join(folder, 'in'));
    for (let i = 0; i < 1000; i++) symlinkSync(picture('06_rgb_1024x768.png'), path.join(folder, 'in', `${i}.png`));
    const out = path.join(folder, 'out');
    let seen: string[] = [];
    const result = await siglip2(['embed', path.join(folder, 'in'), '--out', path.join(out, 'o.npy'), ...withModel], {
      onStart: async (child) => {
        while (readdirSync(out).length < 4 && child.exitCode === null) await sleep(20);
        await sleep(200);
        seen = readdirSync(out);
        for (let i = 0; i < times; i++) {
          child.kill(signal);
          await sleep(1);
        }
      },
    });
    expect(seen.length, 'files while it works').toBe(4);
    expect([result.code, result.signal]).toEqual([code, null]);
    expect(result.stdout).toBe('');
    expect(readdirSync(out)).toEqual(['o.npy']);
    expect(readFileSync(path.join(out, 'o.npy'), 'utf8')).toBe('older');
  });
});

it('leaves no part of a file when the process ends at once, as it does at a second signal', () => {
  const folder = temporaryFolder({ '.other.new': 'x' });
  const program = `
    import { writeEmbeddings } from ${JSON.stringify(pathToFileURL(builtFile('cli/npy.js')))};
    const output = { kind: 'npy', file: 'o.npy', items: 'o.items.jsonl', origin: 'o.npy.origin.json' };
    const origin = { model: 'm', fingerprint: 'f', kind: 'texts' };
    await writeEmbeddings(output, { dim: 2, origin }, async (add) => {
      await add([{ item: { text: 'a' }, embedding: new Float32Array(2) }]);
      console.log(readdirSync('.').length);
      process.exit(130);
    });`;
  const result = spawnSync(
    process.execPath,
    ['--input-type=module', '-e', `import { readdirSync } from 'node:fs';${program}`],
    { cwd: folder, encoding: 'utf8' },
  );
  expect(result).toMatchObject({ status: 130, stdout: '4\n', stderr: '' });
  expect(readdirSync(folder)).toEqual(['.other.new']);
});

it('needs no work to find that a file beside the embeddings cannot be written', async () => {
  // Long enough that the name of the origin's file, and it alone, is too long while it is written.
  const file = path.join(temporaryFolder(), `${'x'.repeat(223)}.npy`);
  const output = await checkOutput(file);
  let asked = false;
  const writing = writeEmbeddings(
    output,
    { dim: 2, origin: { model: 'm', fingerprint: 'f', kind: 'texts' } },
    async () => {
      asked = true;
    },
  );
  await expect(writing).rejects.toThrow(`${file} cannot be written: name too long`);
  expect(asked).toBe(false);
});

describe('mistakes', () => {
  it.each([
    [[], 'nothing to embed'],
    [[images, '--text', 'a'], 'images and texts cannot be embedded into one file'],
    [[images, '--out', 'x.txt'], '--out: expected a name that ends in .npy or .jsonl, got "x.txt"'],
    [[images, '--out', 'x.items.jsonl'], '--out: expected another name than one that ends in .items.jsonl'],
    [[images, '--out', 'missing/x.npy'], '--out: there is no folder "missing"'],
    [[images, '--out', 'folder.npy'], '--out: "folder.npy" is a folder'],
    [[images, '--out', 'b.npy'], '--out: "b.items.jsonl", which is written with "b.npy", is a folder'],
    [[images, '--out', 'c.jsonl'], '--out: "c.jsonl.origin.json", which is written with "c.jsonl", is a folder'],
    [['folder.npy'], 'no images in folder.npy'],
    [['--texts', 'empty.txt'], '--texts: "empty.txt" is empty'],
    [['--texts', 'latin1.txt'], '--texts: "latin1.txt" is not valid UTF-8'],
    [[images, '--batch-size', '0'], 'Expected an integer of at least 1'],
  ])('%j: %s', async (operands, message) => {
    const folder = temporaryFolder({ 'empty.txt': '', 'latin1.txt': Buffer.from('Bär', 'latin1') });
    const folders = ['b.items.jsonl', 'c.jsonl.origin.json', 'folder.npy'];
    for (const name of folders) mkdirSync(path.join(folder, name));
    const out = operands.includes('--out') ? [] : ['--out', 'o.npy'];
    const result = await siglip2(['embed', ...operands, ...out, ...withModel], { cwd: folder });
    expect(result.stderr).toContain('error ERR_SIGLIP_USAGE: ');
    expect(result.stderr).toContain(message);
    expect(result.stderr).toMatch(/\ntry: .+\n$/);
    expect(result.code).toBe(2);
    expect(readdirSync(folder).sort()).toEqual([...folders, 'empty.txt', 'latin1.txt'].sort());
  });
});
