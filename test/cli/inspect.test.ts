/** `siglip2 inspect`: the machine, and checkpoints. */
import { chmodSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { gpuRows } from '../../lib/cli/commands/inspect.js';
import { type Inspection, inspect } from '../../lib/index.js';
import { Tensor } from '../../lib/kernels/index.js';
import { checkpoint, checkpointWithNaN, documentOf, siglip2 } from '../support/command-line.js';
import { temporaryFolder } from '../support/folders.js';

interface Document {
  version: string;
  devices: { name: string }[];
  checkpoint?: Record<string, unknown>;
}

describe('without a model', () => {
  it('shows what the API knows', async () => {
    const expected = await inspect();
    const json = await siglip2(['inspect', '--json']);
    expect(json.code).toBe(0);
    expect(json.stderr).toBe('');
    const document = documentOf<Document>(json);
    expect(document).toMatchObject({ version: expected.version, node: process.version, devices: expected.devices });
    expect(document.checkpoint).toBeUndefined();
    const text = await siglip2(['inspect']);
    for (const part of ['Installation', 'Processor', 'Devices', expected.cpu?.model as string, process.version])
      expect(text.stdout).toContain(part);
  });

  it.each([
    ['baseline', 'float32'],
    ['amxemulated', 'bfloat16'],
  ])('shows that models run in what suits the instruction set, on %s in %s', async (instructionSet, dtype) => {
    const env = { SIGLIP2_ISA: instructionSet };
    const { cpu, auto } = documentOf<Inspection>(await siglip2(['inspect', '--json'], { env }));
    expect(cpu?.instructionSet).toBe(instructionSet);
    expect(auto?.reason).toBeTruthy();
    if (auto?.device !== 'cpu') return; // with a GPU it is the GPU's
    expect(auto.dtype).toBe(dtype);
    expect((await siglip2(['inspect'], { env })).stdout).toMatch(
      new RegExp(`^ *dtype +auto is ${dtype} for inference$`, 'm'),
    );
  });

  it('still reports, and exits with 1, when no native binary can be loaded', async () => {
    const env = { SIGLIP2_NATIVE: path.join(temporaryFolder({ 'x.node': 'not a library' }), 'x.node') };
    const result = await siglip2(['inspect'], { env });
    expect(result.code).toBe(1);
    expect(result.stdout).toContain('x.node (not used: ');
    expect(result.stdout).toContain('No native binary could be loaded');
    const model = await siglip2(['inspect', '--model', checkpoint, '--json'], { env });
    expect(documentOf(model)).toMatchObject({ error: { code: 'ERR_SIGLIP_NATIVE_NOT_FOUND' } });
    expect(model.code).toBe(1);
  });
});

describe('GPUs', () => {
  const facts = {
    name: 'NVIDIA H200',
    architecture: 'sm_90',
    memoryBytes: 150_754_820_096,
    freeBytes: 1_500_000_000,
    multiprocessors: 132,
    driverVersion: 13_010,
    notice: 'cuBLASLt is missing',
  };

  it('are described in words', () => {
    const cpu = { name: 'cpu', description: 'avx2' };
    expect(gpuRows([cpu])).toEqual([]);
    const other = { ...facts, driverVersion: 12_080, notice: '' };
    const described = [
      cpu,
      { name: 'cuda', description: '', facts },
      { name: 'cuda:1', description: '', facts: other },
    ];
    expect(gpuRows(described)).toEqual([
      ['cuda', 'model', 'NVIDIA H200'],
      ['', 'architecture', 'sm_90, 132 multiprocessors'],
      ['', 'memory', '1.5 GB free of 151 GB'],
      ['', 'driver', 'knows CUDA 13.1'],
      ['', 'notice', 'cuBLASLt is missing'],
      ['cuda:1', 'model', 'NVIDIA H200'],
      ['', 'architecture', 'sm_90, 132 multiprocessors'],
      ['', 'memory', '1.5 GB free of 151 GB'],
      ['', 'driver', 'knows CUDA 12.8'],
    ]);
  });

  it('that are emulated are among them once something has asked for them', async () => {
    Tensor.from(new Float32Array(4), [2, 2], { device: 'simt' });
    const rows = gpuRows((await inspect()).devices).filter(([, field]) => field !== 'notice');
    expect(rows.slice(-3)).toEqual([
      ['simt', 'model', 'emulated GPU, for tests'],
      ['', 'architecture', expect.stringMatching(/^sm_80, \d+ multiprocessors$/)],
      ['', 'memory', expect.stringMatching(/^[\d.]+ GB free of [\d.]+ GB$/)],
    ]);
  });

  it('that the driver shows but nothing can use are named, with what to do', async () => {
    const { gpu } = await inspect();
    if (gpu.available) return; // the driver's tool is asked only where no card can be used
    const folder = temporaryFolder({ 'nvidia-smi': '#!/bin/sh\necho "NVIDIA H200"\necho "NVIDIA L4"\n' });
    chmodSync(path.join(folder, 'nvidia-smi'), 0o755);
    const env = { PATH: `${folder}:${process.env.PATH}` };
    const json = await siglip2(['inspect', '--json'], { env });
    expect(documentOf(json)).toMatchObject({ gpu: { available: false, unusedCards: ['NVIDIA H200', 'NVIDIA L4'] } });
    const text = await siglip2(['inspect'], { env });
    expect(text.stdout).toContain(`not used   NVIDIA H200, NVIDIA L4: ${gpu.reason}`);
    const none = await siglip2(['inspect'], { env: { PATH: temporaryFolder({}) } });
    expect(none.stdout).not.toContain('not used ');
  });
});

describe('with a model', () => {
  it('describes the checkpoint', async () => {
    const json = await siglip2(['inspect', '--model', checkpoint, '--json']);
    expect(json.code).toBe(0);
    expect(documentOf<Document>(json).checkpoint).toMatchObject({
      model: checkpoint,
      folder: checkpoint,
      notice: expect.stringContaining('random'),
      config: { architecture: 'naflex', vision: { hiddenSize: 128 }, text: { vocabSize: 512 } },
      parameters: { vision: 330_496, text: 181_856, total: 330_496 + 181_856 + 2 },
      dtypes: { BF16: { tensors: 56, parameters: 512_354 } },
      unused: [],
      nonFinite: { elements: 512_354, nan: 0, infinite: 0, tensors: [] },
    });
    const text = await siglip2(['inspect', '--model', checkpoint]);
    expect(text.stdout).toMatch(/NaFlex \(siglip2\)/);
    expect(text.stdout).toMatch(/weights +The weights of this checkpoint are random/);
    expect(text.stdout).toMatch(/vision +330,496 +1 +128 +2 +128 /);
    expect(text.stdout).toMatch(/model.safetensors +1.0 MB/);
    expect(text.stdout).toMatch(/NaN +0\n/);
  });

  it('counts the weights that are no numbers, by tensor', async () => {
    const tensor = 'vision_model.head.mlp.fc1.weight';
    const folder = checkpointWithNaN(tensor);
    const json = await siglip2(['inspect', '--model', folder, '--json']);
    expect(documentOf<Document>(json).checkpoint).toMatchObject({
      nonFinite: { nan: 1, infinite: 0, tensors: [{ name: tensor, elements: 128 * 128, nan: 1, infinite: 0 }] },
    });
    const text = await siglip2(['inspect', '--model', folder]);
    expect(text.stdout).toContain(`${tensor}: 1 NaN and 0 infinite of 16,384`);
  });

  it('shows no commands to the terminal that a checkpoint may hold', async () => {
    const folder = checkpointWithNaN('logit_scale');
    writeFileSync(path.join(folder, 'RANDOM_WEIGHTS'), '\u001b]0;title\u0007 \u009b2J\nsecond line');
    const result = await siglip2(['inspect', '--model', folder]);
    expect(result.stderr).toBe('note: \\x1b]0;title\\x07 \\x9b2J\n');
  });
});
