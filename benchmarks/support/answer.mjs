/** The other end of a contestant that runs in Node: answers requests on standard input, one at a time. */
import { readFileSync, writeFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { peakMemory } from './memory.mjs';
import { localContestant } from './timing.mjs';

/**
 * @param model `load(settings)` resolves to a description; `prepare(kind, shape, arrays)` makes an input from the raw
 *   bytes of its arrays; `forward(input, settings)` resolves to the output, a Float32Array, given what else the request
 *   says
 */
export async function answerRequests({ load, prepare, forward }) {
  let input;
  const answers = {
    load,
    async input({ kind, shape, files }) {
      const arrays = {};
      for (const [name, file] of Object.entries(files)) {
        const bytes = readFileSync(file);
        arrays[name] = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
      }
      input = prepare(kind, shape, arrays);
      return {};
    },
    async run({ output, ...settings }) {
      const pooled = await forward(input, settings);
      writeFileSync(output, new Uint8Array(pooled.buffer, pooled.byteOffset, pooled.byteLength));
      return {};
    },
    time: ({ repeats, ...settings }) => localContestant('', () => forward(input, settings)).time(repeats),
    memory: ({ reset }) => peakMemory(reset),
  };
  for await (const line of createInterface({ input: process.stdin })) {
    const { request, ...settings } = JSON.parse(line);
    const answer = await answers[request](settings).catch((error) => ({ error: String(error.stack ?? error) }));
    process.stdout.write(`${JSON.stringify(answer)}\n`);
  }
}
