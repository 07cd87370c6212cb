/** The addon's functions under arguments of every wrong kind: errors, never a crash. */
import { expect, it } from 'vitest';
import { describeEnd, runProgram } from '../support/child.js';
import { checkpointFolder } from '../support/golden.js';
import { runSeed } from '../support/random.js';

it.each([1, runSeed])(
  'refuses nonsense without crashing (seed %i)',
  async (seed) => {
    const outcome = await runProgram('fuzz', [String(seed), '6', checkpointFolder('naflex_hd64')]);
    expect(describeEnd(outcome), `seed ${seed}`).toBe('exit 0');
    const { results, refused } = JSON.parse(outcome.stdout) as { results: number; refused: number };
    // Otherwise it has tested nothing.
    expect(results).toBeGreaterThan(50);
    expect(refused).toBeGreaterThan(50);
  },
  300_000,
);
