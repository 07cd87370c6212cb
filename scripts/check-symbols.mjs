// Checks that the builds of the CPU kernels for different instruction sets share no code: an inline function compiled for
// AVX-512 that the linker keeps for everyone would be an illegal instruction elsewhere. Each object file of a build may
// define symbols of its own namespace only. Needs the objects of `npm run build:native` and nm.
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const objects = path.join(root, 'build', 'CMakeFiles');
/** Compiler-generated data that is the same in every build. */
const harmless = /DW\.ref\.__gxx_personality_v0/;

if (spawnSync('nm', ['--version']).error !== undefined || !existsSync(objects)) {
  console.log('skipped: needs nm and a build in build/');
  process.exit(0);
}
let problems = 0;
for (const folder of readdirSync(objects).filter((name) => /^kernels_\w+\.dir$/.test(name))) {
  const isa = folder.slice('kernels_'.length, -'.dir'.length);
  for (const file of readdirSync(path.join(objects, folder), { recursive: true }).filter((name) =>
    name.endsWith('.o'),
  )) {
    const { stdout } = spawnSync('nm', ['-C', '--defined-only', '--extern-only', path.join(objects, folder, file)], {
      encoding: 'utf8',
    });
    for (const line of stdout.split('\n').filter((text) => text !== '')) {
      if (line.includes(`siglip2::${isa}::`) || harmless.test(line)) continue;
      console.error(`${isa}: ${file} defines ${line.slice(19)}, which is not in namespace siglip2::${isa}`);
      problems++;
    }
  }
}
if (problems > 0) process.exitCode = 1;
