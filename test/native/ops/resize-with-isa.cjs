// Resizes the pictures of the fixture on the device and instruction set of this process (SIGLIP2_ISA, fixed once the
// addon is loaded) and prints, for each, the SHA-256 of the bytes and the largest difference of mode "float" from the
// reference device (0 for large pictures, which that takes long for).
//
//   node resize-with-isa.cjs ADDON FIXTURE
'use strict';
const { createHash } = require('node:crypto');
const { readFileSync } = require('node:fs');

function hash(index, seed) {
  let h = (index + Math.imul(seed, 0x9e3779b9)) >>> 0;
  h ^= h >>> 16;
  h = Math.imul(h, 0x85ebca6b);
  h ^= h >>> 13;
  h = Math.imul(h, 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

function picture({ source: [height, width], channels, seed, kind }) {
  const data = new Uint8Array(height * width * channels);
  for (let i = 0; i < data.length; i++) {
    const byte = hash(i, seed) >>> 24;
    data[i] = kind === 'noise' ? byte : byte > 127 ? 255 : 0;
  }
  return { data, width, height, channels };
}

async function main([addonFile, fixtureFile]) {
  const addon = require(addonFile);
  const token = addon.createCancelToken();
  const resize = (item, mode, device) =>
    addon.prepareImages(
      {
        images: [picture(item)],
        targetSizes: Int32Array.from(item.target),
        mean: [0, 0, 0],
        deviation: [1, 1, 1],
        rescale: 1,
        mode,
        filter: item.filter,
      },
      { device, threads: 2, patchSize: 16, layout: 'planar' },
      token,
    );
  const results = [];
  for (const item of JSON.parse(readFileSync(fixtureFile, 'utf8'))) {
    const planar = await resize(item, 'pil', 'cpu');
    const plane = planar.length / 3;
    const bytes = new Uint8Array(planar.length);
    for (let i = 0; i < planar.length; i++) bytes[3 * (i % plane) + Math.floor(i / plane)] = planar[i];
    let difference = 0;
    if (item.source[0] * item.source[1] + plane < 200_000) {
      const [actual, expected] = [await resize(item, 'float', 'cpu'), await resize(item, 'float', 'reference')];
      for (let i = 0; i < expected.length; i++) difference = Math.max(difference, Math.abs(actual[i] - expected[i]));
    }
    results.push({ sha256: createHash('sha256').update(bytes).digest('hex'), difference });
  }
  console.log(JSON.stringify({ devices: addon.describe().devices, results }));
}

main(process.argv.slice(2));
