/** Runs the built command line in child processes. */
import { type ChildProcess, spawn } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { temporaryFolder } from './folders.js';

const root = path.dirname(path.dirname(path.dirname(fileURLToPath(import.meta.url))));

/** The checkpoint that is stored in plain form. */
export const checkpoint = path.join(root, 'test', 'fixtures', 'checkpoints', 'naflex_hd64');
export const images = path.join(root, 'test', 'fixtures', 'images');

/** A compiled file. These tests are about what is installed, so they need a build, and one of these sources. */
export function builtFile(name: string): string {
  const file = path.join(root, 'dist', 'esm', name);
  if (!existsSync(file)) throw new Error('dist/ is missing; build it with: npm run build:ts');
  const built = statSync(file).mtimeMs;
  const sources = readdirSync(path.join(root, 'lib'), { recursive: true, encoding: 'utf8' });
  const newer = sources.find((name) => {
    const entry = statSync(path.join(root, 'lib', name));
    return entry.isFile() && entry.mtimeMs > built;
  });
  if (newer !== undefined) throw new Error(`dist/ is older than lib/${newer}; build it with: npm run build:ts`);
  return file;
}

export interface Outcome {
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
}

export interface RunOptions {
  env?: Record<string, string | undefined>;
  cwd?: string;
  /** A package made by {@link packageWith}, instead of this checkout. */
  packageRoot?: string;
  /** Called as soon as the process runs. */
  onStart?: (child: ChildProcess) => void;
}

/** Runs `siglip2` with these operands and options until it ends. */
export async function siglip2(operands: string[], options: RunOptions = {}): Promise<Outcome> {
  const environment: Record<string, string | undefined> = { ...process.env };
  for (const name of Object.keys(environment))
    if (/^(HF_|HUGGING|TRANSFORMERS_|DEBUG$|NO_COLOR$|FORCE_COLOR$|LC_|LANG$)/.test(name))
      environment[name] = undefined;
  const built = builtFile('cli/main.js');
  const main = options.packageRoot === undefined ? built : path.join(options.packageRoot, path.relative(root, built));
  const child = spawn(process.execPath, [main, ...operands], {
    cwd: options.cwd ?? root,
    env: { ...environment, LANG: 'C.UTF-8', ...options.env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const outcome = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr'] as const)
    child[name].setEncoding('utf8').on('data', (text: string) => {
      outcome[name] += text;
    });
  options.onStart?.(child);
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code, signal) => resolve({ code, signal, ...outcome }));
  });
}

/** The JSON document that a command printed, and nothing else on stdout. */
export function documentOf<T = Record<string, unknown>>({ stdout }: Outcome): T {
  return JSON.parse(stdout) as T;
}

/** A copy of the checkpoint with NaN as the first value of a tensor. */
export function checkpointWithNaN(tensor: string): string {
  const folder = temporaryFolder();
  cpSync(checkpoint, folder, { recursive: true });
  const file = path.join(folder, 'model.safetensors');
  const content = readFileSync(file);
  const header = JSON.parse(content.toString('utf8', 8, 8 + Number(content.readBigUInt64LE(0)))) as Record<
    string,
    { dtype: string; data_offsets: [number, number] }
  >;
  const entry = header[tensor];
  if (entry?.dtype !== 'BF16') throw new Error(`${tensor} is not a BF16 tensor of the checkpoint`);
  content.writeUInt16LE(0x7fc0, 8 + Number(content.readBigUInt64LE(0)) + entry.data_offsets[0]);
  writeFileSync(file, content);
  return folder;
}

/**
 * A package as it is installed, in a temporary folder, with a model of the test's choice as the one that comes with it.
 * @param model folder of a checkpoint; without it the package has none
 */
export function packageWith(model?: string): string {
  builtFile('index.js');
  const folder = temporaryFolder();
  // Copies, because a program knows its own place from where its file really is.
  for (const name of ['dist', 'package.json'])
    cpSync(path.join(root, name), path.join(folder, name), { recursive: true });
  for (const name of ['node_modules', 'build']) symlinkSync(path.join(root, name), path.join(folder, name));
  if (model !== undefined) {
    mkdirSync(path.join(folder, 'models'));
    symlinkSync(model, path.join(folder, 'models', 'siglip2-emoji'));
  }
  return folder;
}
