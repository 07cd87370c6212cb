import { truncateSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  parseSafetensorsHeader,
  readSafetensorsHeader,
  safetensorsDTypes,
  tensorBytes,
} from '../../lib/model/safetensors.js';
import { expectSiglipError } from '../support/errors.js';
import { temporaryFolder } from '../support/folders.js';
import {
  buildSafetensors,
  checkpointFolder,
  checkpointNames,
  parseSafetensors,
  readFixture,
} from '../support/golden.js';

/** A file with this header text and so many bytes of data. */
function fileOf(header: unknown, dataBytes = 0): Buffer {
  const text = Buffer.isBuffer(header)
    ? header
    : Buffer.from(typeof header === 'string' ? header : JSON.stringify(header));
  const prefix = Buffer.alloc(8);
  prefix.writeBigUInt64LE(BigInt(text.length));
  return Buffer.concat([prefix, text, Buffer.alloc(dataBytes, 0xff)]);
}

const parse = (file: Buffer, size = file.length) => parseSafetensorsHeader(file, size, 'weights.safetensors');
const tensor = (dtype: unknown, shape: unknown, data_offsets: unknown) => ({ dtype, shape, data_offsets });
const four = tensor('F32', [1], [0, 4]);

describe('parseSafetensorsHeader', () => {
  it('gives absolute byte ranges, in the order of the bytes', () => {
    const header = {
      __metadata__: { format: 'pt' },
      b: tensor('F32', [2], [4, 12]),
      a: tensor('BF16', [2, 1], [0, 4]),
    };
    const file = fileOf(header, 12);
    const dataOffset = file.length - 12;
    const parsed = parse(file);
    expect(parsed).toMatchObject({ path: 'weights.safetensors', size: file.length, dataOffset });
    expect([...parsed.metadata]).toEqual([['format', 'pt']]);
    expect([...parsed.tensors]).toEqual([
      ['a', { dtype: 'BF16', shape: [2, 1], begin: dataOffset, end: dataOffset + 4 }],
      ['b', { dtype: 'F32', shape: [2], begin: dataOffset + 4, end: dataOffset + 12 }],
    ]);
  });

  it('accepts scalars, empty tensors, sub-byte types, padding, and no tensors at all', () => {
    const header = {
      empty: tensor('F32', [3, 0], [0, 0]),
      scalar: tensor('F64', [], [0, 8]),
      packed: tensor('F4', [2, 4], [8, 12]),
      listedLate: tensor('U16', [0, 2], [8, 8]),
      between: tensor('I8', [0], [12, 12]),
    };
    expect(parse(fileOf(`${JSON.stringify(header)}\n   `, 12)).tensors.size).toBe(5);
    expect(parse(fileOf({})).tensors.size).toBe(0);
    expect(parse(fileOf({ __metadata__: null })).metadata.size).toBe(0);
  });

  it('keeps names that are special to JavaScript apart from its objects', () => {
    const file = fileOf(
      '{"__proto__": {"dtype":"U8","shape":[1],"data_offsets":[0,1]}, "constructor": {"dtype":"U8","shape":[1],"data_offsets":[1,2]}}',
      2,
    );
    expect([...parse(file).tensors.keys()]).toEqual(['__proto__', 'constructor']);
  });

  it('reads only the header of a file whose weights are not there', () => {
    const file = fileOf({ a: tensor('F32', [2 ** 40], [0, 2 ** 42]) });
    expect(parse(file, file.length + 2 ** 42).tensors.get('a')?.end).toBe(file.length + 2 ** 42);
  });

  const huge = Number.MAX_SAFE_INTEGER;
  it.each<[string, Buffer, (string | RegExp)[]]>([
    ['an empty file', Buffer.alloc(0), ['0 bytes', '8']],
    ['7 bytes', Buffer.alloc(7), ['7 bytes']],
    ['a header past the end', Buffer.concat([Buffer.from([9, 0, 0, 0, 0, 0, 0, 0]), Buffer.from('{}')]), ['17', '10']],
    ['a header of 2^64 - 1 bytes', Buffer.alloc(16, 0xff), ['18446744073709551615', '100000000']],
    ['a header just above the limit', Buffer.from('01e1f50500000000', 'hex'), ['100000001']],
    ['an empty header', fileOf(''), ['not valid JSON', 'end of text']],
    ['a header that is not UTF-8', fileOf(Buffer.from([0x7b, 0xff, 0x7d])), ['UTF-8']],
    ['a byte order mark', fileOf('\uFEFF{}'), ['not valid JSON']],
    ['a pickle', fileOf(Buffer.from('PK\x03\x04 archive')), ['not valid JSON']],
    ['an array', fileOf([]), ['not a JSON object']],
    ['null', fileOf('null'), ['not a JSON object']],
    ['text after the header', fileOf('{}{}'), ['not valid JSON', 'position 2']],
    ['a tensor twice', fileOf(`{"a":${JSON.stringify(four)},"a":${JSON.stringify(four)}}`, 4), ['duplicate key "a"']],
    ['an empty tensor twice', fileOf('{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{}}'), ['duplicate']],
    ['metadata that is a list', fileOf({ __metadata__: [] }), ['__metadata__']],
    ['metadata that is a number', fileOf({ __metadata__: { epoch: 3 } }), ['__metadata__', '"epoch"', '3']],
    ['an entry that is a string', fileOf({ a: 'x' }), ['tensor "a"', '"x"']],
    ['an entry without members', fileOf({ a: {} }), ['tensor "a"', 'dtype', 'undefined']],
    ['an unknown dtype', fileOf({ a: tensor('F128', [1], [0, 16]) }, 16), ['tensor "a"', '"F128"']],
    ['a dtype from the prototype', fileOf({ a: tensor('constructor', [1], [0, 4]) }, 4), ['"constructor"']],
    ['a dtype in lower case', fileOf({ a: tensor('f32', [1], [0, 4]) }, 4), ['"f32"']],
    ['a shape that is a number', fileOf({ a: tensor('F32', 1, [0, 4]) }, 4), ['tensor "a"', 'shape']],
    ['a negative size', fileOf({ a: tensor('F32', [-1], [0, 4]) }, 4), ['non-negative integers']],
    ['a fractional size', fileOf({ a: tensor('F32', [1.5], [0, 6]) }, 6), ['non-negative integers']],
    ['an exponent', fileOf('{"a":{"dtype":"U8","shape":[1e0],"data_offsets":[0,1]}}', 1), ['non-negative integers']],
    [
      'a size beyond 2^53',
      fileOf('{"a":{"dtype":"U8","shape":[9007199254740993],"data_offsets":[0,1]}}', 1),
      ['shape'],
    ],
    ['a product that overflows', fileOf({ a: tensor('F32', [huge, huge], [0, 4]) }, 4), ['representable size']],
    ['an overflow hidden by a 0', fileOf({ a: tensor('F32', [huge, huge, 0], [0, 0]) }), ['representable size']],
    ['bits that overflow', fileOf({ a: tensor('F64', [huge], [0, 8]) }, 8), ['representable size']],
    ['half a byte', fileOf({ a: tensor('F4', [1], [0, 1]) }, 1), ['representable size']],
    ['one offset', fileOf({ a: tensor('F32', [1], [0]) }, 4), ['data_offsets']],
    ['three offsets', fileOf({ a: tensor('F32', [1], [0, 4, 8]) }, 8), ['data_offsets']],
    ['offsets in quotes', fileOf({ a: tensor('F32', [1], ['0', '4']) }, 4), ['data_offsets']],
    ['offsets in the wrong order', fileOf({ a: tensor('F32', [1], [4, 0]) }, 4), ['[4, 0]']],
    ['too few bytes', fileOf({ a: tensor('F32', [2], [0, 4]) }, 4), ['tensor "a"', 'needs 8 bytes', 'give 4']],
    ['too many bytes', fileOf({ a: tensor('F32', [1], [0, 8]) }, 8), ['needs 4 bytes', 'give 8']],
    ['a range past the end', fileOf({ a: four }, 3), ['tensor "a"', 'truncated']],
    ['an overlap', fileOf({ a: four, b: tensor('F32', [1], [2, 6]) }, 6), ['"a"', '"b"', 'overlap']],
    ['an overlap of one byte', fileOf({ a: four, b: tensor('U8', [2], [3, 5]) }, 5), ['overlap']],
    ['the same bytes twice', fileOf({ a: four, b: four }, 4), ['overlap']],
    ['an empty tensor inside another', fileOf({ a: four, b: tensor('U8', [0], [2, 2]) }, 4), ['overlap']],
    ['a hole', fileOf({ a: four, b: tensor('F32', [1], [8, 12]) }, 12), [/bytes \d+ to \d+/, '"b"']],
    ['a hole at the start', fileOf({ a: tensor('F32', [1], [4, 8]) }, 8), ['belong to no tensor']],
    ['bytes after the last tensor', fileOf({ a: four }, 5), ['1 bytes after']],
    ['bytes without a tensor', fileOf({}, 1), ['1 bytes after']],
    ['nesting without end', fileOf('['.repeat(1e5)), ['nesting']],
  ])('refuses %s', async (_, file, parts) => {
    await expectSiglipError(() => parse(file), 'ERR_SIGLIP_CHECKPOINT', 'weights.safetensors', ...parts);
  });

  it('tells the details to programs', async () => {
    const error = await expectSiglipError(() => parse(fileOf({ a: four }, 3)), 'ERR_SIGLIP_CHECKPOINT');
    const size = fileOf({ a: four }).length;
    expect(error.details).toEqual({
      file: 'weights.safetensors',
      tensor: 'a',
      bytes: size + 3,
      expectedBytes: size + 4,
    });
  });
});

