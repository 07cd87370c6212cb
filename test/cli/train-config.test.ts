/** Configurations of `siglip2 train`: what is read, and what is said of mistakes. */
import { describe, expect, it } from 'vitest';
import { TrainConfig } from '../../lib/cli/train/config.js';
import { ConfigDocument, type Mistake } from '../../lib/cli/train/document.js';
import { SiglipError } from '../../lib/errors.js';

const read = (text: string, file = 'dir/run.yaml'): TrainConfig => TrainConfig.of(ConfigDocument.parse(text, file));

it('says which file cannot be read', async () => {
  await expect(ConfigDocument.read('.')).rejects.toMatchObject({
    code: 'EISDIR',
    message: 'the configuration "." cannot be read: it is a folder',
  });
});

const good = `model:
  checkpoint: base
data:
  folder: pictures
  captions: [a.jsonl, b.csv]
  batchSize: 8
training:
  steps: 100
  optimizer:
    learningRate: 1e-3
    betas: [0.9, 0.95]
  schedule: { name: cosine, warmupSteps: 10 }
  frozen: [vision_model, '/^text_model\\..*bias$/i']
  groups:
    - match: logit_scale
      learningRateScale: 0.1
evaluation:
  everySteps: 50
  retrieval:
    shards: 'val-{00..03}.tar'
output: out
`;

/** The lines of the error that reading this gives. */
function linesOf(text: string): string[] {
  try {
    read(text);
  } catch (error) {
    expect(error).toBeInstanceOf(SiglipError);
    expect((error as SiglipError).code).toBe('ERR_SIGLIP_CONFIG');
    const lines = (error as SiglipError).message.split('\n');
    const { mistakes } = (error as SiglipError).details as { mistakes: Mistake[] };
    expect(mistakes.length).toBe(lines.length);
    mistakes.forEach(({ file, line, column }, i) => {
      expect(lines[i]).toContain(`${file}:${line}:${column}: `);
    });
    return lines;
  }
  throw new Error('there was no error');
}

/** The error of the good configuration with one thing replaced. */
function changed(from: string, to: string): string[] {
  expect(good).toContain(from);
  return linesOf(good.replace(from, to));
}

describe('a configuration', () => {
  it('becomes options, with paths from its folder and patterns as such', async () => {
    const config = read(good);
    expect(config.written.training.frozen).toEqual(['vision_model', /^text_model\..*bias$/i]);
    expect(config.resolve('x/y')).toBe(`${process.cwd()}/dir/x/y`);
    expect(config.source(config.written.data)).toEqual({
      folder: `${process.cwd()}/dir/pictures`,
      captions: ['a.jsonl', 'b.csv'],
    });
    expect(config.trainerOptions(100)).toEqual({
      optimizer: { learningRate: 1e-3, betas: [0.9, 0.95] },
      schedule: { name: 'cosine', warmupSteps: 10, totalSteps: 100 },
      frozen: ['vision_model', /^text_model\..*bias$/i],
      groups: [{ match: ['logit_scale'], learningRateScale: 0.1 }],
    });
    expect((await config.settings(100)).optimizer.weightDecay).toBe(1e-4);
  });

  it('may be JSON, with aliases where it is YAML, and the model may be its checkpoint alone', () => {
    const json = JSON.stringify({
      model: 'organisation/name',
      data: { shards: ['a.tar'], tokenBudget: 4096 },
      training: { epochs: 2 },
    });
    expect(read(json).written.model).toEqual({ checkpoint: 'organisation/name' });
    expect(read(`\ufeff${json.replaceAll(',', ',\r\n')}`).written.training).toEqual({ epochs: 2 });
    const aliased = good
      .replace('shards:', 'shards: &a')
      .replace("'val-{00..03}.tar'", 'x.tar')
      .replace('output: out', 'output: *a');
    expect(read(aliased).written.output).toBe('x.tar');
  });
});

