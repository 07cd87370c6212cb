// The README's main job: classifies and embeds pictures of this repository with the command line, showing the commands.
import { spawnSync } from 'node:child_process';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const model = 'test/fixtures/checkpoints/naflex_hd64';
const pictures = 'test/fixtures/images';
const output = path.join(mkdtempSync(path.join(tmpdir(), 'siglip2-demo-')), 'embeddings.npy');

function siglip2(...options) {
  const shown = options.map((option) => (/^[\w./:,=-]+$/.test(option) ? option : `"${option}"`)).join(' ');
  console.log(`\n$ npx siglip2 ${shown}`);
  const command = path.join(root, 'dist', 'esm', 'cli', 'main.js');
  const { status } = spawnSync(process.execPath, [command, ...options], { cwd: root, stdio: 'inherit' });
  if (status !== 0) process.exit(status ?? 1);
}

siglip2(
  'classify',
  `${pictures}/12_photo_chelsea_300x240.png`,
  `${pictures}/13_photo_coffee_240x240.png`,
  '--labels',
  'a cat,a cup of coffee,a mountain',
  '--model',
  model,
);
siglip2('embed', pictures, '--out', output, '--model', model);
console.log(`\nThe embeddings are in ${output}.`);