describe('tensorBytes', () => {
  it('knows the size of every dtype', () => {
    const bytes = Object.fromEntries(safetensorsDTypes.map((dtype) => [dtype, tensorBytes(dtype, [8])]));
    expect(bytes).toEqual({
      ...{ BOOL: 8, F4: 4, F6_E2M3: 6, F6_E3M2: 6, U8: 8, I8: 8, F8_E5M2: 8, F8_E4M3: 8, F8_E8M0: 8 },
      ...{ F8_E4M3FNUZ: 8, F8_E5M2FNUZ: 8, I16: 16, U16: 16, F16: 16, BF16: 16, I32: 32, U32: 32, F32: 32 },
      ...{ C64: 64, F64: 64, I64: 64, U64: 64 },
    });
  });
});

describe('readSafetensorsHeader', () => {
  it.each(checkpointNames.filter((name) => !name.endsWith('_sharded')))(
    'agrees with the reference on %s',
    async (name) => {
      const file = await readSafetensorsHeader(path.join(checkpointFolder(name), 'model.safetensors'));
      if (name.endsWith('_bf16'))
        return expect([...file.tensors.values()].every(({ dtype }) => dtype === 'BF16')).toBe(true);
      const bytes = readFixture(`checkpoints/${name}/model.safetensors`);
      const expected = parseSafetensors(bytes).tensors;
      expect(file.size).toBe(bytes.length);
      expect([...file.tensors.keys()].sort()).toEqual([...expected.keys()].sort());
      for (const [tensorName, { dtype, shape, begin, end }] of file.tensors) {
        expect({ dtype, shape }).toEqual({
          dtype: expected.get(tensorName)!.dtype,
          shape: expected.get(tensorName)!.shape,
        });
        expect(bytes.subarray(begin, end).equals(expected.get(tensorName)!.bytes)).toBe(true);
      }
    },
  );

  it('does not mind weights that are not numbers', async () => {
    const nan = Buffer.from('0000c07f', 'hex');
    const folder = temporaryFolder({
      'a.safetensors': buildSafetensors([{ name: 'a', dtype: 'F32', shape: [1], bytes: nan }]),
    });
    expect((await readSafetensorsHeader(path.join(folder, 'a.safetensors'))).tensors.size).toBe(1);
  });

  it('refuses every truncation of a file', async () => {
    const bytes = buildSafetensors([
      { name: 'a', dtype: 'F32', shape: [2], bytes: Buffer.alloc(8) },
      { name: 'b', dtype: 'F16', shape: [1], bytes: Buffer.alloc(2) },
    ]);
    const file = path.join(temporaryFolder(), 'model.safetensors');
    writeFileSync(file, bytes);
    for (let size = bytes.length - 1; size >= 0; size--) {
      truncateSync(file, size);
      await expectSiglipError(() => readSafetensorsHeader(file), 'ERR_SIGLIP_CHECKPOINT', file);
    }
  });

  it('names files that are missing or folders', async () => {
    const folder = temporaryFolder();
    await expectSiglipError(
      () => readSafetensorsHeader(`${folder}/absent`),
      'ERR_SIGLIP_CHECKPOINT',
      'absent',
      'ENOENT',
    );
    await expectSiglipError(() => readSafetensorsHeader(folder), 'ERR_SIGLIP_CHECKPOINT', folder, 'not a file');
  });
});