describe('mistakes are named with file, line and column:', () => {
  it.each<[what: string, from: string, to: string, ...expected: string[]]>([
    [
      'a misspelt key',
      'learningRate: 1e-3',
      'learningrate: 1e-3',
      'dir/run.yaml:10:5: training.optimizer.learningrate: there is no such key; did you mean learningRate?',
    ],
    [
      'exchanged letters',
      'captions',
      'cpations',
      'dir/run.yaml:5:3: data.cpations: there is no such key; did you mean captions?',
    ],
    [
      'an unknown key',
      'steps: 100',
      'steps: 100\n  wings: 2',
      'dir/run.yaml:9:3: training.wings: there is no such key; there are steps, epochs, optimizer',
    ],
    [
      'a wrong type',
      '1e-3',
      'fast',
      'dir/run.yaml:10:19: training.optimizer.learningRate: expected a number, got "fast"',
    ],
    ['a text for a number', '1e-3', "'1e-3'", 'training.optimizer.learningRate: expected a number, got "1e-3"'],
    ['what is no finite number', '1e-3', '.inf', 'training.optimizer.learningRate: expected a number, got Infinity'],
    [
      'a value out of range',
      'batchSize: 8',
      'batchSize: 0',
      'dir/run.yaml:6:14: data.batchSize: expected an integer of at least 1, got 0',
    ],
    [
      'a fraction for an integer',
      'steps: 100',
      'steps: 1.5',
      'training.steps: expected an integer of at least 1, got 1.5',
    ],
    [
      'a list of the wrong length',
      '[0.9, 0.95]',
      '[0.9]',
      'dir/run.yaml:11:12: training.optimizer.betas: expected a list of 2, got a list of 1',
    ],
    [
      'an entry of a list',
      '[0.9, 0.95]',
      '[0.9, x]',
      'dir/run.yaml:11:18: training.optimizer.betas[1]: expected a number, got "x"',
    ],
    [
      'an empty list',
      '[a.jsonl, b.csv]',
      '[]',
      'data.captions: expected a list with at least one entry, got a list of 0',
    ],
    [
      'nothing',
      'steps: 100',
      'steps:',
      'dir/run.yaml:8:9: training.steps: expected an integer of at least 1, got nothing',
    ],
    [
      'nothing for a section',
      "retrieval:\n    shards: 'val-{00..03}.tar'",
      'retrieval:',
      'evaluation.retrieval: expected a mapping with folder, captions',
    ],
    [
      'a choice',
      'name: cosine',
      'name: sine',
      'dir/run.yaml:12:21: training.schedule.name: expected one of constant, cosine, stretched, got "sine"',
    ],
    [
      'a regular expression',
      "bias$/i'",
      "(bias$/i'",
      'dir/run.yaml:13:26: training.frozen[1]: expected a regular expression, got one that is not valid',
    ],
    ['a missing key', 'name: cosine, ', '', 'training.schedule.name: is required'],
    [
      'a missing section',
      'data:\n  folder: pictures\n  captions: [a.jsonl, b.csv]\n  batchSize: 8\n',
      '',
      'dir/run.yaml:1:1: data: is required',
    ],
    ['a missing match', 'match: logit_scale\n      ', '', 'dir/run.yaml:15:7: training.groups[0].match: is required'],
    [
      'two starts of the model',
      'checkpoint: base',
      'checkpoint: base\n  size: B\n  tokenizer: t',
      'dir/run.yaml:2:3: model: expected one of checkpoint, config and size, got checkpoint and size',
    ],
    [
      'no start of the model',
      'checkpoint: base',
      'tokenizer: base',
      'model: expected one of checkpoint, config and size, got none',
    ],
    ['a size without a tokenizer', 'checkpoint: base', 'size: B', 'model.tokenizer: is required with size'],
    [
      'a picture size without a model size',
      'checkpoint: base',
      'checkpoint: base\n  imageSize: 224',
      'dir/run.yaml:3:14: model.imageSize: belongs to size',
    ],
    [
      'two kinds of data',
      'folder: pictures',
      'folder: pictures\n  shards: a.tar',
      'data: expected either folder and captions, or shards',
    ],
    [
      'neither batch size nor budget',
      'batchSize: 8',
      'shuffle: true',
      'data: expected either batchSize or tokenBudget, got none',
    ],
    [
      'steps and epochs',
      'steps: 100',
      'steps: 100\n  epochs: 1',
      'training: expected either steps or epochs, got both',
    ],
    [
      'an evaluation of nothing',
      "  retrieval:\n    shards: 'val-{00..03}.tar'\n",
      '',
      'evaluation: expected retrieval, zeroShot or both',
    ],
    [
      'a template without a place',
      "retrieval:\n    shards: 'val-{00..03}.tar'",
      'zeroShot:\n    folder: c\n    templates: [a photo]',
      'dir/run.yaml:21:17: evaluation.zeroShot.templates[0]: expected a text with {} for the class, got "a photo"',
    ],
    ['a key twice', 'steps: 100', 'steps: 100\n  steps: 5', 'dir/run.yaml:9:3: Map keys must be unique'],
    ['a tab', '  steps', '\tsteps', 'dir/run.yaml:8:1: '],
    ['an open bracket', '[a.jsonl, b.csv]', '[a.jsonl, b.csv', 'dir/run.yaml:6:'],
    ['an alias of nothing', 'output: out', 'output: *out', 'dir/run.yaml:21:9: '],
    ['a second document', 'output: out', '---\noutput: out', 'dir/run.yaml:21:1: '],
  ])('%s', (_, from, to, expected) => {
    const lines = changed(from, to);
    expect(lines[0]).toContain(expected);
    expect(lines[0]).toMatch(/^dir\/run\.yaml:\d+:\d+: /);
  });

  it('all of them at once, in their order', () => {
    const lines = linesOf(
      good
        .replace('steps: 100', 'steps: no')
        .replace('checkpoint: base', 'checkpoint: 7')
        .replace('output: out', 'outputs: out'),
    );
    expect(lines.map((line) => line.split(':').slice(1, 3).map(Number))).toEqual([
      [2, 15],
      [8, 10],
      [21, 1],
    ]);
  });

  it.each([
    ['', 'dir/run.yaml:1:1: expected a mapping with model, data, training'],
    ['', 'got an empty file'],
    ['# nothing\n', 'got an empty file'],
    ['- 1', 'dir/run.yaml:1:1: expected a mapping with model, data, training'],
    ['just a text', 'got "just a text"'],
    ['a: &a [*a]\nmodel: *a', 'dir/run.yaml:1:1: '],
  ])('%j is none', (text, expected) => expect(linesOf(text)[0]).toContain(expected));

  it('what the library says of its options, it says of the keys', async () => {
    const settings = (from: string, to: string) => read(good.replace(from, to)).settings(100);
    await expect(settings('1e-3', '-1')).rejects.toMatchObject({
      code: 'ERR_SIGLIP_CONFIG',
      message: 'dir/run.yaml:10:19: training.optimizer.learningRate: expected a number of at least 0, got -1',
    });
    await expect(settings('0.95]', '1]')).rejects.toThrow(
      'dir/run.yaml:11:18: training.optimizer.betas[1]: expected a number from 0 to below 1, got 1',
    );
    await expect(settings('warmupSteps: 10', 'warmupSteps: 100')).rejects.toThrow(
      /^dir\/run\.yaml:12:\d+: training\.schedule\.totalSteps: expected an integer above warmupSteps/,
    );
    await expect(settings('steps: 100', 'steps: 100\n  microBatches: 2\n  microBatchSize: 2')).rejects.toThrow(
      'dir/run.yaml:9:17: training.microBatches: expected no value beside microBatchSize, got 2',
    );
    await expect(settings('steps: 100', 'steps: 100\n  device: abacus')).rejects.toThrow(
      'dir/run.yaml:9:11: training.device: ',
    );
    // Errors with a code of their own keep it.
    await expect(settings('steps: 100', 'steps: 100\n  device: cuda:9')).rejects.toMatchObject({
      code: 'ERR_SIGLIP_NO_DEVICE',
      message: expect.stringContaining('dir/run.yaml:9:11: training.device: '),
    });
    const endless = read(good.replace('steps: 100', 'epochs: 2'));
    expect(() => endless.trainerOptions(undefined)).toThrow('training.schedule: totalSteps is required here');
  });
});

