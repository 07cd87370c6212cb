/**
 * Mutation tests of the CUDA kernels on the emulated GPU: every barrier, wait, commit and bounds check of a kernel is
 * left out in turn, and some seed must then give an error or a wrong result. What survives is not needed, or no case
 * needs it. Every such place in the sources must be met by some case. See docs/kernels/emulator.md.
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

/** Places of the kernels' sources that the emulated device can leave out, as it names them: `file:line kind`. */
function sitesOfSources(): string[] {
  const root = path.join(import.meta.dirname, '../..');
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
      let found = false;
      for (const { one, expected } of meetings.sort((a, b) => a.milliseconds - b.milliseconds)) {
        found = (await complaint(one, expected)) !== undefined;
        if (found) break;
      }
      if (!found) survivors.push(site);
    }
    control('drop none');
    expect(survivors).toEqual([]);
  });
});
