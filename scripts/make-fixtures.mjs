// Copies the golden reference data that the tests use into test/fixtures/.
//
//   node scripts/make-fixtures.mjs GOLDEN_FOLDER
//
// GOLDEN_FOLDER is the reference folder described in test/fixtures/README.md (made with Hugging Face transformers).
// Large files are stored brotli-compressed so that the whole folder stays under 8 MB; test/support/golden.ts reads both.
// Two checkpoints are not copied because they are derived exactly from a third one, in the tests themselves.
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { brotliCompressSync, constants } from 'node:zlib';

const golden = process.argv[2];
if (golden === undefined || !existsSync(path.join(golden, 'MANIFEST.json'))) {
  console.error('usage: node scripts/make-fixtures.mjs GOLDEN_FOLDER   (a folder with MANIFEST.json)');
  process.exit(2);
}
const fixtures = path.join(path.dirname(path.dirname(fileURLToPath(import.meta.url))), 'test', 'fixtures');

/** Used uncompressed by the README's commands, so that a person can point the command line at it. */
const plainCheckpoints = new Set(['naflex_hd64']);
/** The same weights as fixed_p14_hd64 rounded to bfloat16, in one and in two files: the tests derive both. */
const derivedCheckpoints = new Set(['fixed_p14_hd64_bf16', 'fixed_p14_hd64_bf16_sharded']);

/** A safetensors file with only the tensors whose names pass. */
function selectTensors(file, keep) {
  const headerBytes = Number(file.readBigUInt64LE(0));
  const { __metadata__, ...tensors } = JSON.parse(file.subarray(8, 8 + headerBytes).toString());
  const header = __metadata__ === undefined ? {} : { __metadata__ };
  const data = [];
  let end = 0;
  for (const [name, entry] of Object.entries(tensors)) {
    if (!keep(name)) continue;
    const [first, last] = entry.data_offsets;
    data.push(file.subarray(8 + headerBytes + first, 8 + headerBytes + last));
    header[name] = { ...entry, data_offsets: [end, end + last - first] };
    end += last - first;
  }
  const json = Buffer.from(JSON.stringify(header));
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(json.length));
  return Buffer.concat([size, json, ...data]);
}

/** Rounds the float32 tensors of a safetensors file to 16 bits of fraction, which compress; single values stay as they are. */
function roundTensors(file) {
  const headerBytes = Number(file.readBigUInt64LE(0));
  const { __metadata__, ...tensors } = JSON.parse(file.subarray(8, 8 + headerBytes).toString());
  for (const { dtype, data_offsets } of Object.values(tensors)) {
    const [first, last] = data_offsets.map((offset) => 8 + headerBytes + offset);
    if (dtype !== 'F32' || last - first === 4) continue;
    for (let at = first; at < last; at += 4) {
      const bits = file.readUInt32LE(at);
      file.writeUInt32LE(((bits + 0x3f + ((bits >>> 7) & 1)) & ~0x7f) >>> 0, at);
    }
  }
  return file;
}

function compress(from, to, keep, round) {
  const whole = readFileSync(from);
  const selected = keep === undefined ? whole : selectTensors(whole, keep);
  const bytes = round ? roundTensors(selected) : selected;
  const params = {
    [constants.BROTLI_PARAM_QUALITY]: 11,
    [constants.BROTLI_PARAM_LGWIN]: 22,
    [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length,
  };
  writeFileSync(`${to}.br`, brotliCompressSync(bytes, { params }));
}

function copyFolder(folder, { compressed = () => true, skip = () => false, keep, round = false } = {}) {
  const from = path.join(golden, folder);
  const to = path.join(fixtures, folder);
  rmSync(to, { recursive: true, force: true });
  mkdirSync(to, { recursive: true });
  for (const entry of readdirSync(from)) {
    const file = path.join(from, entry);
    const relative = path.join(folder, entry);
    if (skip(relative)) continue;
    if (statSync(file).isDirectory()) copyFolder(relative, { compressed, skip, keep, round });
    else if (entry.endsWith('.safetensors') && compressed(relative)) compress(file, path.join(to, entry), keep, round);
    else cpSync(file, path.join(to, entry), { mode: 0 });
  }
}

mkdirSync(fixtures, { recursive: true });
copyFolder('checkpoints', {
  compressed: (file) => !plainCheckpoints.has(path.basename(path.dirname(file))),
  skip: (file) => derivedCheckpoints.has(path.basename(file)),
});
// The command line shows this sentence whenever it uses the checkpoint.
for (const name of readdirSync(path.join(fixtures, 'checkpoints')))
  writeFileSync(
    path.join(fixtures, 'checkpoints', name, 'RANDOM_WEIGHTS'),
    'The weights of this checkpoint are random, made for tests: its results mean nothing.\n',
  );
copyFolder('models');
copyFolder('pe');
copyFolder('attention');
// The embeddings are computed; of the gradients of the widest case, those of the images and the sums are enough.
copyFolder('loss', { keep: (name) => !/^\d+\.[xy]$/.test(name) && name !== '5.dy_rows' });
// Checked to 1e-4: a relative error of 8e-6 from rounding saves a third of the bytes.
copyFolder('gradients', { round: true });
copyFolder('tokenizer');
copyFolder('endtoend');
copyFolder('images');
copyFolder('preprocessing', { skip: (file) => file.endsWith('samples.safetensors') });
