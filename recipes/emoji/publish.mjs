/**
 * Puts a trained model into models/siglip2-emoji, in bfloat16 and with model-card.md as its README.md:
 * `node recipes/emoji/publish.mjs CHECKPOINT`.
 */
import { cpSync, mkdirSync, renameSync, rmSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { defaultModel, Siglip2 } from '../../dist/esm/index.js';

const [checkpoint] = process.argv.slice(2);
if (checkpoint === undefined) {
  console.error(`usage: node ${path.relative(process.cwd(), fileURLToPath(import.meta.url))} CHECKPOINT`);
  process.exit(2);
}
const fresh = `${defaultModel}.new`;
mkdirSync(path.dirname(defaultModel), { recursive: true });
rmSync(fresh, { recursive: true, force: true });
const model = await Siglip2.load(checkpoint);
await model.save(fresh, { dtype: 'bfloat16' });
model.dispose();
cpSync(fileURLToPath(new URL('model-card.md', import.meta.url)), path.join(fresh, 'README.md'));
rmSync(defaultModel, { recursive: true, force: true });
renameSync(fresh, defaultModel);
console.log(`${checkpoint} is now ${defaultModel}`);
