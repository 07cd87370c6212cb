/** Errors as the command line shows them: code, cause and remedy, never a stack trace unless asked for. */
import { CommanderError } from 'commander';
import { SiglipError, type SiglipErrorCode } from '../errors.js';
import { printableLines, type Terminal } from './terminal.js';

/** Exit codes of the command. An interrupted one exits with 128 + the number of the signal. */
export const exitCodes = { success: 0, failure: 1, usage: 2 } as const;

/** A mistake in the command line, found here and not by a library call. */
export class UsageError extends Error {
  override readonly name = 'UsageError';

  constructor(
    message: string,
    /** What to type instead. */
    readonly remedy: string,
  ) {
    super(message);
  }
}

/** An error in the form in which it is printed. */
export interface Failure {
  code: string;
  message: string;
  remedy?: string;
  details?: Record<string, unknown>;
  exitCode: number;
}

const remedies: Record<SiglipErrorCode, string> = {
  ERR_SIGLIP_NATIVE_NOT_FOUND:
    'siglip2 inspect shows what was tried; in a checkout, build it with: npm run build:native',
  ERR_SIGLIP_NO_DEVICE: 'siglip2 inspect lists the devices of this machine; without --device the best one is chosen',
  ERR_SIGLIP_CUDA: 'try --device cpu; siglip2 inspect shows driver and devices',
  ERR_SIGLIP_OUT_OF_MEMORY: 'lower --batch-size or --max-patches, use a smaller model, or free memory',
  ERR_SIGLIP_SHAPE: 'the message names both shapes; siglip2 inspect --model MODEL shows those of the model',
  ERR_SIGLIP_CHECKPOINT:
    '--model takes a folder in Hugging Face layout or a hub id such as google/siglip2-base-patch16-naflex',
  ERR_SIGLIP_CONFIG: 'config.json must be that of a SigLIP or SigLIP 2 model; download the checkpoint again if it is',
  ERR_SIGLIP_TOKENIZER: 'tokenizer.json must lie next to config.json; download the checkpoint again if it is damaged',
  ERR_SIGLIP_IMAGE: 'JPEG, PNG, WebP, GIF, TIFF and AVIF can be read; --max-pixels raises the limit on size',
  ERR_SIGLIP_DATA: 'captions may be .jsonl, .csv or .parquet, shards .tar or .tar.gz; the message names the file',
  ERR_SIGLIP_HUB: 'check the network, and HF_ENDPOINT and the proxy settings if they are set',
  ERR_SIGLIP_OFFLINE: 'run siglip2 download once with the network, or unset HF_HUB_OFFLINE',
  ERR_SIGLIP_ABORTED: 'run it again; finished downloads are kept, and interrupted ones continue',
  ERR_SIGLIP_DISPOSED: 'this is a defect of siglip2; please report it with the output of siglip2 inspect',
  ERR_SIGLIP_UNSUPPORTED: 'the message says what is supported',
};

const systemRemedies: Record<string, string> = {
  ENOENT: 'check the path',
  EISDIR: 'name a file, not a folder',
  ENOTDIR: 'check the path: something on it is a file and no folder',
  EEXIST: 'name another path, or move away what is there',
  ENAMETOOLONG: 'use a shorter name',
  EFBIG: 'raise the limit on the size of files (ulimit -f), or write to another file system',
  EMFILE: 'raise the limit on open files (ulimit -n)',
  EACCES: 'check the permissions of the file and its folder',
  EPERM: 'check the permissions of the file and its folder',
  EROFS: 'write to another file system',
  ENOSPC: 'free space on the disk, or write to another one',
  EDQUOT: 'free space on the disk, or write to another one',
};

const otherSystemRemedy = 'the operating system refused this: check the path, and what is there';

/** Options of library calls that messages mention, and what they are called here. */
const flags: Record<string, string> = {
  maxPixels: '--max-pixels',
  maxPatches: '--max-patches',
  batchSize: '--batch-size',
  cacheDir: '--cache-dir',
  'options.device': '--device',
  'options.dtype': '--dtype',
  'options.template': '--template',
  'options.revision': '--revision',
  'options.token': '--token',
  repository: 'id',
};

/** A library's message in the words of the command line. */
export function inFlags(message: string): string {
  return (
    message
      .replace(/^(repository|options\.\w+)(?=:)/, (name) => flags[name] ?? flags[name.slice('options.'.length)] ?? name)
      // Not within a longer name, such as that of a key of a configuration.
      .replace(/(?<![\w.])(maxPixels|maxPatches|batchSize|cacheDir)\b/g, (name) => flags[name] as string)
  );
}

/** Node's "ENOENT: no such file or directory, stat 'path'" without code, call and path. */
export function systemReason(message: string): string {
  return message.replace(/\bE[A-Z]+: (.+?), \w+(?: '.*')?$/s, '$1');
}

