/** What the hub says about a file before it is downloaded. */
import {
  type Answer,
  hubError,
  type RemoteFile,
  resolveUrl,
  send,
  statusError,
  Watchdog,
  withRetries,
} from './http.js';
import { type HubSettings, isCommit } from './settings.js';

/** The hub's description of one file. */
export interface FileMetadata {
  /** The commit that the revision stands for. */
  commit: string;
  /** Name of the content: its SHA-256 for large files, its git blob SHA-1 for others. Safe as a file name. */
  etag: string;
  /** Size in bytes; undefined when the server does not tell. */
  size: number | undefined;
}

/** Larger than any configuration or tokenizer, and small enough to be read into memory. */
export const maximumTextBytes = 256 * 2 ** 20;

/** Whether a file of this name holds tensors and may be of any size. */
export function isWeights(file: string): boolean {
  return file.endsWith('.safetensors');
}

/**
 * Asks the hub about a file.
 * @throws SiglipError `ERR_SIGLIP_HUB`; `details.notFound` is `'file'` where the file does not exist.
 */
export async function fetchMetadata(remote: RemoteFile, settings: HubSettings): Promise<FileMetadata> {
  return withRetries(settings, async () => {
    const watchdog = new Watchdog(settings.signal, settings.retry.stallTimeout);
    try {
      const answer = await send('HEAD', resolveUrl(settings, remote), remote, settings, watchdog, { stayOnHub: true });
      if (answer.response.status >= 400) throw statusError(answer, remote, settings);
      return readMetadata(answer, remote);
    } finally {
      watchdog.dispose();
    }
  });
}

function readMetadata({ response, url, earlier }: Answer, remote: RemoteFile): FileMetadata {
  const hops = [response.headers, ...earlier.toReversed()];
  const header = (name: string) => hops.map((headers) => headers.get(name)).find((value) => value !== null);
  const impossible = (what: string, value: string) =>
    hubError(`${new URL(url).host} describes ${remote.file} of ${remote.repository} with ${what}`, {
      ...remote,
      value: value.slice(0, 200),
    });

  const commit = header('X-Repo-Commit');
  if (commit === undefined)
    throw hubError(
      `the answer of ${new URL(url).host} has no X-Repo-Commit header, so it is not a hub: check HF_ENDPOINT, ` +
        'and whether a proxy or login page stands in between',
      { ...remote },
    );
  if (!isCommit(commit)) throw impossible('a commit that is not a hash', commit);
  if (isCommit(remote.revision) && commit !== remote.revision) throw impossible('another commit', commit);

  const tag = header('X-Linked-Etag') ?? response.headers.get('ETag');
  if (tag === null) throw impossible('no ETag', '');
  const etag = tag.replace(/^W\//, '').replace(/^"(.*)"$/, '$1');
  // It becomes a file name in the cache.
  if (!/^[A-Za-z0-9][A-Za-z0-9_-]{0,127}$/.test(etag)) throw impossible('an ETag that cannot name a file', etag);

  const redirected = response.status >= 300;
  const length = header('X-Linked-Size') ?? (redirected ? null : response.headers.get('Content-Length'));
  if (length === null || length === undefined) return { commit, etag, size: undefined };
  const size = Number(length);
  if (!/^\d+$/.test(length) || !Number.isSafeInteger(size)) throw impossible('an impossible size', length);
  if (!isWeights(remote.file) && size > maximumTextBytes)
    throw impossible(`a size of ${size} bytes, above the limit of ${maximumTextBytes} for such a file`, length);
  return { commit, etag, size };
}
