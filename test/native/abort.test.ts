/** Stopping native work with an AbortSignal. */
import { getEventListeners } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Siglip2, type SiglipError, type VisionForwardInput } from '../../lib/index.js';
import { expectSiglipError } from '../support/errors.js';
import { checkpointFolder } from '../support/golden.js';
import { textInput, visionInput } from '../support/inputs.js';

let model: Siglip2;
beforeAll(async () => {
  model = await Siglip2.load(checkpointFolder('naflex_hd64'));
});
afterAll(() => model.dispose());

const raw = { data: new Uint8Array(64 * 64 * 3).fill(90), width: 64, height: 64, channels: 3 as const };

/** Input of a pass of a good fraction of a second, in dozens of operations. */
let longInput: VisionForwardInput;
beforeAll(() => {
  longInput = visionInput(model.config, [1, 2, 3, 4, 5, 6], [[16, 16]]);
});

describe('an aborted signal', () => {
  const reason = new Error('enough');
  const signal = AbortSignal.abort(reason);
  const calls: [string, () => Promise<unknown>][] = [
    ['Siglip2.load', () => Siglip2.load(checkpointFolder('naflex_hd64'), { signal })],
    ['embedImages', () => model.embedImages(raw, { signal })],
    ['embedImages of no images', () => model.embedImages([], { signal })],
    ['embedTexts', () => model.embedTexts('a cat', { signal })],
    ['denseFeatures', () => model.denseFeatures(raw, { signal })],
    ['classify', () => model.classify(raw, ['cat'], { signal })],
    ['vision.forward', () => model.vision.forward(visionInput(model.config, [1]), { signal })],
    ['text.forward', () => model.text.forward(...textInput(model.config, [1]), { signal })],
  ];
  it.each(calls)('stops %s before it starts, with its reason as the cause', async (_, call) => {
    const error = await expectSiglipError(call, 'ERR_SIGLIP_ABORTED');
    expect(error.cause).toBe(reason);
  });
});

describe('a signal that fires', () => {
  // Tried again where others take the processor: the timer may fire when the pass is over.
  it('during a pass stops it between two operations, and the model goes on working', { retry: 4 }, async () => {
    const small = visionInput(model.config, [1, 2]);
    const before = await model.vision.forward(small);
    const started = performance.now();
    await model.vision.forward(longInput);
    const whole = performance.now() - started;

    const controller = new AbortController();
    const running = model.vision.forward(longInput, { signal: controller.signal });
    await sleep(whole / 5);
    const aborted = performance.now();
    controller.abort('stop');
    const error = await expectSiglipError(() => running, 'ERR_SIGLIP_ABORTED');
    expect(performance.now() - aborted).toBeLessThan(whole / 2);
    expect(error.cause).toBe('stop');
    expect((await model.vision.forward(small)).pooled.data).toEqual(before.pooled.data);
  });

  it('drops work that is still queued', async () => {
    const small = visionInput(model.config, [1], [[1, 1]]);
    const controller = new AbortController();
    const running = [1, 2, 3].map(() => model.vision.forward(longInput));
    const queued = Array.from({ length: 20 }, () =>
      model.vision.forward(small, { signal: controller.signal }).catch((error: unknown) => error),
    );
    controller.abort();
    for (const error of await Promise.all(queued)) expect((error as SiglipError).code).toBe('ERR_SIGLIP_ABORTED');
    await Promise.all(running);
  });

  it('between two batches stops embedImages and embedTexts', async () => {
    for (const embed of [
      (options: { signal: AbortSignal; onProgress: () => void }) =>
        model.embedImages(new Array(6).fill(raw), { ...options, batchSize: 2, maxPatches: 16 }),
      (options: { signal: AbortSignal; onProgress: () => void }) =>
        model.embedTexts(['a', 'b', 'c', 'd', 'e', 'f'], { ...options, batchSize: 2 }),
    ]) {
      const controller = new AbortController();
      let batches = 0;
      const onProgress = () => {
        batches++;
        controller.abort('after the first batch');
      };
      const error = await expectSiglipError(
        () => embed({ signal: controller.signal, onProgress }),
        'ERR_SIGLIP_ABORTED',
      );
      expect([batches, error.cause]).toEqual([1, 'after the first batch']);
    }
  });

  it('during loading stops it', async () => {
    const controller = new AbortController();
    const { signal } = controller;
    // Fires as soon as native work watches the signal: that work then waits behind passes that keep the executor busy.
    const listen = signal.addEventListener.bind(signal) as (...of: unknown[]) => void;
    const busy: Promise<unknown>[] = [];
    signal.addEventListener = (...of: unknown[]) => {
      listen(...of);
      busy.push(model.vision.forward(longInput));
      queueMicrotask(() => controller.abort('no more'));
    };
    const loading = () => Siglip2.load(checkpointFolder('fixed_p16_textproj'), { signal });
    expect((await expectSiglipError(loading, 'ERR_SIGLIP_ABORTED')).cause).toBe('no more');
    await Promise.all(busy);
  });

  it('after the work changes nothing', async () => {
    const controller = new AbortController();
    const output = await model.vision.forward(visionInput(model.config, [1]), { signal: controller.signal });
    controller.abort();
    await sleep(5);
    expect(output.pooled.data.every(Number.isFinite)).toBe(true);
  });
});

it('leaves no listener behind, and warns of none, after a thousand calls with one signal', async () => {
  const warnings: Error[] = [];
  const warn = (warning: Error) => warnings.push(warning);
  process.on('warning', warn);
  const controller = new AbortController();
  const { signal } = controller;
  const input = visionInput(model.config, [1], [[1, 1]]);
  for (let i = 0; i < 50; i++)
    await Promise.all(Array.from({ length: 20 }, () => model.vision.forward(input, { signal })));
  await expectSiglipError(() => model.text.forward(new Int32Array(1), [1, 1000], { signal }), 'ERR_SIGLIP_SHAPE');
  await sleep(5);
  process.off('warning', warn);
  expect(getEventListeners(signal, 'abort')).toEqual([]);
  expect(warnings).toEqual([]);
});

it('leaves nothing on the signal after calls that decode pictures', async () => {
  const { signal } = new AbortController();
  const pictures = [raw, raw, raw];
  for (let i = 0; i < 5; i++) {
    await model.embedImages(pictures, { signal, batchSize: 1 });
    await expectSiglipError(() => model.embedImages('no such file.png', { signal }), 'ERR_SIGLIP_IMAGE');
  }
  expect(getEventListeners(signal, 'abort')).toEqual([]);
  // Where Node.js keeps what AbortSignal.any made of the signal, for as long as the signal lives.
  const sets = Object.getOwnPropertySymbols(signal)
    .filter((symbol) => /dependant/i.test(String(symbol)))
    .map((symbol) => (signal as unknown as Record<symbol, Set<unknown> | undefined>)[symbol]);
  for (const set of sets) expect(set?.size ?? 0).toBe(0);
});

it('refuses what is no AbortSignal', async () => {
  const signal = { aborted: false } as AbortSignal;
  await expect(model.vision.forward(visionInput(model.config, [1]), { signal })).rejects.toThrow(TypeError);
  await expect(model.vision.forward(visionInput(model.config, [1]), { signal })).rejects.toThrow('options.signal');
});
