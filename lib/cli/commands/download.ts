import type { Command } from 'commander';
import { downloadCheckpoint } from '../../hub/index.js';
import { exitCodes, UsageError } from '../errors.js';
import { hubErrorSummary, hubOptions, withDownloads } from '../model.js';
import { addCommonOptions, type CommonOptions, exampleModel } from '../options.js';
import { type Context, runs } from '../run.js';
import { bytes, table } from '../table.js';
import { printable } from '../terminal.js';

/** Adds `siglip2 download`. */
export function addDownload(program: Command): void {
  const command = program
    .command('download')
    .summary('download a model from the Hugging Face hub')
    .description(
      'Downloads configuration, tokenizer and weights into the cache that Python uses too. What is there already is kept, ' +
        'interrupted downloads continue, and every file is verified. --device, --dtype and --threads change nothing here.',
    )
    .argument('[id]', `hub id, such as ${exampleModel}; --model says the same`);
  addCommonOptions(command, '').addHelpText(
    'after',
    `
Examples:
  siglip2 download ${exampleModel}
  siglip2 download ${exampleModel} --revision main --cache-dir ./models
  HF_TOKEN=hf_… siglip2 download organisation/private-model`,
  );
  runs(command, downloadCommand);
}

async function downloadCommand(context: Context, options: CommonOptions, operands: string[]): Promise<number> {
  const { terminal, signal } = context;
  const id = operands[0] ?? options.model;
  if (id === undefined)
    throw new UsageError('no model is named', `name one, for instance: siglip2 download ${exampleModel}`);
  const result = await withDownloads(terminal, (onProgress) =>
    downloadCheckpoint(id, { ...hubOptions(options), onProgress, signal }),
  );
  const { hubError: _, ...checkpoint } = result;
  const summary = hubErrorSummary(terminal, result);
  if (terminal.settings.json) terminal.document({ ...checkpoint, ...summary });
  const total = result.files.reduce((sum, { size }) => sum + size, 0);
  const rows = result.files.map(({ file, size, cached }) => [
    printable(file),
    bytes(size),
    cached ? 'was in the cache' : 'downloaded',
  ]);
  terminal.print(`${terminal.style(`${result.repository}, revision ${result.revision}`, 'bold')}`);
  terminal.print(table([...rows, ['total', bytes(total)]], '<>'));
  terminal.print(`\n${printable(result.folder)}`);
  return exitCodes.success;
}
