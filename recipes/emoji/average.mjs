// The mean of several checkpoints of one model.
import { cpSync } from 'node:fs';
import { open, readFile } from 'node:fs/promises';
import path from 'node:path';
import { readSafetensorsHeader } from '../../dist/esm/model/safetensors.js';
import { writeSafetensors } from '../../dist/esm/model/safetensors-writer.js';
import { writeWholeFolder } from './data/cache.mjs';

const weights = 'model.safetensors';
const otherFiles = ['config.json', 'preprocessor_config.json', 'tokenizer.json', 'tokenizer_config.json'];

/**
 * Writes the mean of checkpoints, weight by weight, in float32. The ends of trainings that follow each other lie on the walls
 * of one valley of the loss, their mean nearer to its middle (Izmailov et al. 2018, arXiv 1803.05407).
 *
 * @param {string[]} folders checkpoints in float32 or bfloat16, with the same tensors; configuration and tokenizer are the
 *   first one's
 * @param {string} out folder that is made; one that is there is replaced
 * @throws {Error} naming the tensor and the folder that differs
 */
export async function averageCheckpoints(folders, out) {
  const files = await Promise.all(folders.map((folder) => readSafetensorsHeader(path.join(folder, weights))));
  const contents = await Promise.all(files.map((file) => readFile(file.path)));
  const [first] = files;
  const tensors = [...first.tensors].map(([name, { shape }]) => {
    // In float64 the order of a few float32 numbers does not matter.
    const sums = new Float64Array(shape.reduce((product, size) => product * size, 1));
    files.forEach(({ tensors: others }, at) => {
      const entry = others.get(name);
      if (JSON.stringify(entry?.shape) !== JSON.stringify(shape) || others.size !== first.tensors.size)
        throw new Error(`${folders[at]} has other tensors than ${folders[0]}, for example ${name}`);
      const bytes = contents[at].subarray(entry.begin, entry.end);
      valuesOf(bytes, entry.dtype, `${name} of ${folders[at]}`).forEach((value, i) => {
        sums[i] += value;
      });
    });
    const data = new Uint8Array(Float32Array.from(sums, (sum) => sum / files.length).buffer);
    return { name, dtype: 'F32', shape, read: async () => data };
  });
  await writeWholeFolder(out, async (partial) => {
    for (const file of otherFiles) cpSync(path.join(folders[0], file), path.join(partial, file));
    const handle = await open(path.join(partial, weights), 'w');
    try {
      await writeSafetensors(handle, tensors, undefined);
      await handle.sync();
    } finally {
      await handle.close();
    }
  });
}

/** Little-endian numbers of a file. */
function valuesOf(bytes, dtype, place) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (dtype === 'F32') return Float32Array.from({ length: bytes.length / 4 }, (_, i) => view.getFloat32(4 * i, true));
  if (dtype !== 'BF16') throw new Error(`${place} is of ${dtype}; expected F32 or BF16`);
  // The upper half of a float32 number.
  const bits = Uint32Array.from({ length: bytes.length / 2 }, (_, i) => view.getUint16(2 * i, true) << 16);
  return new Float32Array(bits.buffer);
}
