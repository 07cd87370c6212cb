/** The other end of a contestant that runs in Node: answers requests on standard input, one at a time. */
import { readFileSync, writeFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { localContestant } from './timing.mjs';

/**
 * @param model `load(settings)` resolves to a description; `prepare(kind, shape, arrays)` makes an input from the raw
 *   bytes of its arrays; `forward(input)` resolves to the pooled features, [n, width]
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
    async run({ output }) {
      const pooled = await forward(input);
      writeFileSync(output, new Uint8Array(pooled.buffer, pooled.byteOffset, pooled.byteLength));
      return {};
    },
    time: ({ repeats }) => localContestant('', () => forward(input)).time(repeats),
  };
  for await (const line of createInterface({ input: process.stdin })) {
    const { request, ...settings } = JSON.parse(line);
    const answer = await answers[request](settings).catch((error) => ({ error: String(error.stack ?? error) }));
    process.stdout.write(`${JSON.stringify(answer)}\n`);
  }
}
