/**
 * Mutation tests of the CUDA kernels on the emulated GPU: every barrier, wait, commit and bounds check of a kernel is
 * left out in turn, and in each operation and element type that comes to it some seed must then give an error or a
 * wrong result. What survives is not needed, or no case needs it. Every such place in the sources must be met by some
 * case. See docs/kernels/emulator.md.
 */
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { native } from '../../lib/native.js';
import { type ActivationType, emulated, Place } from '../support/devices.js';
import { type MutationCase, mutationCases } from '../support/mutation-cases.js';

const control = (command: string) => native().simtControl(command);
const seeds = [1, 2, 3, 4, 5, 6];

/** Whether results agree to about what the element type holds; a NaN never does. */
function agree(actual: Float32Array[], expected: Float32Array[], dtype: ActivationType): boolean {
  const tolerance = dtype === 'bfloat16' ? 2 ** -6 : 1e-4;
  return expected.every((values, index) => {
    const scale = values.reduce(
      (largest, value) => (Number.isFinite(value) ? Math.max(largest, Math.abs(value)) : largest),
      1e-20,
    );
    return values.every((value, i) => {
      const found = (actual[index] as Float32Array)[i] as number;
      return found === value || Math.abs(found - value) <= tolerance * scale;
    });
  });
}

/** What is wrong with a case on the emulated device under some seed, or undefined. */
async function complaint({ dtype, run }: MutationCase, expected: Float32Array[]): Promise<string | undefined> {
  for (const seed of seeds) {
    control(`seed ${seed}`);
    try {
      if (!agree(await run(Place.tested(dtype)), expected, dtype)) return `a wrong result with seed ${seed}`;
    } catch (error) {
      return (error as Error).message;
    }
  }
  return undefined;
}

/** What only saves work in one of the operations that share the code. */
const spared: { source: string; operation: string }[] = [
  // A warp without rows repeats the last one and stores nothing. A sequence may be empty, but only the gradient's
  // products go by sequences.
  { source: 'if (!in_bounds(m_first < m_count)) return;', operation: 'mapPool' },
];

const root = path.join(import.meta.dirname, '../..');

function isSpared(site: string, operation: string): boolean {
  const [file, line] = (site.split(' ')[0] as string).split(':') as [string, string];
  const source = readFileSync(path.join(root, file), 'utf8').split('\n')[Number(line) - 1]?.trim();
  return spared.some((one) => one.source === source && one.operation === operation);
}

/** Places of the kernels' sources that the emulated device can leave out, as it names them: `file:line kind`. */
function sitesOfSources(): string[] {
  const filesOf = (folder: string, options: { recursive?: boolean }) =>
    readdirSync(path.join(root, folder), { ...options, encoding: 'utf8' }).map((file) => path.posix.join(folder, file));
  const files = [...filesOf('native/ops', { recursive: true }), ...filesOf('native/cuda', {})].filter((file) =>
    /\.(cu|cuh|h)$/.test(file),
  );
  const call =
    /(void )?\b(block_barrier|named_barrier_wait|named_barrier_arrive|warp_barrier|async_copy_commit|async_copy_wait|in_bounds|block_sum)\s*(?:<[^>;]*>)?\((site\b)?/g;
  return files.flatMap((file) =>
    readFileSync(path.join(root, file), 'utf8')
      .split('\n')
      .flatMap((line, index) =>
        [...line.replace(/\/\/.*/, '').matchAll(call)]
          // A helper's barrier goes by the place of the helper's call.
          .filter(([, definition, , passed]) => definition === undefined && passed === undefined)
          .map(([, , name]) => `${file}:${index + 1} ${name === 'block_sum' ? 'block_barrier' : name}`),
      ),
  );
}

interface Meeting {
  one: MutationCase;
  expected: Float32Array[];
  milliseconds: number;
}
/** Cases by the sites they meet. */
const casesOf = new Map<string, Meeting[]>();

afterAll(() => {
  control('drop none');
  control('sites off');
});

describe.runIf(emulated)('every synchronisation and bounds check of a kernel is needed', () => {
  it.each(mutationCases.map((one) => [one.name, one] as const))('%s is right as it is', async (_, one) => {
    const expected = await one.run(Place.reference(one.dtype));
    control('sites on');
    const start = performance.now();
    expect(await complaint(one, expected)).toBeUndefined();
    const meeting = { one, expected, milliseconds: performance.now() - start };
    for (const site of control('sites list').trim().split('\n'))
      if (site !== '' && one.sites?.test(site) !== false) casesOf.set(site, [...(casesOf.get(site) ?? []), meeting]);
    control('sites off');
  });

  it('every place in the sources is met, and alone of its kind on its line', () => {
    const sites = sitesOfSources();
    expect([...casesOf.keys()].sort()).toEqual(sites.sort());
  });

  it('none survives being left out', { timeout: 600_000 }, async () => {
    expect(casesOf.size).toBeGreaterThan(0);
    const survivors: string[] = [];
    for (const [site, meetings] of [...casesOf].sort()) {
      control(`drop ${site}`);
      // Of each operation and type, the quickest case first.
      const groups = new Map<string, Meeting[]>();
      for (const meeting of meetings.sort((a, b) => a.milliseconds - b.milliseconds)) {
        const group = `${meeting.one.operation}, ${meeting.one.dtype}`;
        groups.set(group, [...(groups.get(group) ?? []), meeting]);
      }
      for (const [group, members] of groups) {
        let found = false;
        for (const { one, expected } of members) {
          found = (await complaint(one, expected)) !== undefined;
          if (found) break;
        }
        const operation = (members[0] as Meeting).one.operation;
        if (!found && !isSpared(site, operation)) survivors.push(`${site} (${group})`);
        if (found && isSpared(site, operation)) survivors.push(`${site} (${group}) is needed after all`);
      }
    }
    control('drop none');
    expect(survivors).toEqual([]);
  });
});
