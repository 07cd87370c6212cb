/**
 * Puts a trained model into models/siglip2-emoji, in bfloat16: `node recipes/emoji/publish.mjs CHECKPOINT`.
 *
 * The card, README.md, is written by hand and stays as it is.
 */
import { cpSync, existsSync, rmSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { defaultModel, Siglip2 } from '../../dist/esm/index.js';

const [checkpoint] = process.argv.slice(2);
if (checkpoint === undefined) {
  console.error(`usage: node ${path.relative(process.cwd(), fileURLToPath(import.meta.url))} CHECKPOINT`);
  process.exit(2);
}
const fresh = `${defaultModel}.new`;
rmSync(fresh, { recursive: true, force: true });
const model = await Siglip2.load(checkpoint);
await model.save(fresh, { dtype: 'bfloat16' });
model.dispose();
const card = path.join(defaultModel, 'README.md');
if (existsSync(card)) cpSync(card, path.join(fresh, 'README.md'));
rmSync(defaultModel, { recursive: true, force: true });
cpSync(fresh, defaultModel, { recursive: true });
rmSync(fresh, { recursive: true });
console.log(`${checkpoint} is now ${defaultModel}`);
