/** Running the built package in processes of their own, so that a crash is a failed test. */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = path.dirname(path.dirname(path.dirname(fileURLToPath(import.meta.url))));
const programs = path.join(root, 'test', 'native', 'programs');

/** True under `npm run test:sanitized`, where memory is never flat and everything takes longer. */
export const sanitized = process.env.SIGLIP2_TEST_SANITIZED === '1';

export interface Outcome {
  /** Null when a signal ended the process. */
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
  milliseconds: number;
}

/** Fails, with what to do about it, when the package has not been built. */
export function requireBuilt(): void {
  const native = process.env.SIGLIP2_NATIVE ?? path.join(root, 'build', 'Release', 'siglip2.node');
  for (const [file, command] of [
    [path.join(root, 'dist', 'esm', 'index.js'), 'npm run build:ts'],
    [path.join(root, 'dist', 'cjs', 'index.js'), 'npm run build:ts'],
    [native, 'npm run build:native'],
  ] as const)
    if (!existsSync(file)) throw new Error(`this test runs the built package, but ${file} is missing: ${command}`);
}

/** Runs test/native/programs/NAME.mjs; killed, with signal SIGKILL, when it takes longer than `timeout` ms. */
export function runProgram(
  name: string,
  args: readonly string[],
  options: { timeout?: number; execArgv?: string[]; env?: Record<string, string> } = {},
): Promise<Outcome> {
  requireBuilt();
  const started = performance.now();
  const child = spawn(process.execPath, [...(options.execArgv ?? []), path.join(programs, `${name}.mjs`), ...args], {
    env: { ...process.env, NODE_OPTIONS: '', ...options.env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  const timer = setTimeout(() => child.kill('SIGKILL'), (options.timeout ?? 60_000) * (sanitized ? 5 : 1));
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code, signal) => {
      clearTimeout(timer);
      resolve({ code, signal, stdout, stderr, milliseconds: performance.now() - started });
    });
  });
}

/** What an orderly end with this exit code looks like; everything that was printed, when it was not that. */
export function describeEnd({ code, signal, stdout, stderr }: Outcome): string {
  return signal === null && code === 0 ? 'exit 0' : `${signal ?? `exit ${code}`}\n${stdout}\n${stderr}`;
}
