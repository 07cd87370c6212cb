/** Memory of a process, from Linux's own account. */
import { readFileSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

/**
 * Bytes of this process that are resident: `current` and `peak`.
 * @param reset collect garbage first and start a new peak from what is left; the peak returned is then the current size
 */
export async function peakMemory(reset) {
  if (reset) {
    // Buffers are given back by threads that go on after a collection.
    for (let times = 0; times < 3; times++) {
      globalThis.gc?.();
      await sleep(100);
    }
    writeFileSync('/proc/self/clear_refs', '5');
  }
  const status = readFileSync('/proc/self/status', 'utf8');
  const field = (name) => Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, 'm').exec(status)[1]) * 1024;
  return { peak: field('VmHWM'), current: field('VmRSS') };
}
