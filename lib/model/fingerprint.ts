/** Telling models apart by their weights, whatever their folders are called. */
import { createHash } from 'node:crypto';
import { type FileHandle, open } from 'node:fs/promises';
import { openCheckpointFiles } from './checkpoint-files.js';

/** Bytes that are read at each end of a tensor. Training changes some of these in nearly every tensor. */
const sampleBytes = 2048;

/**
 * A name for the weights of a checkpoint folder: SHA-256, in hexadecimal, of name, stored type, shape and the first and
 * last {@link sampleBytes} bytes of every tensor in the order of names. It reads a few megabytes of a checkpoint of any
 * size, and depends neither on the folder nor on how tensors are spread over files. Checkpoints that differ only far
 * from the ends of all tensors have the same one; no training makes such a pair.
 *
 * @throws SiglipError ERR_SIGLIP_CHECKPOINT when the weights are missing or damaged
 */
export async function fingerprint(folder: string): Promise<string> {
  const { tensors } = await openCheckpointFiles(folder);
  const hash = createHash('sha256');
  const handles = new Map<string, FileHandle>();
  try {
    for (const [name, { dtype, shape, begin, end, file }] of [...tensors].sort(([a], [b]) => (a < b ? -1 : 1))) {
      const handle = handles.get(file.path) ?? (await open(file.path));
      handles.set(file.path, handle);
      hash.update(`${JSON.stringify([name, dtype, shape])}\n`);
      hash.update(await readRange(handle, begin, Math.min(begin + sampleBytes, end)));
      hash.update(await readRange(handle, Math.max(begin + sampleBytes, end - sampleBytes), end));
    }
  } finally {
    for (const handle of handles.values()) await handle.close();
  }
  return hash.digest('hex');
}

/** Bytes `begin` to `end` (exclusive) of a file; none when `end` is not after `begin`. */
async function readRange(handle: FileHandle, begin: number, end: number): Promise<Uint8Array> {
  const bytes = Buffer.alloc(Math.max(0, end - begin));
  const { bytesRead } = await handle.read(bytes, 0, bytes.length, begin);
  return bytes.subarray(0, bytesRead);
}
