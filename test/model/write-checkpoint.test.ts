import { cpSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { type CheckpointFiles, checkParameters, openCheckpointFiles } from '../../lib/model/checkpoint-files.js';
import { readConfig } from '../../lib/model/config.js';
import { configToJson } from '../../lib/model/reconcile-config.js';
import { readSafetensorsHeader } from '../../lib/model/safetensors.js';
import { headerBytes, type TensorSource } from '../../lib/model/safetensors-writer.js';
import { type CheckpointContent, writeCheckpoint } from '../../lib/model/write-checkpoint.js';
import { expectSiglipError } from '../support/errors.js';
import { temporaryFolder } from '../support/folders.js';
import { checkpointFolder, checkpointNames, parseSafetensors } from '../support/golden.js';

/** Counts the calls that change a folder; from the call numbered `failFrom` to `failTo` they fail without effect. */
const disk = vi.hoisted(() => ({ calls: 0, failFrom: Infinity, failTo: Infinity, names: [] as string[] }));

vi.mock('node:fs/promises', async (importOriginal) => {
  const original = await importOriginal<typeof import('node:fs/promises')>();
  const failing =
    <A extends unknown[], R>(name: string, action: (...args: A) => Promise<R>) =>
    async (...args: A): Promise<R> => {
      const call = disk.calls++;
      disk.names.push(name);
      if (call >= disk.failFrom && call <= disk.failTo)
        throw Object.assign(new Error(`no space left on device, ${name}`), { code: 'ENOSPC' });
      return action(...args);
    };
  const { rename, rm, link, copyFile, open } = original;
  return {
    ...original,
    rename: failing('rename', rename),
    rm: failing('rm', rm),
    link: failing('link', link),
    copyFile: failing('copyFile', copyFile),
    open: async (...args: Parameters<typeof open>) => {
      const isNew = args[1] === 'wx';
      const handle = await (isNew ? failing('open', open) : open)(...args);
      // A test cannot tell whether bytes have reached the disk, only that it was asked for; not waiting makes it fast.
      handle.sync = failing(isNew ? 'sync' : 'syncFolder', async () => undefined);
      return handle;
    },
  };
});

function resetDisk(): void {
  Object.assign(disk, { calls: 0, failFrom: Infinity, failTo: Infinity, names: [] });
}
afterEach(resetDisk);

/** Six tensors of 8 bytes, all filled with `fill`. */
function tensors(fill: number, names = ['a', 'b', 'c', 'd', 'e', 'f']): TensorSource[] {
  return names.map((name) => ({ name, dtype: 'F32', shape: [2], read: async () => new Uint8Array(8).fill(fill) }));
}

function content(fill: number, maxShardBytes?: number): CheckpointContent {
  return {
    configJson: { model_type: 'siglip', fill },
    preprocessorJson: { resample: 2, fill },
    tensors: tensors(fill),
    ...(maxShardBytes === undefined ? {} : { maxShardBytes }),
  };
}

/** What a reader finds: every tensor must be filled with one value, the same for all. */
async function storedFill(folder: string): Promise<number> {
  const { tensors: found } = await openCheckpointFiles(folder);
  expect([...found.keys()].sort()).toEqual(['a', 'b', 'c', 'd', 'e', 'f']);
  const values = [...found.values()].flatMap(({ file, begin, end }) => [
    ...readFileSync(file.path).subarray(begin, end),
  ]);
  expect(new Set(values).size).toBe(1);
  return values[0]!;
}

const files = (folder: string): string[] => readdirSync(folder).sort();
const snapshot = (folder: string): Record<string, string> =>
  Object.fromEntries(
    files(folder)
      .filter((name) => statSync(path.join(folder, name)).isFile())
      .map((name) => [name, readFileSync(path.join(folder, name), 'latin1')]),
  );

/** The tensors of an opened checkpoint, in the order of its files. */
function sourcesOf({ tensors: found }: CheckpointFiles): TensorSource[] {
  return [...found].map(([name, { dtype, shape, file, begin, end }]) => ({
    name,
    dtype,
    shape,
    read: async () => (await readFile(file.path)).subarray(begin, end),
  }));
}

describe('writeCheckpoint', () => {
  const single = checkpointNames.filter((name) => !name.includes('_bf16'));
  it.each(single)('writes %s back byte for byte', async (name) => {
    const source = checkpointFolder(name);
    const config = await readConfig(source);
    const { config: configJson, preprocessor: preprocessorJson } = configToJson(config);
    const target = path.join(temporaryFolder(), 'made', 'on', 'demand');
    const tokenizerFiles = ['tokenizer.json', 'tokenizer_config.json'].map((file) => ({
      name: file,
      path: path.join(source, file),
    }));
    const shuffled = sourcesOf(await openCheckpointFiles(source)).reverse();
    await writeCheckpoint(target, { configJson, preprocessorJson, tokenizerFiles, tensors: shuffled });
    // The marker of random weights is no part of a checkpoint.
    expect(files(target)).toEqual(files(source).filter((file) => file !== 'RANDOM_WEIGHTS'));
    for (const file of ['model.safetensors', 'tokenizer.json', 'tokenizer_config.json'])
      expect(readFileSync(path.join(target, file)).equals(readFileSync(path.join(source, file))), file).toBe(true);
    const saved = await readConfig(target);
    expect(saved).toEqual(config);
    expect(checkParameters(saved, await openCheckpointFiles(target))).toEqual([]);
  });

  it.each([undefined, 16])(
    'leaves the last of several that are written at once, in files of at most %s bytes',
    async (limit) => {
      const folder = temporaryFolder();
      await writeCheckpoint(folder, content(1));
      await Promise.all([2, 3, 4].map((fill) => writeCheckpoint(folder, content(fill, limit))));
      expect(await storedFill(folder)).toBe(4);
      expect(files(folder).filter((name) => name.startsWith('.'))).toEqual([]);
    },
  );

  it('goes on with the next when one of several fails', async () => {
    const folder = temporaryFolder();
    const failing = tensors(5).map((tensor) => ({ ...tensor, read: () => Promise.reject(new Error('gone')) }));
    const writes = [content(1, 16), { ...content(2, 16), tensors: failing }, content(3, 16)];
    const outcomes = await Promise.allSettled(writes.map((each) => writeCheckpoint(folder, each)));
    expect(outcomes.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled']);
    expect(await storedFill(folder)).toBe(3);
  });

  it('splits into shards that are read back as the whole', async () => {
    const source = checkpointFolder('fixed_p14_hd64');
    const whole = await openCheckpointFiles(source);
    const { config: configJson } = configToJson(await readConfig(source));
    const folder = temporaryFolder();
    await writeCheckpoint(folder, { configJson, tensors: sourcesOf(whole), maxShardBytes: 200_000 });
    const opened = await openCheckpointFiles(folder);
    expect(opened.files.length).toBeGreaterThan(2);
    const count = String(opened.files.length).padStart(5, '0');
    expect(files(folder)).toEqual([
      'config.json',
      ...opened.files.map((_, i) => `model-${String(i + 1).padStart(5, '0')}-of-${count}.safetensors`),
      'model.safetensors.index.json',
    ]);
    const bytes = ({ file, begin, end }: { file: { path: string }; begin: number; end: number }) =>
      readFileSync(file.path).subarray(begin, end).toString('base64');
    expect(opened.tensors.size).toBe(whole.tensors.size);
    for (const [name, tensor] of whole.tensors) expect(bytes(opened.tensors.get(name)!)).toBe(bytes(tensor));
    const index = JSON.parse(readFileSync(path.join(folder, 'model.safetensors.index.json'), 'utf8'));
    const total = [...whole.tensors.values()].reduce((sum, { begin, end }) => sum + end - begin, 0);
    expect(index.metadata).toEqual({ total_size: total });
  });

  it.each([
    [[6, 6, 2, 6, 2, 2], 10, ['a', 'bc', 'def']],
    [[20, 4, 20, 6], 10, ['a', 'c', 'bd']],
    [[10, 10], 10, ['a', 'b']],
    [[5, 5], 10, ['ab']],
  ])('fills shards in order: %j within %i', async (sizes, maxShardBytes, expected) => {
    const folder = temporaryFolder();
    const sources = sizes.map((size, i): TensorSource => {
      const name = 'abcdef'[i]!;
      return { name, dtype: 'U8', shape: [size], read: async () => new Uint8Array(size) };
    });
    await writeCheckpoint(folder, { configJson: {}, tensors: sources, maxShardBytes });
    const { files: shards } = await openCheckpointFiles(folder);
    const found = shards.map(({ path: file, tensors: entries }) => [file, [...entries.keys()].join('')]).sort();
    expect(found.map(([, names]) => names)).toEqual(expected);
  });

  it('lays a header out as the reference library does', () => {
    // Header of safetensors.torch.save_file for the same tensors, safetensors 0.8.0.
    const reference =
      '{"__metadata__":{"format":"pt"},"z":{"dtype":"I64","shape":[3],"data_offsets":[0,24]},' +
      '"a":{"dtype":"F32","shape":[],"data_offsets":[24,28]},' +
      '"é\\"\\\\\\n\\u0001\u007f":{"dtype":"F32","shape":[2],"data_offsets":[28,36]},' +
      '"b":{"dtype":"BF16","shape":[1],"data_offsets":[36,38]},"A":{"dtype":"F16","shape":[1],"data_offsets":[38,40]}}';
    const source = (name: string, dtype: TensorSource['dtype'], shape: number[]): TensorSource => ({
      ...{ name, dtype, shape },
      read: async () => new Uint8Array(),
    });
    const ordered = [
      source('z', 'I64', [3]),
      source('a', 'F32', []),
      source('é"\\\n\u0001\u007f', 'F32', [2]),
      source('b', 'BF16', [1]),
      source('A', 'F16', [1]),
    ];
    const bytes = headerBytes(ordered, { format: 'pt' });
    expect(bytes.subarray(8).toString('utf8').trimEnd()).toBe(reference);
    expect(bytes.readBigUInt64LE()).toBe(320n);
    expect(bytes.length).toBe(328);
  });

  it('sorts tensors by alignment and then by the bytes of their names', async () => {
    const folder = temporaryFolder();
    const dtypes = { é: 'F16', Z: 'F16', b: 'F32', a: 'BF16', c: 'I64', '\uffff': 'F32', '\u{10000}': 'F32' } as const;
    const sources = Object.entries(dtypes).map(([name, dtype]): TensorSource => {
      const bytes = { F16: 2, BF16: 2, F32: 4, I64: 8 }[dtype];
      return { name, dtype, shape: [1], read: async () => new Uint8Array(bytes) };
    });
    await writeCheckpoint(folder, { configJson: {}, tensors: sources });
    const written = await readSafetensorsHeader(path.join(folder, 'model.safetensors'));
    expect([...written.tensors.keys()]).toEqual(['c', 'b', '\uffff', '\u{10000}', 'a', 'Z', 'é']);
    expect([...written.metadata]).toEqual([['format', 'pt']]);
  });

  it('takes bytes in pieces', async () => {
    const folder = temporaryFolder();
    async function* pieces() {
      yield new Uint8Array([1, 2, 3]);
      yield new Uint8Array();
      yield new Uint8Array([4]);
    }
    await writeCheckpoint(folder, { configJson: {}, tensors: [{ name: 'a', dtype: 'U8', shape: [4], read: pieces }] });
    const { tensors: stored } = parseSafetensors(readFileSync(path.join(folder, 'model.safetensors')));
    expect([...stored.get('a')!.bytes]).toEqual([1, 2, 3, 4]);
  });

  it('keeps whole numbers that transformers reads as floats from becoming integers', async () => {
    const folder = temporaryFolder();
    const tower = { layer_norm_eps: 1, attention_dropout: 0, hidden_size: 64, note: '\n  "initializer_factor": 1' };
    const configJson = { initializer_factor: 1, text_config: tower, initializer_range: 0.02 };
    await writeCheckpoint(folder, { ...content(1), configJson });
    const text = readFileSync(path.join(folder, 'config.json'), 'utf8');
    expect(JSON.parse(text)).toEqual(configJson);
    const lines = text.split('\n').map((line) => line.trim());
    expect(lines).toContain('"initializer_factor": 1.0,');
    expect(lines).toContain('"layer_norm_eps": 1.0,');
    expect(lines).toContain('"attention_dropout": 0.0,');
    expect(lines).toContain('"hidden_size": 64,');
    expect(lines).toContain('"initializer_range": 0.02');
  });

  it('has every file on the disk before it puts the first in place', async () => {
    resetDisk();
    await writeCheckpoint(temporaryFolder(), content(1, 16));
    const firstRename = disk.names.indexOf('rename');
    const written = disk.names.slice(0, firstRename);
    expect(written).toEqual([
      'open',
      'sync',
      'open',
      'sync',
      'open',
      'sync',
      'open',
      'sync',
      'open',
      'sync',
      'copyFile',
    ]);
    expect(disk.names.slice(firstRename).filter((name) => name === 'open' || name === 'sync')).toEqual([
      'open',
      'sync',
    ]);
  });

  it('removes what only the checkpoint before it used, and nothing else', async () => {
    const folder = temporaryFolder({ 'notes.txt': 'mine', 'other.safetensors': 'mine' });
    await writeCheckpoint(folder, content(1, 16));
    writeFileSync(path.join(folder, 'processor_config.json'), '{"image_processor": {"resample": 3}}');
    await writeCheckpoint(folder, content(2));
    const common = ['config.json', 'notes.txt', 'other.safetensors', 'preprocessor_config.json'];
    expect(files(folder)).toEqual([...common, 'model.safetensors'].sort());
    await writeCheckpoint(folder, content(3, 24));
    expect(files(folder).filter((name) => name.startsWith('model'))).toEqual([
      'model-00001-of-00002.safetensors',
      'model-00002-of-00002.safetensors',
      'model.safetensors.index.json',
    ]);
    expect(await storedFill(folder)).toBe(3);
  });
});

describe('a failure while writing', () => {
  const failures: [string, Partial<CheckpointContent>, string, string[]][] = [
    [
      'a source that fails',
      {
        tensors: [
          ...tensors(2).slice(0, 5),
          { ...tensors(2)[5]!, read: () => Promise.reject(new Error('bad sector')) },
        ],
      },
      'ERR_SIGLIP_CHECKPOINT',
      ['bad sector'],
    ],
    [
      'a source that gives too little',
      { tensors: [{ ...tensors(2)[0]!, read: async () => new Uint8Array(7) }] },
      'ERR_SIGLIP_CHECKPOINT',
      ['"a"', '8 bytes', 'gave 7'],
    ],
    [
      'a source that gives too much',
      { tensors: [{ ...tensors(2)[0]!, read: async () => new Uint8Array(9) }] },
      'ERR_SIGLIP_CHECKPOINT',
      ['gave 9'],
    ],
    ['a tensor twice', { tensors: tensors(2, ['a', 'a']) }, 'ERR_SIGLIP_CHECKPOINT', ['"a"']],
    [
      'a tensor named like the metadata',
      { tensors: tensors(2, ['__metadata__']) },
      'ERR_SIGLIP_CHECKPOINT',
      ['__metadata__'],
    ],
    [
      'a tokenizer that is gone',
      { tokenizerFiles: [{ name: 't.json', path: '/absent' }] },
      'ERR_SIGLIP_CHECKPOINT',
      ['ENOENT'],
    ],
    [
      'a tokenizer outside',
      { tokenizerFiles: [{ name: '../t', path: '/absent' }] },
      'ERR_SIGLIP_CHECKPOINT',
      ['"../t"'],
    ],
    ['a tokenizer named ..', { tokenizerFiles: [{ name: '..', path: '/absent' }] }, 'ERR_SIGLIP_CHECKPOINT', ['".."']],
    [
      'a tokenizer that would be the weights',
      { tokenizerFiles: [{ name: 'model.safetensors', path: '/absent' }] },
      'ERR_SIGLIP_CHECKPOINT',
      ['model.safetensors'],
    ],
    ['a signal that has fired', { signal: AbortSignal.abort() }, 'ERR_SIGLIP_ABORTED', []],
  ];
  it.each(failures)('leaves the folder as it was: %s', async (_, change, code, parts) => {
    const folder = temporaryFolder();
    await writeCheckpoint(folder, content(1, 16));
    const before = snapshot(folder);
    for (const maxShardBytes of [undefined, 16]) {
      const broken = { ...content(2, maxShardBytes), ...change };
      await expectSiglipError(() => writeCheckpoint(folder, broken), code as 'ERR_SIGLIP_CHECKPOINT', ...parts);
      expect(snapshot(folder)).toEqual(before);
    }
  });

  it('leaves the folder as it was when aborted between tensors', async () => {
    const folder = temporaryFolder();
    await writeCheckpoint(folder, content(1));
    const before = snapshot(folder);
    const controller = new AbortController();
    const sources = tensors(2);
    sources[2] = {
      ...sources[2]!,
      read: async () => {
        controller.abort(new Error('enough'));
        throw new Error('the source noticed too');
      },
    };
    const aborted = { ...content(2), tensors: sources, signal: controller.signal };
    const error = await expectSiglipError(() => writeCheckpoint(folder, aborted), 'ERR_SIGLIP_ABORTED');
    expect((error.cause as Error).message).toBe('enough');
    expect(snapshot(folder)).toEqual(before);
  });

  it('removes the folders it made', async () => {
    const root = temporaryFolder();
    const broken = { ...content(1), tensors: [{ ...tensors(1)[0]!, shape: [3] }] };
    await expectSiglipError(() => writeCheckpoint(path.join(root, 'a', 'b'), broken), 'ERR_SIGLIP_CHECKPOINT');
    expect(files(root)).toEqual([]);
  });

  it('says that the target is a file', async () => {
    const root = temporaryFolder({ taken: 'text' });
    const target = path.join(root, 'taken');
    await expectSiglipError(() => writeCheckpoint(target, content(1)), 'ERR_SIGLIP_CHECKPOINT', target, 'it is a file');
    await expectSiglipError(() => writeCheckpoint(`${target}/below`, content(1)), 'ERR_SIGLIP_CHECKPOINT', 'ENOTDIR');
    expect(readFileSync(target, 'utf8')).toBe('text');
  });

  it('refuses a shard limit that is no positive integer', async () => {
    await expect(writeCheckpoint(temporaryFolder(), content(1, 0))).rejects.toThrow(RangeError);
    await expect(writeCheckpoint(temporaryFolder(), content(1, '5GB' as never))).rejects.toThrow(TypeError);
  });

  it.each(['config.json', 'preprocessor_config.json', 'model.safetensors'])(
    'restores all when %s is a folder',
    async (name) => {
      const folder = temporaryFolder({ 'notes.txt': 'mine' });
      if (name !== 'config.json') writeFileSync(path.join(folder, 'config.json'), '{"old": 1}');
      mkdirSync(path.join(folder, name, 'inner'), { recursive: true });
      const before = { names: files(folder), content: snapshot(folder) };
      await expectSiglipError(() => writeCheckpoint(folder, content(1)), 'ERR_SIGLIP_CHECKPOINT', folder);
      expect({ names: files(folder), content: snapshot(folder) }).toEqual(before);
    },
  );
});

describe('a failure at every single step', () => {
  const transitions: [string, number | undefined, number | undefined][] = [
    ['one file by one file', undefined, undefined],
    ['one file by shards', undefined, 16],
    ['shards by one file', 16, undefined],
    ['shards by as many shards', 16, 16],
    ['shards by more shards', 16, 8],
    ['shards by fewer shards', 16, 24],
  ];

  /** Runs `check` after the replacement has failed at call 0, 1, 2 … until it no longer fails. */
  async function atEveryStep(
    [before, after]: [number | undefined, number | undefined],
    lasting: boolean,
    check: (folder: string, failed: boolean) => Promise<void>,
  ): Promise<number> {
    const original = temporaryFolder();
    await writeCheckpoint(original, content(1, before));
    for (let step = 0; ; step++) {
      const folder = temporaryFolder();
      cpSync(original, folder, { recursive: true });
      resetDisk();
      Object.assign(disk, { failFrom: step, failTo: lasting ? Infinity : step });
      const failed = await writeCheckpoint(folder, content(2, after)).then(
        () => false,
        () => true,
      );
      const reached = disk.calls > step;
      resetDisk();
      await check(folder, failed);
      if (!reached) return step;
    }
  }

  it.each(transitions)('replacing %s: a crash leaves the old weights or the new', async (_, before, after) => {
    const fills = new Set<number>();
    const steps = await atEveryStep([before, after], true, async (folder) => {
      fills.add(await storedFill(folder));
      await readConfig(folder);
    });
    expect(steps).toBeGreaterThan(8);
    expect(fills).toEqual(new Set([1, 2]));
  });

  it.each(transitions)(
    'replacing %s: an error means everything old, success everything new',
    async (_, before, after) => {
      const outcomes = new Set<boolean>();
      await atEveryStep([before, after], false, async (folder, failed) => {
        outcomes.add(failed);
        const fill = failed ? 1 : 2;
        expect(await storedFill(folder)).toBe(fill);
        expect((await readConfig(folder)).json?.config.fill).toBe(fill);
        expect((await readConfig(folder)).json?.preprocessor?.fill).toBe(fill);
      });
      expect(outcomes).toEqual(new Set([true, false]));
    },
  );
});
