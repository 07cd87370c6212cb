import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { parseJson, readJsonFile } from '../../lib/model/json.js';
import { expectSiglipError } from '../support/errors.js';
import { temporaryFolder } from '../support/folders.js';

const parse = (text: string, strict = false): unknown => parseJson(text, 'a.json', 'ERR_SIGLIP_CONFIG', { strict });

describe('parseJson', () => {
  it.each([
    ['', 0, 'unexpected end'],
    ['{', 1, 'unexpected end'],
    ['{"a": 1,}', 8, 'expected a key'],
    ['{"a" 1}', 5, 'expected ":"'],
    ['{"a": NaN}', 6, 'expected a value'],
    ['[1 2]', 3, 'expected ","'],
    ['[01]', 2, 'expected ","'],
    ['[1.]', 2, 'expected ","'],
    ['{"a": tru}', 6, 'expected a value'],
    ['{} x', 3, 'unexpected text'],
    ['"\\x"', 2, 'unknown escape'],
    ['"\\u12"', 2, 'broken \\u'],
    ['"a\nb"', 2, 'control character'],
    ['"abc', 4, 'unexpected end'],
    ["{'a': 1}", 1, 'expected a key'],
    ['[-]', 1, 'expected a value'],
  ])('says where %j is broken', async (text, position, message) => {
    expect(() => JSON.parse(text)).toThrow();
    const error = await expectSiglipError(() => parse(text), 'ERR_SIGLIP_CONFIG', 'a.json', message);
    expect(error.details).toMatchObject({ file: 'a.json', position });
  });

  it('counts lines and columns from one', async () => {
    const error = await expectSiglipError(
      () => parse('{\n  "a": 1\n  "b": 2\n}'),
      'ERR_SIGLIP_CONFIG',
      'line 3, column 3',
    );
    expect(error.details).toMatchObject({ line: 3, column: 3 });
  });

  it('returns what JSON.parse does', () => {
    const text = ' {"a": [1, -2.5e-3, true, false, null, "\\u00e9\\n\\"", {}], "a": [], "__proto__": {"b": 1}} ';
    expect(parse(text)).toEqual(JSON.parse(text));
    expect(Object.keys(parse(text) as object)).toEqual(['a', '__proto__']);
  });

  it('refuses nesting that would exhaust the stack of later steps', async () => {
    await expectSiglipError(() => parse('['.repeat(1e6)), 'ERR_SIGLIP_CONFIG', 'nesting deeper');
    expect(parse(`${'['.repeat(100)}${']'.repeat(100)}`)).toHaveLength(1);
  });

  it.each(['{"a": 1, "a": 1}', '{"a": 1, "\\u0061": 1}', '[1.5]', '[-1]', '[1e3]', '["\\ud800"]', '[-0]'])(
    'refuses the ambiguous %s only when strict',
    async (text) => {
      expect(parse(text)).toEqual(JSON.parse(text));
      await expectSiglipError(() => parse(text, true), 'ERR_SIGLIP_CONFIG');
    },
  );
});

describe('readJsonFile', () => {
  it('tolerates a byte order mark, knows absent files, refuses huge ones and other encodings', async () => {
    const folder = temporaryFolder({
      'bom.json': '\uFEFF{"a": 1}',
      'latin.json': Buffer.from([0x22, 0xe9, 0x22]),
      'large.json': `"${'x'.repeat(100)}"`,
    });
    const read = (name: string, limit?: number) => readJsonFile(path.join(folder, name), 'ERR_SIGLIP_CONFIG', limit);
    expect(await read('bom.json')).toEqual({ a: 1 });
    expect(await read('absent.json')).toBeUndefined();
    await expectSiglipError(() => read('latin.json'), 'ERR_SIGLIP_CONFIG', 'latin.json', 'UTF-8');
    await expectSiglipError(() => read('large.json', 100), 'ERR_SIGLIP_CONFIG', '102 bytes');
    await expectSiglipError(() => read('.'), 'ERR_SIGLIP_CONFIG', 'cannot be read');
  });
});
