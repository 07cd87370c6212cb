/** Small data sets for tests: the picture and the caption of example n both tell n. */
import { writeFileSync } from 'node:fs';
import { deflateSync, gzipSync } from 'node:zlib';
import { pack } from 'tar-stream';
import type { RawImage } from '../../lib/processing/decode.js';

const crcTable = Uint32Array.from({ length: 256 }, (_, n) => {
  let c = n;
  for (let k = 0; k < 8; k++) c = c & 1 ? 0xedb88320 ^ (c >>> 1) : c >>> 1;
  return c >>> 0;
});

function chunk(kind: string, data: Uint8Array): Buffer {
  const body = Buffer.concat([Buffer.from(kind, 'latin1'), data]);
  let crc = 0xffffffff;
  for (const byte of body) crc = crcTable[(crc ^ byte) & 0xff]! ^ (crc >>> 8);
  const length = Buffer.alloc(4);
  length.writeUInt32BE(data.length);
  const check = Buffer.alloc(4);
  check.writeUInt32BE((crc ^ 0xffffffff) >>> 0);
  return Buffer.concat([length, body, check]);
}

/** A PNG of width × 1 pixels, the first of which tells the number. */
export function picture(number: number, width = 1): Buffer {
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(1, 4);
  header[8] = 8;
  header[9] = 2;
  const row = Buffer.alloc(1 + 3 * width);
  row[1] = number & 255;
  row[2] = number >> 8;
  const signature = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
  return Buffer.concat([
    signature,
    chunk('IHDR', header),
    chunk('IDAT', deflateSync(row)),
    chunk('IEND', new Uint8Array()),
  ]);
}

/** The number of a picture. */
export function numberOf({ data }: RawImage): number {
  return data[0]! + 256 * data[1]!;
}

export const caption = (number: number): string => `caption ${number}`;

/** The number of a caption, or of one of several captions of a picture. */
export const captionNumber = (text: string): number => Number(/\d+/.exec(text)![0]);

/** Files of a folder with `count` pictures and their captions in JSON Lines. */
export function jsonLinesFolder(count: number): Record<string, unknown> {
  const files: Record<string, unknown> = {};
  let lines = '';
  for (let n = 0; n < count; n++) {
    files[`${n}.png`] = picture(n);
    lines += `${JSON.stringify({ image: `${n}.png`, text: caption(n) })}\n`;
  }
  return { ...files, 'captions.jsonl': lines };
}

export type Member = [name: string, content: string | Uint8Array];

/** The bytes of a tar archive. */
export async function tar(members: readonly Member[]): Promise<Buffer> {
  const archive = pack();
  for (const [name, content] of members) archive.entry({ name }, Buffer.from(content as Uint8Array));
  archive.finalize();
  const pieces: Buffer[] = [];
  for await (const piece of archive) pieces.push(piece as Buffer);
  return Buffer.concat(pieces);
}

/** Members of the examples from one number to before another. */
export function members(from: number, to: number): Member[] {
  return Array.from({ length: to - from }, (_, i) => from + i).flatMap((n): Member[] => [
    [`data/${String(n).padStart(6, '0')}.png`, picture(n)],
    [`data/${String(n).padStart(6, '0')}.txt`, `${caption(n)}\n`],
  ]);
}

/** Writes shards of the given sizes and returns their pattern. Numbers run on from shard to shard. */
export async function writeShards(folder: string, sizes: readonly number[], gzip = false): Promise<string> {
  let first = 0;
  for (const [i, size] of sizes.entries()) {
    const bytes = await tar(members(first, first + size));
    writeFileSync(
      `${folder}/train-${String(i).padStart(4, '0')}.tar${gzip ? '.gz' : ''}`,
      gzip ? gzipSync(bytes) : bytes,
    );
    first += size;
  }
  const last = String(sizes.length - 1).padStart(4, '0');
  return `${folder}/train-{0000..${last}}.tar${gzip ? '.gz' : ''}`;
}

/** Everything that comes, at most `limit` of it. The iteration is ended then. */
export async function take<T>(iterable: AsyncIterable<T>, limit = Number.POSITIVE_INFINITY): Promise<T[]> {
  const items: T[] = [];
  if (limit === 0) return items;
  for await (const item of iterable) {
    items.push(item);
    if (items.length >= limit) break;
  }
  return items;
}
