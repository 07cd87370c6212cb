/** The command as a whole: help, versions, mistakes, errors of every kind. */

import { spawnSync } from 'node:child_process';
import { closeSync, openSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { builtFile, checkpoint, documentOf, images, siglip2 } from '../support/command-line.js';
import { temporaryFolder } from '../support/folders.js';

const manifest = JSON.parse(readFileSync(path.join(images, '..', '..', '..', 'package.json'), 'utf8')) as {
  version: string;
};
const commands = ['inspect', 'search', 'classify', 'embed', 'download'];
const coffee = path.join(images, '13_photo_coffee_240x240.png');

it('knows its version', async () => {
  expect(await siglip2(['--version'])).toMatchObject({ code: 0, stdout: `${manifest.version}\n`, stderr: '' });
});

it('explains itself and every command, with examples', async () => {
  const { stdout, code } = await siglip2(['--help']);
  expect(code).toBe(0);
  for (const command of commands) expect(stdout).toMatch(new RegExp(`^ {2}${command} `, 'm'));
  for (const command of commands) {
    const help = await siglip2([command, '--help']);
    expect(help).toMatchObject({ code: 0, stderr: '' });
    expect(help.stdout).toContain(`Examples:\n  siglip2 ${command}`);
    for (const option of ['--model', '--device', '--dtype', '--threads', '--json', '--quiet'])
      expect(help.stdout).toContain(`  ${option} `);
  }
  // Its model is named in a configuration.
  expect(stdout).toMatch(/^ {2}train /m);
  const train = await siglip2(['train', '--help']);
  expect(train).toMatchObject({ code: 0, stderr: '' });
  for (const option of ['--out', '--resume', '--steps', '--device', '--threads', '--json', '--quiet'])
    expect(train.stdout).toContain(`  ${option} `);
  expect(train.stdout).not.toContain('--model');
});

it('shows the help of a command', async () => {
  const help = await siglip2(['help', 'classify']);
  expect(help).toEqual(await siglip2(['classify', '--help']));
  expect(await siglip2(['help'])).toEqual(await siglip2(['--help']));
});

it('shows its help, as a mistake, when it is called without a command', async () => {
  const result = await siglip2([]);
  expect(result).toMatchObject({ code: 2, stdout: '' });
  expect(result.stderr).toContain('Usage: siglip2');
});

describe('mistakes', () => {
  it.each([
    [['find'], "unknown command 'find'", 'siglip2 --help'],
    [['emebd'], "unknown command 'emebd' (Did you mean embed?)", 'siglip2 --help'],
    [['help', 'clasify'], "unknown command 'clasify' (Did you mean classify?)", 'siglip2 --help'],
    [['classify'], "missing required argument 'images'", 'siglip2 classify --help'],
    [['embed', 'x.png'], "required option '--out <file>' not specified", 'siglip2 embed --help'],
    [['inspect', '--modle', 'x'], "unknown option '--modle' (Did you mean --model?)", 'siglip2 inspect --help'],
    [['inspect', '--threads', '1.5'], 'Expected an integer from 1 to 1024.', 'siglip2 inspect --help'],
  ])('%j: %s', async (operands, message, remedy) => {
    const text = await siglip2(operands);
    expect(text).toMatchObject({ code: 2, stdout: '' });
    const [first, second, ...rest] = text.stderr.split('\n');
    expect(first).toMatch(/^error ERR_SIGLIP_USAGE: /);
    expect(first).toContain(message);
    expect(second).toMatch(/^try: /);
    expect(second).toContain(remedy);
    expect(rest).toEqual(['']);
    const json = await siglip2([...operands, '--json']);
    expect(json).toMatchObject({ code: 2, stderr: '' });
    const { error } = documentOf<{ error: Record<string, string> }>(json);
    expect(error.code).toBe('ERR_SIGLIP_USAGE');
    expect(error.message).toContain(message);
  });
});

describe('errors', () => {
  const failing = ['classify', coffee, '--labels', 'a', '--model'];

  it.each([
    [[...failing, 'nothing-here'], 'ERR_SIGLIP_CHECKPOINT', 'no checkpoint at "nothing-here"'],
    [[...failing, images], 'ERR_SIGLIP_CONFIG', 'has no config.json'],
    [
      [...failing, checkpoint, '--device', 'cuda:7'],
      'ERR_SIGLIP_NO_DEVICE',
      '--device: device "cuda:7" is not available',
    ],
    [
      [...failing, checkpoint, '--dtype', 'float16'],
      'ERR_SIGLIP_UNSUPPORTED',
      '--dtype: device "cpu" cannot compute in "float16"',
    ],
    [
      [...failing, checkpoint, '--labels-file', 'none.txt'],
      'ENOENT',
      '--labels-file: "none.txt" cannot be read: no such file or directory',
    ],
    [
      [...failing, checkpoint, '--labels-file', images],
      'EISDIR',
      `--labels-file: "${images}" cannot be read: it is a folder`,
    ],
    [
      ['embed', '--texts', images, '--out', 'o.npy', '--model', checkpoint],
      'EISDIR',
      `--texts: "${images}" cannot be read: it is a folder`,
    ],
    [
      ['embed', coffee, '--out', `${'x'.repeat(300)}.npy`, '--model', 'nothing-here'],
      'ENAMETOOLONG',
      '.npy" cannot be written: name too long',
    ],
  ])('%j: %s', async (operands, code, message) => {
    const text = await siglip2(operands);
    expect(text).toMatchObject({ code: 1, stdout: '' });
    expect(text.stderr).toContain(`error ${code}: `);
    expect(text.stderr).toContain(message);
    expect(text.stderr).toMatch(/\ntry: \S.*\n$/);
    expect(text.stderr).not.toMatch(/^ +at /m);
    const { error } = documentOf<{ error: Record<string, string> }>(await siglip2([...operands, '--json']));
    expect(error.code).toBe(code);
    expect(error.message).toContain(message);
  });

  it('have a stack trace when asked for', async () => {
    for (const result of [
      await siglip2([...failing, 'nothing-here', '--verbose']),
      await siglip2([...failing, 'nothing-here'], { env: { DEBUG: '1' } }),
    ])
      expect(result.stderr).toMatch(/\nSiglipError: no checkpoint.*\n +at /);
  });

  it.skipIf(process.platform !== 'linux').each([['inspect'], ['--help']])(
    'include output that cannot be written: %s',
    (operand) => {
      const full = openSync('/dev/full', 'w');
      const result = spawnSync(process.execPath, [builtFile('cli/main.js'), operand], {
        stdio: ['ignore', full, 'pipe'],
        encoding: 'utf8',
      });
      closeSync(full);
      expect(result.stderr).toMatch(/^error ENOSPC: the output could not be written: .*\n$/);
      expect(result.status).toBe(1);
    },
  );
});

describe('nobody reads', () => {
  it.each([
    [['--help'], 0],
    [['--version'], 0],
    [['inspect'], 0],
    [['nonsense', '--json'], 2],
  ])('what %j prints: it ends in silence', async (operands, code) => {
    const result = await siglip2(operands, { onStart: (child) => child.stdout?.destroy() });
    expect(result).toEqual({ code, signal: null, stdout: '', stderr: '' });
  });

  it('what a command says about its work: the work is done all the same', async () => {
    const folder = temporaryFolder({ 'a.png': 'no image', 'b.png': 'no image' });
    const operands = ['a.png', coffee, 'b.png', coffee, '--batch-size', '1', '--out', 'o.npy', '--model', checkpoint];
    const result = await siglip2(['embed', ...operands], {
      cwd: folder,
      onStart: (child) => child.stderr?.destroy(),
    });
    expect(result).toMatchObject({ code: 1, signal: null, stderr: '' });
    expect(result.stdout).toContain('2 images embedded');
    expect(readdirSync(folder)).toContain('o.npy');
  });
});
