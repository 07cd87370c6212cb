/** Packed weights that are kept in files: used, replaced when they do not fit, and never needed. */
import {
  cpSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { Siglip2 } from '../../lib/index.js';
import { native } from '../../lib/native.js';
import { expectSiglipError } from '../support/errors.js';
import { temporaryFolder } from '../support/folders.js';
import { checkpointFolder } from '../support/golden.js';
import { textInput, visionInput } from '../support/inputs.js';

/** A checkpoint of its own, so that no other handle shares its towers, and a folder that does not exist yet. */
function setUp() {
  const folder = temporaryFolder();
  const checkpoint = path.join(folder, 'model');
  cpSync(checkpointFolder('naflex_hd64'), checkpoint, { recursive: true });
  return {
    checkpoint,
    weights: path.join(checkpoint, 'model.safetensors'),
    kept: path.join(folder, 'kept', 'weights'),
  };
}

type Options = NonNullable<Parameters<typeof Siglip2.load>[1]>;

/** What both towers make of some input. */
async function features(checkpoint: string, options: Options): Promise<number[]> {
  using model = await Siglip2.load(checkpoint, { device: 'cpu', ...options });
  const image = await model.vision.forward(visionInput(model.config, [1, 5]));
  const texts = await model.text.forward(...textInput(model.config, [1, 2]));
  return [...image.pooled.data, ...texts.pooled.data];
}

const filesOf = (folder: string) => readdirSync(folder).map((name) => path.join(folder, name));
const stampOf = (file: string) => {
  const { ino, mtimeMs } = statSync(file);
  return `${ino} ${mtimeMs}`;
};

describe('packedCache', () => {
  it.each(['float32', 'bfloat16', 'int8'] as const)('keeps packed weights in %s and uses them', async (dtype) => {
    const { checkpoint, kept } = setUp();
    const expected = await features(checkpoint, { dtype });
    expect(await features(checkpoint, { dtype, packedCache: kept })).toEqual(expected);
    const files = filesOf(kept);
    expect(files.map((file) => path.basename(file).split('-').slice(0, 2)).sort()).toEqual([
      ['text', dtype],
      ['vision', dtype],
    ]);
    const stamps = files.map(stampOf);
    expect(await features(checkpoint, { dtype, packedCache: kept })).toEqual(expected);
    expect(files.map(stampOf)).toEqual(stamps);

    // They are what is read: other weights in them give other features.
    for (const file of files) {
      const bytes = readFileSync(file);
      bytes.fill(0, Math.floor(bytes.length / 2));
      writeFileSync(file, bytes);
    }
    expect(await features(checkpoint, { dtype, packedCache: kept })).not.toEqual(expected);
    expect(await features(checkpoint, { dtype })).toEqual(expected);
  });

  it('replaces the weights of a checkpoint that has changed, whatever its modification time', async () => {
    const { checkpoint, weights, kept } = setUp();
    const before = await features(checkpoint, { packedCache: kept });
    const names = readdirSync(kept);
    const { atime, mtime } = statSync(weights);
    const bytes = readFileSync(weights);
    const data = 8 + Number(bytes.readBigUInt64LE());
    for (let i = data + 3; i < bytes.length; i += 4) bytes[i] = bytes[i]! ^ 0x80; // the signs
    writeFileSync(weights, bytes);
    utimesSync(weights, atime, mtime);
    const after = await features(checkpoint, { packedCache: kept });
    expect(after).not.toEqual(before);
    expect(after).toEqual(await features(checkpoint, {}));
    expect(readdirSync(kept)).toEqual(names);
  });

  it.each([
    ['cut in its entries', (bytes: Buffer) => bytes.subarray(0, bytes.length - 64)],
    ['cut in its index', (bytes: Buffer) => bytes.subarray(0, 100)],
    ['cut in its header', (bytes: Buffer) => bytes.subarray(0, 20)],
    ['empty', () => Buffer.alloc(0)],
    ['of another kind', (bytes: Buffer) => Buffer.from(bytes.map((byte, i) => (i === 3 ? byte ^ 1 : byte)))],
    ['changed in its index', (bytes: Buffer) => Buffer.from(bytes.map((byte, i) => (i === 90 ? byte ^ 1 : byte)))],
    ['longer than it was', (bytes: Buffer) => Buffer.concat([bytes, Buffer.alloc(64)])],
  ])('replaces a file that is %s', async (_, change) => {
    const { checkpoint, kept } = setUp();
    const expected = await features(checkpoint, { packedCache: kept });
    const whole = filesOf(kept).map((file) => readFileSync(file));
    for (const file of filesOf(kept)) writeFileSync(file, change(readFileSync(file)));
    expect(await features(checkpoint, { packedCache: kept })).toEqual(expected);
    for (const [i, file] of filesOf(kept).entries()) expect(readFileSync(file).equals(whole[i]!)).toBe(true);
  });

  it('removes what a writer has left behind an hour ago, and nothing of others', async () => {
    const { checkpoint, kept } = setUp();
    await features(checkpoint, { packedCache: kept });
    const [name] = readdirSync(kept) as [string];
    const others = ['my work.tmp', `${name}.backup.tmp`, `${name}.0123456789abcdefg.tmp`, '0123456789abcdef.tmp'];
    const left = `${name}.0123456789abcdef.tmp`;
    const fresh = `${name}.fedcba9876543210.tmp`;
    for (const file of [...others, left, fresh]) writeFileSync(path.join(kept, file), 'x');
    mkdirSync(path.join(kept, `${name}.00000000.tmp`));
    const old = new Date(Date.now() - 2 * 3_600_000);
    for (const file of readdirSync(kept)) if (file !== fresh) utimesSync(path.join(kept, file), old, old);
    for (const file of filesOf(kept)) if (file.endsWith('.packed')) truncateSync(file, 0);
    await features(checkpoint, { packedCache: kept });
    const after = readdirSync(kept);
    expect(after).not.toContain(left);
    for (const file of [...others, fresh, `${name}.00000000.tmp`]) expect(after).toContain(file);
  });

  it('is named after the instruction set that packs, whatever the environment says later', async () => {
    const { checkpoint, kept } = setUp();
    const expected = await features(checkpoint, { packedCache: kept });
    const names = readdirSync(kept);
    const before = process.env.SIGLIP2_ISA;
    try {
      process.env.SIGLIP2_ISA = before === 'baseline' ? 'amxemulated' : 'baseline';
      expect(await features(checkpoint, { packedCache: kept })).toEqual(expected);
      expect(readdirSync(kept)).toEqual(names);
      expect(native().describe().instructionSet).toBe(names[0]!.split('-')[2]);
    } finally {
      if (before === undefined) delete process.env.SIGLIP2_ISA;
      else process.env.SIGLIP2_ISA = before;
    }
  });

  it('does without where nothing can be written', async () => {
    const { checkpoint, kept } = setUp();
    const expected = await features(checkpoint, {});
    writeFileSync(path.dirname(kept), 'a file in the way');
    expect(await features(checkpoint, { packedCache: kept })).toEqual(expected);
  });

  it('gives an error when a file is cut while it is in use', async () => {
    const { checkpoint, kept } = setUp();
    await features(checkpoint, { packedCache: kept });
    using model = await Siglip2.load(checkpoint, { device: 'cpu', packedCache: kept });
    for (const file of filesOf(kept)) truncateSync(file, 4096);
    const image = visionInput(model.config, [1]);
    const texts = textInput(model.config, [1]);
    await expectSiglipError(() => model.vision.forward(image), 'ERR_SIGLIP_CHECKPOINT', 'vision', 'cut to 4096 bytes');
    await expectSiglipError(() => model.text.forward(...texts), 'ERR_SIGLIP_CHECKPOINT', 'text', 'cut to 4096 bytes');
  });

  it('lies in the cache of the package unless a folder is named', async () => {
    const { checkpoint, kept } = setUp();
    const before = process.env.SIGLIP2_CACHE;
    try {
      process.env.SIGLIP2_CACHE = 'off';
      const expected = await features(checkpoint, { packedCache: true });
      process.env.SIGLIP2_CACHE = path.dirname(kept);
      expect(await features(checkpoint, { packedCache: true })).toEqual(expected);
      expect(readdirSync(kept).length).toBe(2);
    } finally {
      if (before === undefined) delete process.env.SIGLIP2_CACHE;
      else process.env.SIGLIP2_CACHE = before;
    }
  });

  it('is a boolean or the name of a folder', async () => {
    for (const packedCache of [1, '', null, {}])
      await expect(Siglip2.load('/nowhere', { packedCache: packedCache as never })).rejects.toThrow(
        /options\.packedCache: expected a boolean or the name of a folder/,
      );
  });
});
