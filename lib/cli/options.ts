/** Options that every command takes, and how values of options are read. */
import { type Command, InvalidArgumentError } from 'commander';
import type { Device, DType } from '../device.js';
import type { TerminalSettings } from './terminal.js';

/** Values of the options that every command takes. */
export interface CommonOptions extends Partial<TerminalSettings> {
  model?: string;
  device?: Device;
  dtype?: DType | 'auto';
  threads?: number;
  revision?: string;
  cacheDir?: string;
  token?: string;
  offline?: boolean;
}

/** A model to name in examples. */
export const exampleModel = 'google/siglip2-base-patch16-naflex';

/**
 * Adds what every command takes.
 * @param withoutModel what happens when no model is named
 */
export function addCommonOptions(command: Command, withoutModel = ' (default: the packaged emoji model)'): Command {
  command
    .optionsGroup('Model:')
    .option('--model <folder|id>', `folder in Hugging Face layout, or hub id such as ${exampleModel}${withoutModel}`);
  addDeviceOptions(command)
    .option(
      '--dtype <type>',
      'auto, float32, bfloat16, or int8 on a CPU; siglip2 inspect says what auto is (default: auto)',
    )
    .option('--revision <name>', 'hub: branch, tag or commit (default: main)');
  return addHubOptions(command);
}

/** Values of the options of commands that read images. */
export interface ImageOptions {
  maxPatches?: number;
  maxPixels?: number;
}

/** Adds how images are read. */
export function addImageOptions(command: Command): Command {
  return command
    .option(
      '--max-patches <n>',
      "NaFlex models: most patches of an image (default: the model's own, usually 256)",
      integer(1),
    )
    .option('--max-pixels <n>', 'largest image that is read (default: 178956970)', integer(1));
}

/** Adds where to compute. */
export function addDeviceOptions(command: Command): Command {
  return command
    .option('--device <name>', 'auto or cpu; siglip2 inspect lists the devices (default: auto)')
    .option('--threads <n>', 'CPU threads (default: all cores)', integer(1, 1024));
}

/** Adds how the hub is reached, and how a command talks. */
export function addHubOptions(command: Command): Command {
  return command
    .option('--cache-dir <folder>', 'hub: where downloads are kept (default: HF_HUB_CACHE, as Python)')
    .option('--token <token>', 'hub: access token (default: HF_TOKEN)')
    .option('--offline', 'hub: use only what is in the cache')
    .optionsGroup('Output:')
    .option('--json', 'one JSON document on stdout, errors included')
    .option('--quiet', 'no progress and no notices')
    .option('--verbose', 'stack traces with errors (also with the variable DEBUG)')
    .optionsGroup('Options:')
    .helpOption('-h, --help', 'show this help');
}

/** A parser for options that are integers. */
export function integer(minimum: number, maximum = Number.MAX_SAFE_INTEGER): (text: string) => number {
  const range = maximum === Number.MAX_SAFE_INTEGER ? `of at least ${minimum}` : `from ${minimum} to ${maximum}`;
  return (text) => {
    const value = Number(text);
    if (!/^\d+$/.test(text) || value < minimum || value > maximum)
      throw new InvalidArgumentError(`Expected an integer ${range}.`);
    return value;
  };
}

/** A parser for options that may be given several times. */
export function collect(text: string, earlier: string[] | undefined): string[] {
  return [...(earlier ?? []), text];
}
