/** Measuring kernel calls. */
import { describe, expect, it } from 'vitest';
import { gelu, sigmoidLoss, Tensor } from '../../lib/kernels/index.js';
import { timeKernel } from '../../lib/kernels/timing.js';

const values = Float32Array.from({ length: 32 }, (_, i) => i / 8 - 2);

describe.each(['cpu', 'simt'] as const)('timeKernel on %s', (device) => {
  const input = (): Tensor => Tensor.from(values, [4, 8], { device });

  it.each([true, false])('measures every run, cold: %s, and returns what the call returns', async (cold) => {
    const expected = await (await gelu({ input: input() })).output.read();
    const { milliseconds, result } = await timeKernel({ repeats: 3, cold }, () => gelu({ input: input() }));
    expect(milliseconds).toHaveLength(3);
    for (const time of milliseconds) expect(time).toBeGreaterThan(0);
    expect(Object.keys(result)).toEqual(['output']);
    expect(await result.output.read()).toEqual(expected);
  });

  it('measures the loss, whose result is no tensor alone', async () => {
    const args = { images: input(), texts: input(), logitScale: 1, logitBias: -1, gradients: true };
    const { milliseconds, result } = await timeKernel({ repeats: 2, cold: false }, () => sigmoidLoss(args));
    expect(milliseconds).toHaveLength(2);
    expect(Object.keys(result).sort()).toEqual(Object.keys(await sigmoidLoss(args)).sort());
  });

  it('leaves other calls alone', async () => {
    const timed = timeKernel({ repeats: 1, cold: false }, () => gelu({ input: input() }));
    const other = await gelu({ input: input() });
    expect(Object.keys(other)).toEqual(['output']);
    expect((await timed).milliseconds).toHaveLength(1);
    await expect(timeKernel({ repeats: 1, cold: false }, async () => 1)).rejects.toThrow(/kernel/);
    await expect(timeKernel({ repeats: 0, cold: false }, () => gelu({ input: input() }))).rejects.toThrow(/repeats/);
  });
});
