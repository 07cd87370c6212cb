import type { Command } from 'commander';
import { type Inspection, inspect } from '../../inspect.js';
import { type CheckpointDescription, describeCheckpoint } from '../../model/statistics.js';
import { exitCodes } from '../errors.js';
import { findCheckpoint, type ModelSummary } from '../model.js';
import { addCommonOptions, type CommonOptions, exampleModel } from '../options.js';
import { Progress } from '../progress.js';
import { type Context, runs } from '../run.js';
import { bytes, count, plural, table } from '../table.js';
import { printable, type Terminal } from '../terminal.js';

/** Adds `siglip2 inspect`. */
export function addInspect(program: Command): void {
  const command = program
    .command('inspect')
    .summary('show this machine and installation, or a checkpoint')
    .description(
      'Shows versions, native binaries, processor features and devices. With --model also what the checkpoint consists ' +
        'of, and which of its weights are NaN or infinite; all weights are read for that.',
    );
  addCommonOptions(command, '').addHelpText(
    'after',
    `
Examples:
  siglip2 inspect
  siglip2 inspect --json > report.json
  siglip2 inspect --model ${exampleModel}`,
  );
  runs(command, inspectCommand);
}

async function inspectCommand(context: Context, options: CommonOptions): Promise<number> {
  const { terminal } = context;
  const inspection = await inspect();
  printInspection(terminal, inspection);
  let found: { summary: ModelSummary; description: CheckpointDescription } | undefined;
  if (options.model !== undefined) {
    found = await readCheckpoint(context);
    printCheckpoint(terminal, found.summary, found.description);
  }
  if (terminal.settings.json)
    terminal.document({ ...inspection, ...(found === undefined ? {} : { checkpoint: checkpointDocument(found) }) });
  // Without a binary nothing works, which a script that asks wants to know.
  return inspection.cpu === undefined ? exitCodes.failure : exitCodes.success;
}

async function readCheckpoint(
  context: Context,
): Promise<{ summary: ModelSummary; description: CheckpointDescription }> {
  const { folder, summary } = await findCheckpoint(context, { tokenizer: true });
  const progress = new Progress(context.terminal, 'reading all weights …');
  try {
    return { summary, description: await describeCheckpoint(folder, { signal: context.signal }) };
  } finally {
    progress.stop();
  }
}

function checkpointDocument({
  summary,
  description,
}: {
  summary: ModelSummary;
  description: CheckpointDescription;
}): unknown {
  // The files' own JSON is in the files.
  const { json: _, ...config } = description.config;
  return { ...summary, ...description, config };
}

function section(terminal: Terminal, title: string, lines: string): void {
  terminal.print(`${terminal.style(title, 'bold')}\n${lines}\n`);
}

function printInspection(terminal: Terminal, inspection: Inspection): void {
  const { version, node, platform, arch, libc, sharp, cpu, devices, auto, gpu, binaries } = inspection;
  section(
    terminal,
    'Installation',
    table([
      ['siglip2', version],
      ['Node.js', `${node} (${platform} ${arch}${libc === undefined ? '' : `, ${libc}`})`],
      [
        'sharp',
        sharp === undefined
          ? 'not installed: only raw pixels can be read'
          : `${sharp.version} (libvips ${sharp.libvips})`,
      ],
      ...binaries.map(({ path, error }, index) => [
        index === 0 ? 'binary' : '',
        printable(error === undefined ? `${path} (in use)` : `${path} (not used: ${error})`),
      ]),
    ]),
  );
  if (cpu === undefined) {
    terminal.print('No native binary could be loaded, so no model can run. In a checkout: npm run build:native\n');
    return;
  }
  section(
    terminal,
    'Processor',
    table([
      ['model', cpu.model],
      ['cores', String(cpu.cores)],
      ['memory available', bytes(cpu.availableMemory)],
      ...cpu.instructionSets.map(({ name, compiled, supported }, index) => [
        index === 0 ? 'kernels' : '',
        name === cpu.instructionSet
          ? `${name} (in use)`
          : `${name} (${!compiled ? 'not in this binary' : supported ? 'available' : 'not on this machine'})`,
      ]),
    ]),
  );
  section(
    terminal,
    'Devices',
    table([
      ...devices.map(({ name, description }) => [name, description]),
      ...(auto === undefined
        ? []
        : [
            ['auto', `${auto.device} (${auto.reason})`],
            ['dtype', `auto is ${auto.dtype} for inference`],
          ]),
      ...(gpu.unusedCards === undefined
        ? []
        : [['not used', printable(`${gpu.unusedCards.join(', ')}: ${gpu.reason}`)]]),
    ]),
  );
  const gpus = gpuRows(devices);
  if (gpus.length > 0) section(terminal, 'GPUs', table(gpus));
}

