/** Requests to the hub: redirects, time limits, retries, and what an answer means to a person. */
import { setTimeout as sleep } from 'node:timers/promises';
import { linkedController } from '../abort.js';
import { throwIfAborted } from '../arguments.js';
import { SiglipError } from '../errors.js';
import type { HubSettings } from './settings.js';

/** What `details` of an `ERR_SIGLIP_HUB` error carries. */
export interface HubErrorDetails {
  repository?: string;
  revision?: string;
  file?: string;
  /** Address that was asked, without query: storage addresses carry secrets there. */
  url?: string;
  /** HTTP status of the answer. */
  status?: number;
  /** What a 404 was about. */
  notFound?: 'file' | 'revision' | 'repository';
  /** Whether trying again later may help. */
  retryable?: boolean;
  /** Milliseconds the server asks to wait. */
  retryAfter?: number;
  [key: string]: unknown;
}

/** One file of one revision of a repository: what a request is about. */
export interface RemoteFile {
  repository: string;
  revision: string;
  file: string;
}

/** An `ERR_SIGLIP_HUB` error. */
export function hubError(message: string, details: HubErrorDetails, cause?: unknown): SiglipError {
  return new SiglipError('ERR_SIGLIP_HUB', message, { details, cause });
}

/** The details of an `ERR_SIGLIP_HUB` error, undefined for anything else. */
export function hubDetails(error: unknown): HubErrorDetails | undefined {
  return error instanceof SiglipError && error.code === 'ERR_SIGLIP_HUB'
    ? ((error.details ?? {}) as HubErrorDetails)
    : undefined;
}

/** The address of a file on the hub. */
export function resolveUrl(settings: HubSettings, { repository, revision, file }: RemoteFile): string {
  const name = file.split('/').map(encodeURIComponent).join('/');
  return `${settings.endpoint}/${repository}/resolve/${encodeURIComponent(revision)}/${name}`;
}

/** Aborts a request when the caller does, or when the server has been silent for too long. */
export class Watchdog {
  readonly #controller: AbortController;
  readonly #release: () => void;
  readonly #timer: NodeJS.Timeout;
  readonly #caller: AbortSignal | undefined;
  #stalled = false;

