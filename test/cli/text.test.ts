/** Texts, tables and progress of the command line, on streams of the test's own. */
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { describeFailure, systemReason } from '../../lib/cli/errors.js';
import { npyHeader } from '../../lib/cli/npy.js';
import { Progress } from '../../lib/cli/progress.js';
import { bar, bytes, duration, percent, table } from '../../lib/cli/table.js';
import { printable, printableLines, type Stream, shellWord, Terminal } from '../../lib/cli/terminal.js';
import { SiglipError } from '../../lib/errors.js';

/** A stream that keeps what is written. */
function recorder(options: Partial<Stream> = {}): { stream: Stream; text: () => string } {
  let text = '';
  const write = (part: string) => {
    text += part;
    return true;
  };
  return { stream: { write, ...options } as unknown as Stream, text: () => text };
}

const settings = { json: false, quiet: false, verbose: false };
const screen = { isTTY: true, columns: 60, hasColors: () => true } as Partial<Stream>;

describe('numbers', () => {
  it.each([
    [0, '0.000 %'],
    [1e-9, '<0.001 %'],
    [0.00042, '0.042 %'],
    [0.0349, '3.5 %'],
    [1, '100.0 %'],
    [Number.NaN, 'NaN %'],
  ])('%d is %s', (value, text) => expect(percent(value)).toBe(text));

  it.each([
    [0, '0 B'],
    [999, '999 B'],
    [1000, '1.0 kB'],
    [999_999, '1.0 MB'],
    [123_456_789, '123 MB'],
    [4.5e12, '4.5 TB'],
  ])('%d bytes are %s', (value, text) => expect(bytes(value)).toBe(text));

  it.each([
    [0.4, 'under 1 s'],
    [59.6, '1 min 00 s'],
    [125, '2 min 05 s'],
    [7320, '2 h 02 min'],
  ])('%d seconds are %s', (value, text) => expect(duration(value)).toBe(text));

  it('fills bars', () => {
    expect([bar(0, 4, false), bar(0.5, 4, false), bar(2, 4, true), bar(0.25, 4, true)]).toEqual([
      '....',
      '##..',
      '████',
      '█░░░',
    ]);
  });

  it('aligns columns, by characters and not by code units', () => {
    expect(
      table(
        [
          ['a', '1', 'x'],
          ['𝒜𝒜𝒜', '22'],
        ],
        '<>',
      ),
    ).toBe('  a     1  x\n  𝒜𝒜𝒜  22');
  });
});

describe('a terminal', () => {
  it('gets colours only when it has them', () => {
    const plain = recorder();
    const coloured = recorder(screen);
    expect(new Terminal(settings, coloured.stream, plain.stream).style('x', 'bold', 'red')).toBe(
      '\u001b[1;31mx\u001b[0m',
    );
    expect(new Terminal(settings, plain.stream, plain.stream).style('x', 'bold')).toBe('x');
    const without = recorder({ ...screen, hasColors: () => false } as Partial<Stream>);
    expect(new Terminal(settings, without.stream, plain.stream).style('x', 'bold')).toBe('x');
  });

  it('is never sent control characters of names', () => {
    expect(printable('a\u001b[31m\r\u0007b\u009bc\nd')).toBe('a\\x1b[31m\\x0d\\x07b\\x9bc\\x0ad');
    expect(printableLines('a\u001b\nb\r\n')).toBe('a\\x1b\nb\\x0d\n');
  });

  it('names what is skipped in one line', () => {
    const { stream, text } = recorder();
    new Terminal(settings, recorder().stream, stream).skipped('a\nb.png', 'broken');
    expect(text()).toBe('skipped a\\x0ab.png: broken\n');
  });

  it.each([
    ['runs/first-2.yaml', 'runs/first-2.yaml'],
    ['größe.yaml', 'größe.yaml'],
    ['my config.yaml', "'my config.yaml'"],
    ["it's $HOME", "'it'\\''s $HOME'"],
    ['', "''"],
  ])('is shown %s as a word for a shell', (word, shown) => expect(shellWord(word)).toBe(shown));
});

