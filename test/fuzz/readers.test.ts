/**
 * Random inputs for the checkpoint readers. `SIGLIP2_FUZZ_SECONDS=600 SIGLIP2_FUZZ_SEED=7 npx vitest run test/fuzz` looks
 * longer and elsewhere; an input that it finds belongs in test/fixtures/fuzz, which is replayed here.
 */
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { fixtures } from '../support/golden.js';
import { Random } from './random.js';
import { type FuzzInput, generateInput, readers } from './readers.js';

const seconds = Number(process.env.SIGLIP2_FUZZ_SECONDS ?? 2);
const seed = Number(process.env.SIGLIP2_FUZZ_SEED ?? 1);
const corpus = path.join(fixtures, 'fuzz');

function run(input: FuzzInput): boolean {
  try {
    return readers[input.reader](input);
  } catch (error) {
    throw new Error(`${(error as Error).message}; input: ${JSON.stringify(input)}`, { cause: error });
  }
}

describe('checkpoint readers', () => {
  it('refuse bad input with coded errors, and accept only what is consistent', {
    timeout: (seconds + 60) * 1000,
  }, () => {
    const counts = { safetensors: [0, 0], json: [0, 0], config: [0, 0] };
    const random = new Random(seed);
    for (const end = performance.now() + seconds * 1000; performance.now() < end; ) {
      const input = generateInput(random);
      const outcome = counts[input.reader];
      const which = run(input) ? 0 : 1;
      outcome[which] = outcome[which]! + 1;
    }
    // Both outcomes must be common, or the inputs test only one half of the readers.
    for (const [accepted, refused] of Object.values(counts)) {
      const total = accepted! + refused!;
      expect(accepted! / total, JSON.stringify(counts)).toBeGreaterThan(0.05);
      expect(refused! / total, JSON.stringify(counts)).toBeGreaterThan(0.05);
    }
    if (process.env.SIGLIP2_FUZZ_SECONDS !== undefined) console.log(JSON.stringify(counts));
  });

  it.each(readdirSync(corpus))('still read %s correctly, which they once did not', (name) => {
    run(JSON.parse(readFileSync(path.join(corpus, name), 'utf8')) as FuzzInput);
  });
});
