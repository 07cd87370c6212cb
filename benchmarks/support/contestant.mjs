/**
 * Contestants in processes of their own: memory, thread pools and allocators of one do not touch another's, and a peer
 * may be written in any language. Requests and answers are lines of JSON on standard input and output; numbers travel
 * in raw little-endian files. benchmarks/peers/README.md describes the requests.
 */
import { spawn } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { createInterface } from 'node:readline';

export class Contestant {
  #child;
  #answers;
  #closed;
  #stderr = '';
  #folder;
  #files = 0;

  /** @param folder where tensors are exchanged */
  constructor(name, command, args, folder) {
    this.name = name;
    this.#folder = folder;
    this.#child = spawn(command, args, { stdio: ['pipe', 'pipe', 'pipe'] });
    this.#child.stderr.on('data', (data) => {
      this.#stderr = (this.#stderr + data).slice(-4000);
    });
    this.#child.stdin.on('error', () => {}); // a process that ended: the missing answer tells
    this.#closed = new Promise((resolve) => {
      this.#child.on('error', (error) => resolve(error.message));
      this.#child.on('close', (code, signal) => resolve(`it ended with ${signal ?? `status ${code}`}`));
    });
    this.#answers = createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]();
  }

  async #request(request) {
    this.#child.stdin.write(`${JSON.stringify(request)}\n`);
    const { value, done } = await this.#answers.next();
    if (done || value === undefined) throw new Error(`${this.name}: ${await this.#closed}\n${this.#stderr}`);
    const answer = JSON.parse(value);
    if (answer.error !== undefined) throw new Error(`${this.name}: ${answer.error}`);
    return answer;
  }

  /** Loads the model; resolves to what the contestant says of itself. */
  async load(settings) {
    return this.#request({ request: 'load', ...settings });
  }

  /** Sets the input of the following requests: `{ kind, shape, arrays: { name: typed array } }`. */
  async input({ kind, shape, arrays }) {
    const files = {};
    for (const [name, array] of Object.entries(arrays)) {
      files[name] = path.join(this.#folder, `${this.name}-${this.#files++}`);
      writeFileSync(files[name], new Uint8Array(array.buffer, array.byteOffset, array.byteLength));
    }
    await this.#request({ request: 'input', kind, shape, files });
  }

  /** Runs once; resolves to the output, for a tower the pooled features, [n, width] row-major. */
  async run(settings) {
    const output = path.join(this.#folder, `${this.name}-output`);
    await this.#request({ request: 'run', output, ...settings });
    const bytes = readFileSync(output);
    return new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
  }

  /** Runs a number of times; resolves to `milliseconds` of each and `cpuMilliseconds`, all threads' work in all runs. */
  async time(repeats, settings) {
    return this.#request({ request: 'time', repeats, ...settings });
  }

  /**
   * Bytes of resident memory: `current`, and `peak` since this was last asked with `reset`, or since the start.
   * @param settings `reset`: frees what is no longer needed and lets the peak start again from what is left
   */
  async memory(settings) {
    return this.#request({ request: 'memory', reset: false, ...settings });
  }

  async close() {
    this.#child.stdin.end();
    await this.#closed;
  }
}
