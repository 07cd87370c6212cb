#!/usr/bin/env node
/** The command `siglip2`. */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { Command, CommanderError } from 'commander';
import loader from '../native-loader.cjs';
import { addBench } from './commands/bench.js';
import { addClassify } from './commands/classify.js';
import { addDownload } from './commands/download.js';
import { addEmbed } from './commands/embed.js';
import { addInspect } from './commands/inspect.js';
import { addSearch } from './commands/search.js';
import { addTrain } from './commands/train.js';
import { exitCodes, reportFailure } from './errors.js';
import { exampleModel } from './options.js';
import { handleOutputErrors } from './output.js';
import { debugging } from './run.js';
import { Terminal } from './terminal.js';

function createProgram(): Command {
  const manifest = JSON.parse(readFileSync(path.join(loader.packageRoot, 'package.json'), 'utf8')) as {
    version: string;
  };
  const program = new Command('siglip2')
    .description('SigLIP 2 vision-language encoders: search, classify and embed images and texts, train models.')
    .version(manifest.version, '-V, --version', 'show the version')
    .helpOption('-h, --help', 'show this help')
    .helpCommand('help [command]', 'show the help of a command')
    .exitOverride()
    // Errors are printed in one place, in one form.
    .configureOutput({ outputError: () => {} })
    .configureHelp({ showGlobalOptions: false });
  addInspect(program);
  addSearch(program);
  addClassify(program);
  addEmbed(program);
  addDownload(program);
  addTrain(program);
  addBench(program);
  return program.addHelpText(
    'after',
    `
Examples:
  siglip2 search "guitarra" "ピザ" --in emoji
  siglip2 classify photo.jpg --labels "cat,dog,bird" --model ${exampleModel}
  siglip2 embed photos --out photos.npy --model ${exampleModel}
  siglip2 train config.yaml --out runs/first

A model is a folder in Hugging Face layout or a hub id, which is downloaded on first use. Without --model it is a small
one of emoji pictures, which comes with the package.
Exit codes: 0 success, 1 failure or something skipped, 2 mistake in the command line.`,
  );
}

/** What was typed, without a `help` before an unknown command, which is the mistake then that it is anywhere else. */
function withoutIdleHelp(program: Command, typed: string[]): string[] {
  const [first, name] = typed;
  const known = ['help', ...program.commands.map((command) => command.name())];
  return first === 'help' && name !== undefined && !name.startsWith('-') && !known.includes(name)
    ? typed.slice(1)
    : typed;
}

async function main(): Promise<void> {
  handleOutputErrors();
  const program = createProgram();
  const options = withoutIdleHelp(program, process.argv.slice(2));
  try {
    await program.parseAsync(options, { from: 'user' });
  } catch (error) {
    if (error instanceof CommanderError && error.exitCode === 0) return;
    // A command without operands is a question; its help has been printed, on stderr.
    if (error instanceof CommanderError && error.code === 'commander.help') {
      process.exitCode = exitCodes.usage;
      return;
    }
    const terminal = new Terminal({
      json: options.includes('--json'),
      quiet: options.includes('--quiet'),
      verbose: options.includes('--verbose') || debugging(),
    });
    process.exitCode = reportFailure(
      terminal,
      error,
      program.commands.map((command) => command.name()).find((name) => name === options[0]),
    );
  }
}

main();
