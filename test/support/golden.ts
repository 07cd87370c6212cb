/** Access to the golden reference data in test/fixtures (see its README). */
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { brotliDecompressSync } from 'node:zlib';

export const fixtures = path.join(path.dirname(path.dirname(fileURLToPath(import.meta.url))), 'fixtures');

/** The bytes of a fixture, whether it is stored plain or brotli-compressed. */
export function readFixture(relative: string): Buffer {
  const file = path.join(fixtures, relative);
  return existsSync(file) ? readFileSync(file) : brotliDecompressSync(readFileSync(`${file}.br`));
}

export function readFixtureJson<T>(relative: string): T {
  return JSON.parse(readFixture(relative).toString('utf8')) as T;
}

export interface StoredTensor {
  dtype: string;
  shape: number[];
  /** Values widened to float64; exact for every stored dtype. */
  values: Float64Array;
  bytes: Buffer;
}

/** A deliberately small safetensors reader of the tests' own, so that the package's reader is not its own judge. */
export function parseSafetensors(file: Buffer): {
  tensors: Map<string, StoredTensor>;
  metadata: Record<string, string>;
} {
  const headerBytes = Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.subarray(8, 8 + headerBytes).toString('utf8')) as Record<string, unknown>;
  const tensors = new Map<string, StoredTensor>();
  for (const [name, entry] of Object.entries(header)) {
    if (name === '__metadata__') continue;
    const { dtype, shape, data_offsets } = entry as { dtype: string; shape: number[]; data_offsets: [number, number] };
    const bytes = file.subarray(8 + headerBytes + data_offsets[0], 8 + headerBytes + data_offsets[1]);
    tensors.set(name, { dtype, shape, values: widen(dtype, bytes), bytes });
  }
  return { tensors, metadata: (header.__metadata__ ?? {}) as Record<string, string> };
}

function widen(dtype: string, bytes: Buffer): Float64Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const scratch = new DataView(new ArrayBuffer(4));
  const readers: Record<string, [number, (offset: number) => number]> = {
    F64: [8, (o) => view.getFloat64(o, true)],
    F32: [4, (o) => view.getFloat32(o, true)],
    I64: [8, (o) => Number(view.getBigInt64(o, true))],
    I32: [4, (o) => view.getInt32(o, true)],
    U8: [1, (o) => view.getUint8(o)],
    BF16: [
      2,
      (o) => {
        scratch.setUint32(0, view.getUint16(o, true) << 16);
        return scratch.getFloat32(0);
      },
    ],
  };
  const reader = readers[dtype];
  if (reader === undefined) throw new Error(`fixture dtype ${dtype} is not known to the tests`);
  const values = new Float64Array(bytes.byteLength / reader[0]);
  for (let i = 0; i < values.length; i++) values[i] = reader[1](i * reader[0]);
  return values;
}

export function readGolden(relative: string): { tensors: Map<string, StoredTensor>; metadata: Record<string, string> } {
  return parseSafetensors(readFixture(relative));
}