  constructor(
    caller: AbortSignal | undefined,
    readonly timeout: number,
  ) {
    this.#caller = caller;
    const { controller, release } = linkedController(caller);
    this.#controller = controller;
    this.#release = release;
    this.#timer = setTimeout(() => {
      this.#stalled = true;
      this.#controller.abort();
    }, timeout);
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** The server said something: the clock starts again. */
  touch(): void {
    this.#timer.refresh();
  }

  /** Always called at the end; also closes a connection that is still open. */
  dispose(): void {
    clearTimeout(this.#timer);
    this.#release();
    this.#controller.abort();
  }

  /** Turns what `fetch` or a body threw into an error of this package. */
  translate(error: unknown, remote: RemoteFile, url: string): unknown {
    throwIfAborted(this.#caller);
    if (error instanceof SiglipError) return error;
    const details = { ...remote, url: publicUrl(url) };
    if (this.#stalled)
      return hubError(`${details.url} sent nothing for ${this.timeout} ms`, { ...details, retryable: true }, error);
    const reason = networkCode(error);
    return hubError(
      `cannot read ${details.url}: ${reason}`,
      { ...details, reason, retryable: !/CERT|SIGNATURE|ISSUER/.test(reason) },
      error,
    );
  }
}

/** `fetch` hides the reason one level down. */
function networkCode(error: unknown): string {
  const cause = (error as { cause?: unknown }).cause ?? error;
  const { code, message } = cause as { code?: unknown; message?: unknown };
  return typeof code === 'string' ? code : String(message ?? cause);
}

/** An address fit for messages: the query of a storage address is a signature. */
function publicUrl(url: string): string {
  const { origin, pathname } = new URL(url);
  return origin + pathname;
}

const maximumRedirects = 10;
/** The hub's own names. A mirror may send metadata requests on to them, which is safe because no token goes along. */
const hubHosts = ['huggingface.co', 'hf.co'];

/** An answer and the hops that led to it. */
export interface Answer {
  response: Response;
  url: string;
  /** Headers of the redirects that came before, oldest first. */
  earlier: Headers[];
  /** Whether the answer comes from the origin that was asked first: what it says about tokens is then meant for us. */
  fromHub: boolean;
}

/**
 * Sends a request and follows its redirects by hand, because two things depend on the hops. The token goes only to the
 * origin (scheme, host and port) of the first address. And with `stayOnHub` a redirect to elsewhere is itself the
 * answer: the hub describes a file in the redirect to its storage, and the storage's headers mean something else.
 */
export async function send(
  method: 'GET' | 'HEAD',
  start: string,
  remote: RemoteFile,
  settings: HubSettings,
  watchdog: Watchdog,
  { range, stayOnHub = false }: { range?: string; stayOnHub?: boolean } = {},
): Promise<Answer> {
  const origin = new URL(start).origin;
  const earlier: Headers[] = [];
  let url = start;
  let fromHub = true;
  for (let hop = 0; hop <= maximumRedirects; hop++) {
    const headers: Record<string, string> = {
      'User-Agent': `siglip2 node/${process.versions.node}`,
      // Sizes and ranges are about the file, not about a compressed form of it.
      'Accept-Encoding': 'identity',
    };
    if (fromHub && settings.token !== undefined) headers.Authorization = `Bearer ${settings.token}`;
    if (range !== undefined) headers.Range = range;
    let response: Response;
    try {
      response = await fetch(url, { method, headers, redirect: 'manual', signal: watchdog.signal });
    } catch (error) {
      throw watchdog.translate(error, remote, url);
    }
    watchdog.touch();
    const location = response.headers.get('Location');
    if (response.status < 300 || response.status >= 400 || location === null)
      return { response, url, earlier, fromHub };
    const next = redirectTarget(location, url, remote);
    if (stayOnHub && next.origin !== origin && !(next.protocol === 'https:' && hubHosts.includes(next.hostname)))
      return { response, url, earlier, fromHub };
    await response.body?.cancel();
    // Once a redirect has left the origin, a later hop back to it is no longer ours to authorise.
    fromHub &&= next.origin === origin;
    earlier.push(response.headers);
    url = next.href;
  }
  throw hubError(`${publicUrl(start)} redirects more than ${maximumRedirects} times`, {
    ...remote,
    url: publicUrl(start),
  });
}

function redirectTarget(location: string, url: string, remote: RemoteFile): URL {
  const next = URL.canParse(location, url) ? new URL(location, url) : undefined;
  const secure = url.startsWith('https:');
  if (next === undefined || !(next.protocol === 'https:' || (next.protocol === 'http:' && !secure)))
    throw hubError(`${publicUrl(url)} redirects to an address that is not ${secure ? 'https' : 'http or https'}`, {
      ...remote,
      url: publicUrl(url),
    });
  return next;
}

/** The error for an answer that is neither success nor redirect. */
export function statusError(
  { response, url, fromHub }: Answer,
  remote: RemoteFile,
  settings: HubSettings,
): SiglipError {
  const { status, headers } = response;
  const { repository, revision, file } = remote;
  const errorCode = headers.get('X-Error-Code');
  const details: HubErrorDetails = { ...remote, url: publicUrl(url), status, retryable: false };
  if (errorCode !== null) details.errorCode = errorCode;
  const page = `${settings.endpoint}/${repository}`;
  if (!fromHub && status >= 400 && status < 500 && status !== 404)
    // Storage addresses are signed for a short time; a new one comes with the next attempt.
    return hubError(`the storage of ${repository} refused ${file} with status ${status}`, {
      ...details,
      retryable: true,
    });
  if (status === 401)
    return hubError(
      settings.token === undefined
        ? `${repository} does not exist, or is private or gated and needs a token: pass the option token or set HF_TOKEN`
        : `the token was not accepted for ${repository}: it may have expired, or not cover this repository`,
      details,
    );
  if (status === 403)
    return hubError(
      `access to ${repository} is refused: if it is gated, accept its terms at ${page} and use a token of that account` +
        (settings.token === undefined ? '; no token was sent' : ', with permission to read it'),
      details,
    );
  if (status === 404) {
    if (errorCode === 'RepoNotFound')
      return hubError(`there is no repository ${repository} at ${settings.endpoint}, or the token does not cover it`, {
        ...details,
        notFound: 'repository',
      });
    if (errorCode === 'RevisionNotFound')
      return hubError(`repository ${repository} has no revision ${revision} (looked for ${file} in it)`, {
        ...details,
        notFound: 'revision',
      });
    return hubError(`there is no file ${file} in revision ${revision} of ${repository} at ${settings.endpoint}`, {
      ...details,
      notFound: 'file',
    });
  }
  const wait = retryAfter(headers.get('Retry-After'));
  if (wait !== undefined) details.retryAfter = wait;
  details.retryable = status === 408 || status === 429 || status >= 500;
  const reason = status === 429 ? 'has received too many requests and asks to wait' : `answered with status ${status}`;
  return hubError(`${new URL(url).host} ${reason} (${file} of ${repository})`, details);
}

/** Milliseconds, from a number of seconds or a date. */
function retryAfter(header: string | null): number | undefined {
  if (header === null) return undefined;
  if (/^\d+$/.test(header)) return Number(header) * 1000;
  const date = Date.parse(header);
  return Number.isNaN(date) ? undefined : Math.max(0, date - Date.now());
}

/**
 * Runs `attempt` until it succeeds, fails for good, or has failed `retry.attempts` times in a row. `progressed` tells
 * whether the last attempt brought enough to count as a success of its own.
 */
export async function withRetries<T>(
  { retry, signal }: Pick<HubSettings, 'retry' | 'signal'>,
  attempt: () => Promise<T>,
  progressed: () => boolean = () => false,
): Promise<T> {
  for (let failures = 1; ; failures++) {
    throwIfAborted(signal);
    try {
      return await attempt();
    } catch (error) {
      const details = hubDetails(error);
      if (!details?.retryable) throw error;
      if (progressed()) failures = 0;
      const asked = details.retryAfter ?? 0;
      if (failures >= retry.attempts || asked > retry.maximumRetryAfter)
        throw hubError((error as Error).message, { ...details, attempts: failures }, (error as Error).cause);
      // Half of the wait is random, so that many clients of one hub do not come back together.
      const backoff = Math.min(retry.maximumDelay, retry.delay * 2 ** Math.max(0, failures - 1));
      await pause(Math.max(asked, backoff * (0.5 + Math.random() / 2)), signal);
    }
  }
}

/** Waits, unless the caller aborts. */
export async function pause(milliseconds: number, signal: AbortSignal | undefined): Promise<void> {
  try {
    await sleep(milliseconds, undefined, { signal });
  } catch (error) {
    throwIfAborted(signal);
    throw error;
  }
}
