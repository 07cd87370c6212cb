// The one piece that must be CommonJS in both builds: it knows where it lies on disk, and its `require` loads binaries, and
// packages at once where they are needed, which most programs never do.
'use strict';
const { existsSync, readFileSync } = require('node:fs');
const path = require('node:path');

function findPackageRoot(folder) {
  const manifest = path.join(folder, 'package.json');
  if (existsSync(manifest) && JSON.parse(readFileSync(manifest, 'utf8')).name === 'siglip2') return folder;
  const parent = path.dirname(folder);
  if (parent === folder) throw new Error(`no package.json of siglip2 above ${__dirname}`);
  return findPackageRoot(parent);
}

module.exports = {
  packageRoot: findPackageRoot(__dirname),
  requireNative: (file) => require(file),
  requirePackage: (name) => require(name),
};
