/** What npm runs in a checkout, with stand-ins for the two builds. */
import { spawnSync } from 'node:child_process';
import { cpSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { temporaryFolder } from '../support/folders.js';

const script = path.resolve(import.meta.dirname, '../../scripts/prepare.mjs');
const outputs = { 'build/Release/siglip2.node': '', 'dist/esm/cli/main.js': '' };

/** Runs the script as a command of npm does, and says what was built. */
function prepare(command: string, files: Record<string, string>, buildNative = '') {
  const touch = (name: string) => `import { writeFileSync } from 'node:fs'; writeFileSync('${name}', '');`;
  const folder = temporaryFolder({
    'scripts/build-native.mjs': `${touch('made-native')} ${buildNative}`,
    'scripts/build-ts.mjs': touch('made-ts'),
    ...files,
  });
  cpSync(script, path.join(folder, 'scripts', 'prepare.mjs'));
  const { status, stdout, stderr } = spawnSync(process.execPath, ['scripts/prepare.mjs'], {
    cwd: folder,
    encoding: 'utf8',
    env: { ...process.env, npm_command: command },
  });
  return { status, stdout, stderr, made: readdirSync(folder).filter((name) => name.startsWith('made-')) };
}

describe('scripts/prepare.mjs', () => {
  it.each(['ci', 'install', 'run-script', 'pack'])('builds both for npm %s, whatever is there', (command) => {
    const result = prepare(command, outputs);
    expect(result).toEqual({ status: 0, stdout: '', stderr: '', made: ['made-native', 'made-ts'] });
  });

  it('does nothing for npx where both are there', () => {
    expect(prepare('exec', outputs)).toEqual({ status: 0, stdout: '', stderr: '', made: [] });
  });

  it.each(Object.keys(outputs))('builds both for npx where only %s is there', (file) => {
    expect(prepare('exec', { [file]: '' }).made).toEqual(['made-native', 'made-ts']);
  });

  it('says which build failed, after the other', () => {
    const result = prepare('ci', {}, 'process.exit(3);');
    expect(result).toMatchObject({ status: 1, made: ['made-native', 'made-ts'] });
    expect(result.stderr).toBe('build-native.mjs failed (exit code 3)\n');
  });
});
