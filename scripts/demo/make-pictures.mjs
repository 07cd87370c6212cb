// Makes examples/emoji again: some three hundred drawings of the Fluent set as small pictures on white.
//
//   node scripts/demo/make-pictures.mjs
//
// It needs the network once, for the npm package that holds the drawings. The library drops alpha as the models' training
// did (docs/images.md), so the pictures have none: what a viewer shows is what the model sees.
import { spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import sharp from 'sharp';
import { pictureNames } from './picture-names.mjs';

const here = path.dirname(fileURLToPath(import.meta.url));
const target = path.resolve(here, '../../examples/emoji');
const drawingsPackage = { name: 'fluentui-emoji', version: '1.3.0' };

/** Side of the pictures, and how many times larger they are rendered before they are cut to what is drawn. */
const size = 96;
const oversampling = 4;

/** The folder of flat drawings; the package is installed into a cache that git ignores. */
function findDrawings() {
  const { name, version } = drawingsPackage;
  const cache = path.join(here, '.cache');
  const installed = path.join(cache, 'node_modules', name);
  const manifest = path.join(installed, 'package.json');
  if (!existsSync(manifest) || JSON.parse(readFileSync(manifest, 'utf8')).version !== version) {
    mkdirSync(cache, { recursive: true });
    const options = ['install', '--ignore-scripts', '--no-audit', '--no-fund', '--prefix', cache, `${name}@${version}`];
    const { status } = spawnSync('npm', options, { stdio: 'inherit' });
    if (status !== 0) throw new Error(`npm could not install ${name}@${version}`);
  }
  return path.join(installed, 'icons', 'flat');
}

/** A drawing, cut to what is drawn, as large as fits into the square, on white. */
async function render(file) {
  const drawing = readFileSync(file);
  const { width, height } = await sharp(drawing).metadata();
  // One unit of an SVG is one pixel at 72 dots an inch.
  const large = await sharp(drawing, { density: (72 * size * oversampling) / Math.max(width, height) })
    .trim({ background: { r: 0, g: 0, b: 0, alpha: 0 }, threshold: 0 })
    .png()
    .toBuffer();
  return sharp(large)
    .flatten({ background: 'white' })
    .resize(size, size, { fit: 'contain', background: 'white' })
    .removeAlpha()
    .png({ palette: true, colours: 128, effort: 10, compressionLevel: 9 })
    .toBuffer();
}

const drawings = findDrawings();
const names = Object.values(pictureNames).flatMap((group) => group.trim().split(/\s+/));
if (new Set(names).size !== names.length) throw new Error('a name is listed twice');
mkdirSync(target, { recursive: true });
const building = mkdtempSync(path.join(target, '.building-'));
try {
  for (const name of names)
    writeFileSync(path.join(building, `${name}.png`), await render(path.join(drawings, `${name}.svg`)));
  for (const file of readdirSync(target)) if (file.endsWith('.png')) rmSync(path.join(target, file));
  for (const file of readdirSync(building)) renameSync(path.join(building, file), path.join(target, file));
} finally {
  rmSync(building, { recursive: true, force: true });
}
console.log(`${names.length} pictures in ${path.relative(process.cwd(), target)}`);