/** Whether an error is the operating system's answer to a call, as opposed to one of Node, which has a code, too. */
function isSystemError(error: unknown): error is Error & { code: string; syscall: string } {
  if (!(error instanceof Error)) return false;
  const { code, syscall } = error as NodeJS.ErrnoException;
  return typeof code === 'string' && typeof syscall === 'string';
}

/**
 * An error of the system, of which the message says which file or option it is about; any other as it is.
 * @param problem what cannot be done: `photos.npy cannot be written`
 */
export function fileError(problem: string, error: unknown): unknown {
  if (!isSystemError(error)) return error;
  const { code, syscall, message } = error;
  const reason = code === 'EISDIR' ? 'it is a folder' : systemReason(message);
  return Object.assign(new Error(`${problem}: ${reason}`, { cause: error }), { code, syscall });
}

/**
 * Code, message and remedy of anything that was thrown.
 * @param command the command that was run, if it is known
 */
export function describeFailure(error: unknown, command?: string): Failure {
  const help =
    command === undefined
      ? 'siglip2 --help lists the commands'
      : `siglip2 ${command} --help shows operands and options`;
  const usage = (message: string, remedy = help): Failure => ({
    code: 'ERR_SIGLIP_USAGE',
    message,
    remedy,
    exitCode: exitCodes.usage,
  });
  if (error instanceof UsageError) return usage(error.message, error.remedy);
  if (error instanceof CommanderError) return usage(error.message.replace(/^error: /, '').replace(/\n/g, ' '));
  if (error instanceof SiglipError) {
    const { code, details } = error;
    const remedy =
      code === 'ERR_SIGLIP_HUB'
        ? hubRemedy(details)
        : command === 'train'
          ? trainRemedy(error)
          : remedyOf(code, command);
    return {
      code,
      message: inFlags(error.message),
      remedy,
      ...(details === undefined ? {} : { details }),
      exitCode: exitCodes.failure,
    };
  }
  if (error instanceof TypeError || error instanceof RangeError) {
    const message = inFlags(error.message);
    if (message !== error.message) return usage(message);
  }
  if (isSystemError(error)) {
    const { code, message } = error;
    const remedy = systemRemedies[code] ?? otherSystemRemedy;
    return { code, message: message.replace(`${code}: `, ''), remedy, exitCode: exitCodes.failure };
  }
  return {
    code: 'ERR_SIGLIP_UNEXPECTED',
    message: error instanceof Error ? error.message : String(error),
    remedy: 'this may be a defect of siglip2: run it again with --verbose, and report what that prints',
    exitCode: exitCodes.failure,
  };
}

/** What helps, where that depends on the command. */
function remedyOf(code: SiglipErrorCode, command: string | undefined): string {
  if (code === 'ERR_SIGLIP_DATA' && command === 'search')
    return 'make the index again with siglip2 embed and the model that is to search it, or search with the one that made it';
  return remedies[code];
}

/** What helps a training. */
function trainRemedy({ code, details }: SiglipError): string {
  if (code === 'ERR_SIGLIP_OUT_OF_MEMORY')
    return 'set training.microBatchSize lower, training.checkpointing to true, or data.sequenceLengths lower';
  if (code === 'ERR_SIGLIP_CONFIG' && details?.mistakes !== undefined) return 'docs/training.md lists the keys';
  if (code === 'ERR_SIGLIP_ABORTED') return 'siglip2 train with --resume continues with the next step';
  return remedies[code];
}

function hubRemedy(details: Record<string, unknown> | undefined): string {
  switch (details?.status) {
    case 401:
    case 403:
      return 'check the id; for a private or gated model, accept its terms on its page and set HF_TOKEN';
    case 404:
      return 'check the spelling of the id and of --revision';
    case 429:
      return 'the hub asks to wait: try again later, or set HF_TOKEN';
    default:
      return remedies.ERR_SIGLIP_HUB;
  }
}

/** Prints an error, as JSON on stdout or as text on stderr, and returns the exit code. */
export function reportFailure(terminal: Terminal, error: unknown, command?: string): number {
  const { exitCode, ...failure } = describeFailure(error, command);
  if (terminal.settings.json) {
    terminal.document({ error: failure });
  } else {
    terminal.error(
      `${terminal.styleError(`error ${failure.code}:`, 'bold', 'red')} ${printableLines(failure.message)}`,
    );
    if (failure.remedy !== undefined) terminal.error(`${terminal.styleError('try:', 'bold')} ${failure.remedy}`);
  }
  if (terminal.settings.verbose) terminal.error(traceOf(error));
  return exitCode;
}

/** The stack traces of an error and of its causes. */
function traceOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const own = error.stack ?? error.message;
  return error.cause === undefined ? own : `${own}\ncaused by: ${traceOf(error.cause)}`;
}
