/** Writing the safetensors format, byte for byte as Hugging Face's library lays it out. */
import type { FileHandle } from 'node:fs/promises';
import { describe, throwIfAborted } from '../arguments.js';
import { SiglipError } from '../errors.js';
import { maximumHeaderBytes, type SafetensorsDType, safetensorsDTypes, tensorBytes } from './safetensors.js';

/** A tensor to write; `read` gives its bytes, little-endian and row-major, at once or in pieces. */
export interface TensorSource {
  readonly name: string;
  readonly dtype: SafetensorsDType;
  readonly shape: readonly number[];
  read(): Promise<Uint8Array> | AsyncIterable<Uint8Array>;
}

/** Bytes handed to the system in one call: the system's own limit is near 2 GiB, and between calls an abort is noticed. */
const pieceBytes = 64 * 1024 * 1024;

/** The bytes a tensor takes in a file. */
export function sourceBytes({ name, dtype, shape }: TensorSource): number {
  const bytes = tensorBytes(dtype, shape);
  if (bytes === undefined)
    throw new SiglipError(
      'ERR_SIGLIP_CHECKPOINT',
      `tensor ${describe(name)} of ${dtype} [${shape.join(', ')}] has no representable size`,
      { details: { tensor: name } },
    );
  return bytes;
}

/** Tensors in the order of a file: by dtype, the most aligned first, then by name in the order of its UTF-8 bytes. */
export function fileOrder(tensors: readonly TensorSource[]): TensorSource[] {
  const rank = ({ dtype }: TensorSource): number => safetensorsDTypes.indexOf(dtype);
  return [...tensors].sort(
    (left, right) => rank(right) - rank(left) || Buffer.compare(Buffer.from(left.name), Buffer.from(right.name)),
  );
}

/** The start of a file with these tensors, in this order: the header's length and the header, padded to 8 bytes. */
export function headerBytes(tensors: readonly TensorSource[], metadata: Readonly<Record<string, string>>): Buffer {
  const members = [`"__metadata__":${JSON.stringify(metadata)}`];
  let offset = 0;
  for (const tensor of tensors) {
    const { name, dtype, shape } = tensor;
    const end = offset + sourceBytes(tensor);
    members.push(`${JSON.stringify(name)}:${JSON.stringify({ dtype, shape, data_offsets: [offset, end] })}`);
    offset = end;
  }
  const header = Buffer.from(`{${members.join(',')}}`);
  const paddedBytes = Math.ceil(header.length / 8) * 8;
  if (paddedBytes > maximumHeaderBytes)
    throw new SiglipError(
      'ERR_SIGLIP_CHECKPOINT',
      `the header would have ${paddedBytes} bytes, above the format's limit`,
    );
  const start = Buffer.alloc(8 + paddedBytes, ' ');
  start.writeBigUInt64LE(BigInt(paddedBytes));
  header.copy(start, 8);
  return start;
}

/**
 * Writes a whole file.
 *
 * @throws SiglipError ERR_SIGLIP_CHECKPOINT when a tensor gives more or fewer bytes than its shape needs;
 *   ERR_SIGLIP_ABORTED
 */
export async function writeSafetensors(
  handle: FileHandle,
  tensors: readonly TensorSource[],
  signal: AbortSignal | undefined,
  metadata: Readonly<Record<string, string>> = { format: 'pt' },
): Promise<void> {
  const ordered = fileOrder(tensors);
  await writeAll(handle, headerBytes(ordered, metadata), signal);
  for (const tensor of ordered) {
    const expectedBytes = sourceBytes(tensor);
    const wrongSize = (bytes: number): SiglipError =>
      new SiglipError(
        'ERR_SIGLIP_CHECKPOINT',
        `tensor ${describe(tensor.name)} of ${tensor.dtype} [${tensor.shape.join(', ')}] has ${expectedBytes} bytes, ` +
          `its source gave ${bytes}`,
        { details: { tensor: tensor.name, bytes, expectedBytes } },
      );
    throwIfAborted(signal);
    const content = tensor.read();
    let written = 0;
    for await (const piece of Symbol.asyncIterator in content ? content : [content]) {
      written += piece.byteLength;
      if (written > expectedBytes) throw wrongSize(written);
      await writeAll(handle, piece, signal);
    }
    if (written !== expectedBytes) throw wrongSize(written);
  }
}

async function writeAll(handle: FileHandle, bytes: Uint8Array, signal: AbortSignal | undefined): Promise<void> {
  for (let done = 0; done < bytes.byteLength; ) {
    throwIfAborted(signal);
    done += (await handle.write(bytes, done, Math.min(pieceBytes, bytes.byteLength - done))).bytesWritten;
  }
}