/** The reference's counter-based generator for inputs that are computed instead of stored. */
export function hash(index: number, seed: number): number {
  let h = (index + Math.imul(seed, 0x9e3779b9)) >>> 0;
  h ^= h >>> 16;
  h = Math.imul(h, 0x85ebca6b);
  h ^= h >>> 13;
  h = Math.imul(h, 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

/** A pixel value in [-1, 1), exact in bfloat16. */
export const pixel = (u: number): number => ((u >>> 24) - 128) / 128;

/** A roughly normal value, exact in bfloat16. */
export const normalish = (u: number): number =>
  (((u & 255) + ((u >>> 8) & 255) + ((u >>> 16) & 255) + (u >>> 24)) >> 2) / 32 - 127 / 32;

/** The nine checkpoints of the reference; the last two are derived from `fixed_p14_hd64` exactly. */
export const checkpointNames = [
  'fixed_p14_hd64',
  'fixed_p16_hd32',
  'fixed_p16_hd72',
  'fixed_p16_textproj',
  'naflex_hd64',
  'naflex_hd72',
  'naflex_hd96',
  'fixed_p14_hd64_bf16',
  'fixed_p14_hd64_bf16_sharded',
] as const;
export type CheckpointName = (typeof checkpointNames)[number];

/** A folder holding the named checkpoint in plain form, unpacked or derived once a machine. */
export function checkpointFolder(name: CheckpointName): string {
  const folder = path.join(tmpdir(), `siglip2-fixtures-1-${process.getuid?.() ?? 0}`, name);
  if (existsSync(folder)) return folder;
  mkdirSync(path.dirname(folder), { recursive: true });
  const building = mkdtempSync(`${folder}-`);
  const source = name.replace(/_bf16.*$/, '');
  const from = path.join(fixtures, 'checkpoints', source);
  for (const entry of readdirSync(from))
    if (!entry.startsWith('model.')) cpSync(path.join(from, entry), path.join(building, entry));
  const weights = readFixture(`checkpoints/${source}/model.safetensors`);
  if (name === source) writeFileSync(path.join(building, 'model.safetensors'), weights);
  else writeBfloat16(weights, building, name.endsWith('_sharded'));
  try {
    renameSync(building, folder);
  } catch (error) {
    // Another test process was first; its copy is the same.
    if (!existsSync(folder)) throw error;
  }
  return folder;
}

/** Rounds a float32 checkpoint to bfloat16 (nearest, ties to even), in one file or in two with an index. */
function writeBfloat16(weights: Buffer, folder: string, sharded: boolean): void {
  const tensors = [...parseSafetensors(weights).tensors].sort(([a], [b]) => (a < b ? -1 : 1));
  const rounded = tensors.map(([name, tensor]) => {
    const bytes = Buffer.alloc(tensor.bytes.length / 2);
    for (let i = 0; i < bytes.length; i += 2) {
      const bits = tensor.bytes.readUInt32LE(i * 2);
      bytes.writeUInt16LE(((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16) & 0xffff, i);
    }
    return { name, dtype: 'BF16', shape: tensor.shape, bytes };
  });
  if (!sharded) {
    writeFileSync(path.join(folder, 'model.safetensors'), buildSafetensors(rounded));
    return;
  }
  const half = Math.floor(rounded.length / 2);
  const shards = [rounded.slice(0, half), rounded.slice(half)];
  const weightMap: Record<string, string> = {};
  shards.forEach((shard, index) => {
    const file = `model-0000${index + 1}-of-00002.safetensors`;
    writeFileSync(path.join(folder, file), buildSafetensors(shard));
    for (const tensor of shard) weightMap[tensor.name] = file;
  });
  const total = rounded.reduce((sum, tensor) => sum + tensor.bytes.length, 0);
  writeFileSync(
    path.join(folder, 'model.safetensors.index.json'),
    JSON.stringify({ metadata: { total_size: total }, weight_map: weightMap }),
  );
}

/** A safetensors file from tensors in the given order, for tests that need one of their own. */
export function buildSafetensors(
  tensors: { name: string; dtype: string; shape: number[]; bytes: Buffer }[],
  metadata?: Record<string, string>,
): Buffer {
  const header: Record<string, unknown> = metadata === undefined ? {} : { __metadata__: metadata };
  let offset = 0;
  for (const { name, dtype, shape, bytes } of tensors) {
    header[name] = { dtype, shape, data_offsets: [offset, offset + bytes.length] };
    offset += bytes.length;
  }
  let json = JSON.stringify(header);
  json += ' '.repeat((8 - (Buffer.byteLength(json) % 8)) % 8);
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(Buffer.byteLength(json)));
  return Buffer.concat([size, Buffer.from(json), ...tensors.map((tensor) => tensor.bytes)]);
}
