/** The options of a download, completed from the environment at the time of the call. Explicit options win. */
import { readFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import path from 'node:path';
import { requireBoolean, requireInteger, requireOptions, requireString, wrongRange, wrongType } from '../arguments.js';
import { SiglipError } from '../errors.js';

/** How far one file has come; `loaded` never falls, and the last report of a file has `loaded === total`. */
export interface DownloadProgress {
  /** Name of the file in the repository. */
  file: string;
  /** Bytes on disk, including those of an earlier, interrupted download. */
  loaded: number;
  /** Size of the file in bytes. */
  total: number;
}

/** How patiently the network is tried. All times are in milliseconds. */
export interface RetryOptions {
  /** Failures in a row, without new data, after which a download gives up. Default 5. */
  attempts?: number;
  /** Wait before the second attempt; it doubles with every further one. Default 500. */
  delay?: number;
  /** The longest such wait. Default 8 000. */
  maximumDelay?: number;
  /** The longest `Retry-After` that is waited for; a server that asks for more is an error. Default 120 000. */
  maximumRetryAfter?: number;
  /** Silence of the server after which a connection is given up and tried again. Default 30 000. */
  stallTimeout?: number;
}

/** Where a checkpoint comes from and where it is kept. */
export interface HubOptions {
  /** Branch, tag or commit hash. Default `main`. */
  revision?: string;
  /** Folder of the cache. Default `HF_HUB_CACHE`, else `$HF_HOME/hub`, else `~/.cache/huggingface/hub`. */
  cacheDir?: string;
  /** Access token. Default `HF_TOKEN`, else the file that `hf auth login` writes. The empty string sends none. */
  token?: string;
  /** Use only what is in the cache. Default `HF_HUB_OFFLINE`. */
  offline?: boolean;
  /** Called while a file is downloaded, and not for files that are in the cache. */
  onProgress?: (progress: DownloadProgress) => void;
  /** Ends the work with `ERR_SIGLIP_ABORTED`; what has arrived is kept and continued the next time. */
  signal?: AbortSignal;
  /** How patiently the network is tried. */
  retry?: RetryOptions;
}

/** {@link HubOptions} and which files of the checkpoint are wanted. */
export interface CheckpointOptions extends HubOptions {
  /** Fetch the weights. Default true. */
  weights?: boolean;
  /** Fetch the tokenizer. Default true. */
  tokenizer?: boolean;
}

/** {@link CheckpointOptions} with every default filled in. */
export interface HubSettings {
  endpoint: string;
  revision: string;
  cacheDir: string;
  token: string | undefined;
  offline: boolean;
  symlinks: boolean;
  weights: boolean;
  tokenizer: boolean;
  onProgress: ((progress: DownloadProgress) => void) | undefined;
  signal: AbortSignal | undefined;
  retry: Required<RetryOptions>;
}

const defaultRetry: Required<RetryOptions> = {
  attempts: 5,
  delay: 500,
  maximumDelay: 8_000,
  maximumRetryAfter: 120_000,
  stallTimeout: 30_000,
};

const optionNames: readonly (keyof CheckpointOptions)[] = [
  'revision',
  'cacheDir',
  'token',
  'offline',
  'onProgress',
  'signal',
  'retry',
  'weights',
  'tokenizer',
];

/** Checks the options by themselves, without the environment. */
export function checkOptions(options: CheckpointOptions | undefined): CheckpointOptions {
  const given = requireOptions('options', options, optionNames);
  const { onProgress, signal } = given;
  if (onProgress !== undefined && typeof onProgress !== 'function')
    throw wrongType('options.onProgress', 'a function', onProgress);
  if (signal !== undefined && !(signal instanceof AbortSignal))
    throw wrongType('options.signal', 'an AbortSignal', signal);
  if (given.revision !== undefined) requireRevision(given.revision);
  if (given.cacheDir !== undefined) requireFilled('options.cacheDir', given.cacheDir);
  if (given.token !== undefined) checkToken('options.token', requireString('options.token', given.token));
  for (const name of ['offline', 'weights', 'tokenizer'] as const)
    if (given[name] !== undefined) requireBoolean(`options.${name}`, given[name]);
  readRetry(given.retry);
  return given;
}

/**
 * Checks the options and completes them from the environment.
 * @throws TypeError or RangeError for an option of the wrong kind or value.
 * @throws SiglipError `ERR_SIGLIP_HUB` when the environment itself is unusable.
 */
export async function readSettings(options: CheckpointOptions | undefined): Promise<HubSettings> {
  const given = checkOptions(options);
  return {
    endpoint: readEndpoint(),
    revision: given.revision ?? 'main',
    cacheDir: given.cacheDir === undefined ? defaultCache() : expand(given.cacheDir),
    token: await readToken(given.token),
    offline: given.offline ?? (isTrue(environment('HF_HUB_OFFLINE')) || isTrue(environment('TRANSFORMERS_OFFLINE'))),
    symlinks: !isTrue(environment('HF_HUB_DISABLE_SYMLINKS')),
    weights: given.weights ?? true,
    tokenizer: given.tokenizer ?? true,
    onProgress: given.onProgress,
    signal: given.signal,
    retry: readRetry(given.retry),
  };
}

function readRetry(retry: RetryOptions | undefined): Required<RetryOptions> {
  const names = Object.keys(defaultRetry) as (keyof RetryOptions)[];
  const given = requireOptions('options.retry', retry, names);
  const complete = { ...defaultRetry };
  for (const name of names) {
    const minimum = name === 'attempts' || name === 'stallTimeout' ? 1 : 0;
    // Node's timers hold 31 bits; a longer wait would fire at once.
    if (given[name] !== undefined)
      complete[name] = requireInteger(`options.retry.${name}`, given[name], minimum, 2 ** 31 - 1);
  }
  return complete;
}

/** Whether the text has the form of a hub id, `organisation/name`, by the hub's own rules. */
export function isRepository(text: string): boolean {
  const part = /^(?=.{1,96}$)\w(?:[\w.-]*\w)?$/;
  const parts = text.split('/');
  return (
    parts.length === 2 &&
    parts.every((name) => part.test(name)) &&
    !text.includes('--') &&
    !text.includes('..') &&
    !text.endsWith('.git')
  );
}

/** Whether the text is a full commit hash, which names one immutable state of a repository. */
export function isCommit(text: string): boolean {
  return /^[0-9a-f]{40}$/.test(text);
}

/** A revision becomes part of a URL and of a path in the cache, so it must be a name that git would accept. */
function requireRevision(value: unknown): void {
  const revision = requireFilled('options.revision', value);
  const parts = revision.split('/');
  const bad = parts.some((part) => part === '' || part.startsWith('.') || part.endsWith('.lock'));
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for
  if (bad || revision.length > 200 || /[\u0000-\u0020\u007f\\:*?"<>|~^[]|\.\./.test(revision))
    throw wrongRange('options.revision', 'a branch, tag or commit hash', revision);
}

function requireFilled(argument: string, value: unknown): string {
  const text = requireString(argument, value);
  if (text === '') throw wrongRange(argument, 'a string that is not empty', text);
  return text;
}

/** A variable of the environment; an empty one counts as unset. */
function environment(name: string): string | undefined {
  return process.env[name] || undefined;
}

function isTrue(value: string | undefined): boolean {
  return value !== undefined && ['1', 'ON', 'YES', 'TRUE'].includes(value.toUpperCase());
}

/** `~` and `$NAME` as a shell would read them, then absolute. */
function expand(location: string): string {
  const withHome = location.replace(/^~(?=$|[/\\])/, () => homedir());
  const withVariables = withHome.replace(
    /\$(?:(\w+)|\{(\w+)\})/g,
    (text: string, plain: string | undefined, braced: string | undefined) => process.env[plain ?? braced ?? ''] ?? text,
  );
  return path.resolve(withVariables);
}

function home(): string {
  const caches = environment('XDG_CACHE_HOME') ?? path.join('~', '.cache');
  return expand(environment('HF_HOME') ?? path.join(caches, 'huggingface'));
}

/**
 * The folder for what this package works out once and keeps: `SIGLIP2_CACHE`, else `$XDG_CACHE_HOME/siglip2`, else
 * `~/.cache/siglip2`. Undefined when `SIGLIP2_CACHE` is `off`, or nobody's home is known.
 */
export function derivedCache(): string | undefined {
  const location = environment('SIGLIP2_CACHE');
  if (location?.toLowerCase() === 'off') return undefined;
  try {
    return expand(location ?? path.join(environment('XDG_CACHE_HOME') ?? path.join('~', '.cache'), 'siglip2'));
  } catch {
    return undefined;
  }
}

function defaultCache(): string {
  const location = environment('HF_HUB_CACHE') ?? environment('HUGGINGFACE_HUB_CACHE');
  return location === undefined ? path.join(home(), 'hub') : expand(location);
}

function readEndpoint(): string {
  const text = environment('HF_ENDPOINT') ?? 'https://huggingface.co';
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || !/^https?:$/.test(url.protocol) || url.username || url.password || url.search || url.hash)
    throw new SiglipError(
      'ERR_SIGLIP_HUB',
      'HF_ENDPOINT must be an http or https address without user, query or fragment',
    );
  return url.href.replace(/\/+$/, '');
}

async function readToken(given: string | undefined): Promise<string | undefined> {
  if (given !== undefined) return given.trim() || undefined;
  if (isTrue(environment('HF_HUB_DISABLE_IMPLICIT_TOKEN'))) return undefined;
  const variable = environment('HF_TOKEN') ?? environment('HUGGING_FACE_HUB_TOKEN');
  if (variable !== undefined) return checkToken('HF_TOKEN', variable);
  const location = environment('HF_TOKEN_PATH');
  const file = location === undefined ? path.join(home(), 'token') : expand(location);
  try {
    return checkToken(file, await readFile(file, 'utf8'));
  } catch (error) {
    // Most people have no token; one that cannot be read is reported when the hub asks for it.
    if (error instanceof RangeError) throw error;
    return undefined;
  }
}

/** A token without the line end that files and pipes leave. The message must not show the token: error messages end in logs. */
function checkToken(origin: string, text: string): string | undefined {
  const token = text.trim();
  if (!/^[\x21-\x7e]*$/.test(token))
    throw new RangeError(`${origin}: expected a token of printable ASCII characters, got one with others`);
  return token || undefined;
}
