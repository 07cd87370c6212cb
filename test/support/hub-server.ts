/** A hub on loopback for tests: resolve addresses, storage on a second port, and faults on demand. */
import { createHash } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface RecordedRequest {
  host: 'hub' | 'storage';
  method: string;
  url: string;
  file: string;
  authorization: string | undefined;
  range: string | undefined;
  encoding: string | string[] | undefined;
}

/** What goes wrong with the requests it matches, `times` times (default always). */
export interface Fault {
  host?: 'hub' | 'storage';
  method?: 'HEAD' | 'GET';
  file?: string;
  times?: number;
  /** Answer with this status instead. */
  status?: number;
  /** Headers to add or replace; undefined removes one. */
  headers?: Record<string, string | undefined>;
  /** Send this body instead. */
  body?: Buffer;
  /** Close the connection after this many bytes of the body; `clean` ends a body without length as if it was whole. */
  dropAfter?: number;
  clean?: boolean;
  /** Send this many bytes of the body and then nothing more. */
  stallAfter?: number;
  ignoreRange?: boolean;
}

export interface Repository {
  /** Branches and tags. */
  revisions: Record<string, string>;
  /** Files by commit. */
  commits: Record<string, Record<string, Buffer>>;
  /** When set, requests need it. */
  token?: string;
  /** New name of a repository that was renamed. */
  movedTo?: string;
}

export const sha256 = (content: Buffer): string => createHash('sha256').update(content).digest('hex');
export const gitSha1 = (content: Buffer): string =>
  createHash('sha1').update(`blob ${content.length}\0`).update(content).digest('hex');
export const isLarge = (file: string): boolean => file.endsWith('.safetensors') || file === 'tokenizer.json';
/** The name of a file's content, as the hub gives it. */
export const etagOf = (file: string, content: Buffer): string => (isLarge(file) ? sha256(content) : gitSha1(content));

export class HubServer {
  readonly requests: RecordedRequest[] = [];
  readonly faults: Fault[] = [];
  /** Called for each request before it is answered. */
  onRequest: ((request: RecordedRequest) => void) | undefined;
  readonly #hub: Server;
  readonly #storage: Server;

  private constructor(readonly repositories: Record<string, Repository>) {
    this.#hub = createServer((request, response) => this.#handle('hub', request, response));
    this.#storage = createServer((request, response) => this.#handle('storage', request, response));
  }

