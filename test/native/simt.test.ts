/**
 * The emulated GPU's tests of itself: kernels with one defect are found, their corrected twins pass, and matrix
 * instructions lay values out as the PTX ISA says. See native/simt/selftest_*.cu and docs/kernels/emulator.md.
 */
import { afterEach, describe, expect, it } from 'vitest';
import { convert, Tensor } from '../../lib/kernels/index.js';
import { native } from '../../lib/native.js';

const control = (command: string) => native().simtControl(command);
const names = control('selftest list').trim().split('\n');

const input = () => Tensor.from(new Float32Array(40).fill(1), [4, 10], { device: 'simt' });

afterEach(() => {
  control('drop none');
  control('sites off');
  control('schedule mixed');
});

describe('self-tests of the emulated GPU', () => {
  it('are there', () => {
    expect(names.length).toBeGreaterThan(50);
    expect(new Set(names).size).toBe(names.length);
  });

  it.each(names)('%s', (name) => {
    expect(control(`selftest ${name}`)).toMatch(/^ok/);
  });
});

describe('commands of the emulated GPU', () => {
  it('lists the sites of a kernel, and leaves one out', async () => {
    control('sites on');
    await convert({ input: input(), dtype: 'bfloat16' });
    const sites = control('sites list').trim().split('\n');
    expect(sites.length).toBeGreaterThan(1);
    for (const site of sites) expect(site).toMatch(/^native\/ops\/convert\/convert_cuda\.cu:\d+ in_bounds$/);

    control('sites off');
    let failures = 0;
    for (const site of sites) {
      control(`drop ${site}`);
      await convert({ input: input(), dtype: 'bfloat16' }).catch((error: Error & { code: string }) => {
        expect(error.code).toBe('ERR_SIGLIP_CUDA');
        expect(error.message).toMatch(/kernel convert, block 0: thread \d+: .*(reads|writes) .*convert_cuda\.cu:\d+/);
        failures++;
      });
    }
    expect(failures).toBeGreaterThan(0);
    // The device goes on working.
    control('drop none');
    const { output } = await convert({ input: input(), dtype: 'bfloat16' });
    expect([...(await output.read())]).toEqual(new Array(40).fill(1));
  });

  it('sets schedules and seeds', async () => {
    for (const schedule of ['round-robin', 'reverse', 'ahead', 'random', 'mixed']) {
      control(`schedule ${schedule}`);
      control('seed 12');
      await convert({ input: input(), dtype: 'bfloat16' });
    }
    expect(() => control('schedule none')).toThrow(/no schedule/);
    expect(() => control('seed twelve')).toThrow(/not a number/);
  });

  it('counts', async () => {
    const launches = () => Number(/^launches (\d+)$/m.exec(control('statistics'))?.[1]);
    const before = launches();
    await convert({ input: input(), dtype: 'bfloat16' });
    expect(launches()).toBe(before + 1);
  });

  it('runs out of memory where it is told to', () => {
    control(`memory-limit ${2 ** 20}`);
    try {
      let error: unknown;
      try {
        Tensor.from(new Float32Array(2 ** 19), [2 ** 19], { device: 'simt' });
      } catch (thrown) {
        error = thrown;
      }
      expect(error).toMatchObject({
        code: 'ERR_SIGLIP_OUT_OF_MEMORY',
        details: { requestedBytes: 2 ** 21, freeBytes: expect.any(Number) },
      });
    } finally {
      control(`memory-limit ${2 ** 33}`);
    }
  });

  it('refuses what it does not know', () => {
    expect(() => control('dance')).toThrow(/does not know the command/);
    expect(() => control('drop here')).toThrow(/FILE:LINE KIND/);
    expect(control('selftest nothing')).toMatch(/^failed/);
  });
});
