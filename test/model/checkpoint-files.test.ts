import { cpSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { type CheckpointFiles, checkParameters, openCheckpointFiles } from '../../lib/model/checkpoint-files.js';
import { parseConfig, readConfig, type Siglip2Config } from '../../lib/model/config.js';
import { parameterShapes } from '../../lib/model/parameter-shapes.js';
import type { SafetensorsDType, SafetensorsFile } from '../../lib/model/safetensors.js';
import { expectSiglipError } from '../support/errors.js';
import { temporaryFolder } from '../support/folders.js';
import { buildSafetensors, checkpointFolder, checkpointNames } from '../support/golden.js';

const shard = (...names: string[]): Buffer =>
  buildSafetensors(names.map((name) => ({ name, dtype: 'F32', shape: [1], bytes: Buffer.alloc(4) })));
const index = (weight_map: unknown): unknown => ({ metadata: { total_size: 1 }, weight_map });
const indexName = 'model.safetensors.index.json';

describe('openCheckpointFiles', () => {
  it.each(checkpointNames)('opens %s, which has every parameter', async (name) => {
    const folder = checkpointFolder(name);
    const files = await openCheckpointFiles(folder);
    expect(files.files).toHaveLength(name.endsWith('_sharded') ? 2 : 1);
    expect(checkParameters(await readConfig(folder), files)).toEqual([]);
  });

  it('finds the same tensors in shards as in one file', async () => {
    const whole = await openCheckpointFiles(checkpointFolder('fixed_p14_hd64_bf16'));
    const sharded = await openCheckpointFiles(checkpointFolder('fixed_p14_hd64_bf16_sharded'));
    const bytes = ({ tensors }: CheckpointFiles) =>
      Object.fromEntries(
        [...tensors].map(([name, { file, begin, end, shape, dtype }]) => [
          name,
          { shape, dtype, bytes: readFileSync(file.path).subarray(begin, end).toString('base64') },
        ]),
      );
    expect(bytes(sharded)).toEqual(bytes(whole));
  });

  it('prefers the single file, as transformers does', async () => {
    const folder = temporaryFolder({ 'model.safetensors': shard('a'), [indexName]: index({ b: 'b.safetensors' }) });
    expect([...(await openCheckpointFiles(folder)).tensors.keys()]).toEqual(['a']);
  });

  it('says what was looked for, and what was found instead', async () => {
    const empty = temporaryFolder();
    await expectSiglipError(
      () => openCheckpointFiles(empty),
      'ERR_SIGLIP_CHECKPOINT',
      empty,
      'model.safetensors',
      indexName,
    );
    const other = temporaryFolder({ 'pytorch_model.bin': 'x', 'siglip2.npz': 'x', 'config.json': '{}' });
    const parts = ['pytorch_model.bin, siglip2.npz cannot be read'];
    await expectSiglipError(() => openCheckpointFiles(other), 'ERR_SIGLIP_CHECKPOINT', ...parts);
  });

  it.each<[string, unknown, string[]]>([
    ['an array', [], ['weight_map']],
    ['no weight_map', {}, ['weight_map', 'missing']],
    ['an empty weight_map', index({}), ['empty']],
    ['a path up', index({ a: '../secret.safetensors' }), ['"a"', '../secret.safetensors']],
    ['an absolute path', index({ a: '/etc/x.safetensors' }), ['/etc/x.safetensors']],
    ['a Windows path', index({ a: 'c:\\x.safetensors' }), ['x.safetensors']],
    ['a path with a zero byte', index({ a: 'a\0.safetensors' }), ['not the name']],
    ['another kind of file', index({ a: 'pytorch_model.bin' }), ['pytorch_model.bin']],
    ['a number', index({ a: 3 }), ['"a"', '3']],
    ['a shard that is missing', index({ a: 'absent.safetensors' }), ['absent.safetensors', 'missing', indexName]],
    ['a tensor that is not in its shard', index({ z: 'one.safetensors' }), ['one.safetensors', '"z"']],
  ])('refuses an index with %s', async (_, content, parts) => {
    const folder = temporaryFolder({ [indexName]: content, 'one.safetensors': shard('a') });
    await expectSiglipError(() => openCheckpointFiles(folder), 'ERR_SIGLIP_CHECKPOINT', indexName, ...parts);
  });

  it('names the shard that is damaged', async () => {
    const folder = temporaryFolder();
    cpSync(checkpointFolder('fixed_p14_hd64_bf16_sharded'), folder, { recursive: true });
    const damaged = path.join(folder, 'model-00002-of-00002.safetensors');
    writeFileSync(damaged, readFileSync(damaged).subarray(0, -1));
    await expectSiglipError(() => openCheckpointFiles(folder), 'ERR_SIGLIP_CHECKPOINT', damaged, 'truncated');
    rmSync(damaged);
    await expectSiglipError(() => openCheckpointFiles(folder), 'ERR_SIGLIP_CHECKPOINT', damaged, 'missing');
  });

  it('follows the index where two shards have a tensor, and uses tensors it leaves out', async () => {
    const files = { 'one.safetensors': shard('a', 'b'), 'two.safetensors': shard('b', 'c') };
    const weightMap = { a: 'one.safetensors', b: 'two.safetensors' };
    const opened = await openCheckpointFiles(temporaryFolder({ ...files, [indexName]: index(weightMap) }));
    const owners = [...opened.tensors].map(([name, { file }]) => [name, path.basename(file.path)]);
    expect(Object.fromEntries(owners)).toEqual({ ...weightMap, c: 'two.safetensors' });
    const unlisted = temporaryFolder({ ...files, [indexName]: index({ a: 'one.safetensors', c: 'two.safetensors' }) });
    await expectSiglipError(() => openCheckpointFiles(unlisted), 'ERR_SIGLIP_CHECKPOINT', '"b"', 'one', 'two');
  });
});

describe('checkParameters', () => {
  const tower = { hidden_size: 8, num_attention_heads: 2, num_hidden_layers: 2, intermediate_size: 4 };
  const config: Siglip2Config = parseConfig({ model_type: 'siglip', text_config: tower, vision_config: tower }, 'c');

  function filesOf(changes: Record<string, { dtype?: SafetensorsDType; shape?: number[] } | null>): CheckpointFiles {
    const file: SafetensorsFile = { path: 'm', size: 0, dataOffset: 0, metadata: new Map(), tensors: new Map() };
    const shapes = new Map(
      [...parameterShapes(config)].map(([name, shape]) => [name, { dtype: 'F32' as const, shape }]),
    );
    const tensors: CheckpointFiles['tensors'] = new Map(
      [...shapes, ...Object.entries(changes)]
        .filter(([name]) => changes[name] !== null)
        .map(([name, value]) => [name, { dtype: 'F32', shape: [], begin: 0, end: 0, file, ...value }]),
    );
    return { folder: 'some/folder', files: [file], tensors };
  }

  it('accepts mixed floating-point types, and reports tensors that nothing uses', () => {
    const files = filesOf({
      logit_scale: { dtype: 'BF16', shape: [1] },
      logit_bias: { dtype: 'F16', shape: [1] },
      'text_model.embeddings.position_ids': { dtype: 'I64', shape: [1, 64] },
      'optimizer.step': { dtype: 'I64' },
    });
    expect(checkParameters(config, files)).toEqual(['optimizer.step']);
  });

  it.each<[string, Parameters<typeof filesOf>[0], string[]]>([
    ['a missing tensor', { logit_bias: null }, ['some/folder', 'logit_bias is missing']],
    ['a wrong size', { 'text_model.head.weight': { shape: [8, 9] } }, ['text_model.head.weight', '[8, 9]', '[8, 8]']],
    ['a wrong rank', { 'text_model.head.bias': { shape: [8, 1] } }, ['text_model.head.bias', '[8, 1]', '[8]']],
    ['an integer type', { logit_scale: { shape: [1], dtype: 'I32' } }, ['logit_scale', 'I32', 'F32, F16, BF16']],
    ['an 8-bit type', { logit_scale: { shape: [1], dtype: 'F8_E4M3' } }, ['logit_scale', 'F8_E4M3']],
  ])('reports %s', async (_, changes, parts) => {
    await expectSiglipError(() => checkParameters(config, filesOf(changes)), 'ERR_SIGLIP_CHECKPOINT', ...parts);
  });

  it('lists ten problems of many', async () => {
    const names = [...parameterShapes(config).keys()].slice(0, 25);
    const files = filesOf(Object.fromEntries(names.map((name) => [name, null])));
    const error = await expectSiglipError(() => checkParameters(config, files), 'ERR_SIGLIP_CHECKPOINT', 'and 15 more');
    expect(error.message.match(/is missing/g)).toHaveLength(10);
    expect(error.details?.problems).toHaveLength(25);
  });

  it('needs only the towers that are asked for', () => {
    const textNames = [...parameterShapes(config).keys()].filter((name) => name.startsWith('text_model.'));
    const files = filesOf(Object.fromEntries(textNames.map((name) => [name, null])));
    expect(checkParameters(config, files, ['vision'])).toEqual([]);
    expect(() => checkParameters(config, files, ['text'])).toThrow('is missing');
  });
});