  static async start(repositories: Record<string, Repository>): Promise<HubServer> {
    const server = new HubServer(repositories);
    for (const one of [server.#hub, server.#storage])
      await new Promise<void>((resolve) => one.listen(0, '127.0.0.1', resolve));
    return server;
  }

  async stop(): Promise<void> {
    for (const one of [this.#hub, this.#storage]) {
      if (!one.listening) continue;
      one.closeAllConnections();
      await new Promise((resolve) => one.close(resolve));
    }
  }

  get endpoint(): string {
    return `http://127.0.0.1:${(this.#hub.address() as AddressInfo).port}`;
  }

  get storageEndpoint(): string {
    return `http://127.0.0.1:${(this.#storage.address() as AddressInfo).port}`;
  }

  /** Requests in short form, for comparing: `HEAD config.json`, `storage GET model.safetensors`. */
  get log(): string[] {
    return this.requests.map(({ host, method, file }) => `${host === 'hub' ? '' : 'storage '}${method} ${file}`);
  }

  #handle(host: 'hub' | 'storage', request: IncomingMessage, response: ServerResponse): void {
    const url = request.url ?? '';
    const [, repository = '', revision = '', file = ''] =
      /^\/([^/]+\/[^/]+)\/resolve\/([^/]+)\/([^?]+)/.exec(url)?.map(decodeURIComponent) ?? [];
    const record: RecordedRequest = {
      host,
      method: request.method ?? '',
      url,
      file,
      authorization: request.headers.authorization,
      range: request.headers.range,
      encoding: request.headers['accept-encoding'],
    };
    this.requests.push(record);
    this.onRequest?.(record);
    const fault = this.#takeFault(record);
    const answer =
      host === 'hub' ? this.#hubAnswer(record, repository, revision) : this.#storageAnswer(repository, revision, file);
    if (fault.status !== undefined) {
      answer.status = fault.status;
      if (fault.status >= 300) answer.body = Buffer.from('an error page');
      if (fault.status >= 400) answer.headers = {};
    }
    if (fault.body !== undefined) answer.body = fault.body;
    this.#send(request, response, answer, fault);
  }

  #takeFault(record: RecordedRequest): Fault {
    for (const fault of this.faults) {
      if (fault.host !== undefined && fault.host !== record.host) continue;
      if (fault.method !== undefined && fault.method !== record.method) continue;
      if (fault.file !== undefined && fault.file !== record.file) continue;
      if (fault.times !== undefined && fault.times-- <= 0) continue;
      return fault;
    }
    return {};
  }

  #hubAnswer(record: RecordedRequest, name: string, revision: string): StoredAnswer {
    const failure = (status: number, code?: string): StoredAnswer => ({
      status,
      headers: code === undefined ? {} : { 'X-Error-Code': code },
      body: Buffer.from(code ?? ''),
    });
    const repository = this.repositories[name];
    if (repository === undefined)
      return record.authorization ? failure(404, 'RepoNotFound') : failure(401, 'RepoNotFound');
    if (repository.movedTo !== undefined)
      return {
        status: 307,
        headers: { Location: record.url.replace(name, repository.movedTo) },
        body: Buffer.alloc(0),
      };
    if (repository.token !== undefined && record.authorization !== `Bearer ${repository.token}`)
      return record.authorization ? failure(403, 'GatedRepo') : failure(401, 'GatedRepo');
    const commit = repository.revisions[revision] ?? revision;
    const files = repository.commits[commit];
    if (files === undefined) return failure(404, 'RevisionNotFound');
    const content = files[record.file];
    if (content === undefined) {
      const missing = failure(404, 'EntryNotFound');
      return { ...missing, headers: { ...missing.headers, 'X-Repo-Commit': commit } };
    }
    const headers: Record<string, string> = { 'X-Repo-Commit': commit };
    if (!isLarge(record.file))
      return { status: 200, headers: { ...headers, ETag: `"${gitSha1(content)}"` }, body: content };
    return {
      status: 302,
      headers: {
        ...headers,
        ETag: '"of-the-redirect"',
        'X-Linked-Etag': `"${sha256(content)}"`,
        'X-Linked-Size': String(content.length),
        Location: `${this.storageEndpoint}/${name}/resolve/${commit}/${record.file}?signature=secret`,
      },
      body: Buffer.from('Found. Redirecting'),
    };
  }

  #storageAnswer(name: string, commit: string, file: string): StoredAnswer {
    const content = this.repositories[name]?.commits[commit]?.[file];
    if (content === undefined) return { status: 404, headers: {}, body: Buffer.alloc(0) };
    // Storage names contents in its own way, which must not be mistaken for the hub's.
    return { status: 200, headers: { ETag: '"storage-tag"', 'X-Repo-Commit': 'f'.repeat(40) }, body: content };
  }

  #send(request: IncomingMessage, response: ServerResponse, answer: StoredAnswer, fault: Fault): void {
    let { status, body } = answer;
    const headers: Record<string, string | undefined> = { 'Accept-Ranges': 'bytes', ...answer.headers };
    const start = /^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1];
    if (status === 200 && start !== undefined && !fault.ignoreRange) {
      const total = body.length;
      if (Number(start) >= total) {
        status = 416;
        headers['Content-Range'] = `bytes */${total}`;
        body = Buffer.alloc(0);
      } else {
        status = 206;
        headers['Content-Range'] = `bytes ${start}-${total - 1}/${total}`;
        body = body.subarray(Number(start));
      }
    }
    headers['Content-Length'] = String(body.length);
    if (fault.clean) headers['Content-Length'] = undefined;
    Object.assign(headers, fault.headers);
    for (const [name, value] of Object.entries(headers)) if (value !== undefined) response.setHeader(name, value);
    response.writeHead(status);
    if (request.method === 'HEAD') {
      if (fault.stallAfter === undefined) response.end();
      return;
    }
    const cut = fault.dropAfter ?? fault.stallAfter;
    if (cut === undefined) {
      response.end(body);
      return;
    }
    response.write(body.subarray(0, cut), () => {
      if (fault.clean) response.end();
      // The bytes before the cut are given the time to arrive: what a client has received but not yet read is lost.
      else if (fault.dropAfter !== undefined) setTimeout(() => response.destroy(), 400);
    });
    if (cut === 0) response.flushHeaders();
  }
}

interface StoredAnswer {
  status: number;
  headers: Record<string, string>;
  body: Buffer;
}