/** What is known of GPUs, a few lines each, the emulated one included. */
export function gpuRows(devices: Inspection['devices']): string[][] {
  return devices.flatMap(({ name, facts }) => {
    if (facts === undefined) return [];
    const { driverVersion: version } = facts;
    return [
      [name, 'model', printable(facts.name)],
      ['', 'architecture', `${facts.architecture}, ${plural(facts.multiprocessors, 'multiprocessor')}`],
      ['', 'memory', `${bytes(facts.freeBytes)} free of ${bytes(facts.memoryBytes)}`],
      ...(version === 0
        ? []
        : [['', 'driver', `knows CUDA ${Math.floor(version / 1000)}.${Math.floor((version % 1000) / 10)}`]]),
      ...(facts.notice === '' ? [] : [['', 'notice', printable(facts.notice)]]),
    ];
  });
}

function printCheckpoint(terminal: Terminal, summary: ModelSummary, description: CheckpointDescription): void {
  const { folder, config, differences, parameters, dtypes, files, unused, nonFinite } = description;
  const { vision, text } = config;
  const fixed = config.architecture === 'fixed';
  section(
    terminal,
    'Checkpoint',
    table([
      ['model', printable(summary.model)],
      ...(summary.revision === undefined ? [] : [['revision', summary.revision]]),
      ['folder', printable(folder)],
      ['architecture', fixed ? 'fixed resolution (siglip)' : 'NaFlex (siglip2)'],
      ['weights', summary.notice ?? 'not marked as random'],
      ...differences.map((difference) => ['corrected', difference]),
    ]),
  );
  const layers = (tower: typeof vision | typeof text) => [
    String(tower.numHiddenLayers),
    String(tower.hiddenSize),
    String(tower.numAttentionHeads),
    String(tower.intermediateSize),
  ];
  section(
    terminal,
    'Towers',
    table(
      [
        ['', 'parameters', 'layers', 'width', 'heads', 'MLP', 'input'],
        [
          'vision',
          count(parameters.vision),
          ...layers(vision),
          fixed
            ? `${vision.imageSize} x ${vision.imageSize} pixels, patches of ${vision.patchSize}`
            : `any size, patches of ${vision.patchSize} pixels`,
        ],
        [
          'text',
          count(parameters.text),
          ...layers(text),
          `${text.maxPositionEmbeddings} tokens, vocabulary of ${count(text.vocabSize)}`,
        ],
        ['total', count(parameters.total)],
      ],
      '<>>>>>',
    ),
  );
  section(terminal, 'Files', table([...files.map(({ name, size }) => [printable(name), bytes(size)])], '<>'));
  section(
    terminal,
    'Weights',
    table([
      ...Object.entries(dtypes).map(([dtype, { tensors, parameters: elements }]) => [
        dtype,
        `${plural(tensors, 'tensor')}, ${plural(elements, 'parameter')}`,
      ]),
      ...(unused.length === 0 ? [] : [['unused', printable(unused.join(', '))]]),
      ['NaN', count(nonFinite.nan)],
      ['infinite', count(nonFinite.infinite)],
      ...nonFinite.tensors.map(({ name, nan, infinite, elements }) => [
        '',
        `${printable(name)}: ${count(nan)} NaN and ${count(infinite)} infinite of ${count(elements)}`,
      ]),
    ]),
  );
}