describe('a configuration that is resumed', () => {
  const same = async (from: string, to: string): Promise<void> => {
    const saved = await read(good).computed();
    expect(good).toContain(from);
    await read(good.replace(from, to), 'other.yaml').requireSame(JSON.parse(JSON.stringify(saved)));
  };

  it.each([
    ['steps: 100', 'steps: 200'],
    ['steps: 100', 'epochs: 2'],
    ['steps: 100', 'steps: 100\n  microBatchSize: 2\n  threads: 1\n  dtype: float32'],
    ['folder: pictures', 'folder: /moved'],
    ['batchSize: 8', 'batchSize: 8\n  prefetch: 3'],
    ['everySteps: 50', 'everySteps: 7'],
    ['output: out', 'checkpoints: { everySteps: 5 }'],
    // The default, written out.
    ['learningRate: 1e-3', 'learningRate: 1e-3\n    weightDecay: 1e-4'],
  ])('may have another %s', (from, to) => same(from, to));

  it.each([
    [
      '1e-3',
      '2e-3',
      'other.yaml:10:19: training.optimizer.learningRate: expected 0.001, as in the training that is resumed, got 0.002',
    ],
    ['name: cosine', 'name: constant', 'other.yaml:12:21: training.schedule.name: expected "cosine"'],
    ['[vision_model, ', '[text_model, ', 'training.frozen[0]: expected "vision_model"'],
    ['/i', '/', 'training.frozen[1]: expected "/^text_model\\\\..*bias$/i"'],
    ['checkpoint: base', 'checkpoint: large', 'model.checkpoint: expected "base"'],
    ['batchSize: 8', 'batchSize: 16', 'data.batchSize: expected 8'],
    ['steps: 100', 'steps: 100\n  ema: { decay: 0.9 }', 'other.yaml:9:17: training.ema.decay: expected nothing, as in'],
    [
      '  groups:\n    - match: logit_scale\n      learningRateScale: 0.1\n',
      '',
      'training.groups[0].match[0]: expected "logit_scale"',
    ],
  ])('but not %s as %s', async (from, to, message) => {
    await expect(same(from, to)).rejects.toMatchObject({
      code: 'ERR_SIGLIP_CONFIG',
      message: expect.stringContaining(message),
    });
  });
});