describe('progress', () => {
  beforeEach(() => void vi.useFakeTimers({ toFake: ['performance'] }));
  afterEach(() => void vi.useRealTimers());
  const run = (stream: Partial<Stream>, quiet = false) => {
    const { stream: stderr, text } = recorder(stream);
    const terminal = new Terminal({ ...settings, quiet }, recorder().stream, stderr);
    const progress = new Progress(terminal, 'embedding', { total: 1000, unit: 'images' });
    for (let done = 0; done <= 500; done += 50) {
      vi.advanceTimersByTime(1200);
      progress.update(done);
    }
    return { terminal, progress, text };
  };

  it('is a line every five seconds in a log, with rate and time left', () => {
    const { text } = run({});
    const lines = text().split('\n').slice(0, -1);
    expect(lines.length).toBe(2);
    expect(lines[0]).toBe('embedding 20 %, 200 of 1,000 images, 33/s, 24 s left');
    expect(text()).not.toContain('\u001b');
  });

  it('is one line on a terminal, no wider than it, that vanishes for text and at the end', () => {
    const { terminal, progress, text } = run(screen);
    const drawn = text().split('\r\u001b[2K');
    expect(drawn.length).toBe(13);
    for (const line of drawn) expect([...line].length).toBeLessThan(60);
    terminal.error('text');
    expect(text().endsWith('\r\u001b[2Ktext\n')).toBe(true);
    progress.update(500);
    progress.stop();
    expect(text().split('\r\u001b[2K').slice(-2)).toEqual([expect.stringMatching(/^embedding .* 50 %/), '']);
    const before = text();
    progress.update(600);
    expect(text()).toBe(before);
  });

  it('is nothing when it has to be quiet', () => {
    expect(run(screen, true).text()).toBe('');
  });
});

describe('failures', () => {
  it('are described in the words of the command line', () => {
    const tooMany = new RangeError('options.maxPatches: expected an integer of at least 1, got 0');
    expect(describeFailure(tooMany, 'embed')).toEqual({
      code: 'ERR_SIGLIP_USAGE',
      message: '--max-patches: expected an integer of at least 1, got 0',
      remedy: 'siglip2 embed --help shows operands and options',
      exitCode: 2,
    });
  });

  it('that are defects keep their message and ask for a report', () => {
    const defect = describeFailure(new TypeError("Cannot read properties of undefined (reading 'x')"));
    expect(defect).toMatchObject({ code: 'ERR_SIGLIP_UNEXPECTED', exitCode: 1 });
    expect(defect.message).toContain("reading 'x'");
    expect(defect.remedy).toContain('--verbose');
  });

  it.each([
    [401, 'HF_TOKEN'],
    [404, 'spelling'],
    [429, 'later'],
    [undefined, 'network'],
  ])('of the hub with status %s say what helps', (status, remedy) => {
    const error = new SiglipError('ERR_SIGLIP_HUB', 'x', { details: { status } });
    expect(describeFailure(error).remedy).toContain(remedy);
  });

  it.each([
    ['EFBIG', 'EFBIG: file too large, write', 'file too large, write', 'ulimit -f'],
    ['EEXIST', "EEXIST: file already exists, mkdir '/a'", "file already exists, mkdir '/a'", 'another path'],
    ['ENOTDIR', "ENOTDIR: not a directory, mkdir '/a/b'", "not a directory, mkdir '/a/b'", 'is a file and no folder'],
    ['ELOOP', "ELOOP: too many symbolic links encountered, open 'a'", 'too many symbolic links', 'operating system'],
  ])('of the system are no defects: %s', (code, message, shown, remedy) => {
    const failure = describeFailure(Object.assign(new Error(message), { code, syscall: 'open' }));
    expect(failure).toMatchObject({ code, message: expect.stringContaining(shown), exitCode: 1 });
    expect(failure.message).not.toContain(code);
    expect(failure.remedy).toContain(remedy);
  });

  it('of Node, which have a code as well, are defects', () => {
    const error = Object.assign(new Error('The argument is wrong'), { code: 'ERR_INVALID_ARG_VALUE' });
    expect(describeFailure(error).code).toBe('ERR_SIGLIP_UNEXPECTED');
  });

  it('of files lose code, call and path', () => {
    expect(systemReason("cannot be read: ENOENT: no such file or directory, stat '/a, b/c'")).toBe(
      'cannot be read: no such file or directory',
    );
    expect(systemReason('ENOSPC: no space left on device, write')).toBe('no space left on device');
    expect(systemReason('something else, entirely')).toBe('something else, entirely');
  });
});

it('makes npy headers of one size, for any number of rows', () => {
  for (const rows of [0, 7, 4_294_967_296]) {
    const header = npyHeader(rows, 1536);
    expect(header.length).toBe(128);
    expect(header.toString('latin1', 10)).toMatch(new RegExp(`'shape': \\(${rows}, 1536\\), \\} +\\n$`));
  }
});
