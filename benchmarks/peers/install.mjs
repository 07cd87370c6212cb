// Installs the peers that come from npm into benchmarks/.cache/peers. They are no dependencies of the package.
import { spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { cache } from '../support/paths.mjs';

const folder = path.join(cache, 'peers');
mkdirSync(folder, { recursive: true });
writeFileSync(path.join(folder, 'package.json'), '{ "private": true }\n');
// The install script of onnxruntime-node only downloads CUDA libraries; the CPU library is in the package.
const options = ['--ignore-scripts', '--no-audit', '--no-fund'];
const packages = ['onnxruntime-node@1.30.0', '@huggingface/transformers@4.3.1'];
const { status } = spawnSync('npm', ['install', ...options, ...packages], { cwd: folder, stdio: 'inherit' });
process.exit(status ?? 1);
