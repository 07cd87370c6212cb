#!/usr/bin/env node
// What prebuildify calls in place of node-gyp: `rebuild --target=… --arch=… --release`. The real build is CMake's, so the
// architecture is handed on to cmake-js; the target is not needed, because Node-API binaries fit every Node version.
import { spawnSync } from 'node:child_process';
import { createRequire } from 'node:module';
import path from 'node:path';

const require = createRequire(import.meta.url);
const manifest = require.resolve('cmake-js/package.json');
const command = path.join(path.dirname(manifest), require(manifest).bin['cmake-js']);
const architecture = process.argv.find((argument) => argument.startsWith('--arch='))?.slice('--arch='.length);
const options = ['rebuild', '--log-level', 'warn', ...(architecture === undefined ? [] : ['--arch', architecture])];
const { status } = spawnSync(process.execPath, [command, ...options], { stdio: 'inherit' });
process.exit(status ?? 1);
