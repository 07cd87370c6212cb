/** AbortSignals of callers: followed without leaving anything behind on a signal that outlives the work. */

/** What waits for one signal. One listener a signal: Node.js warns of more than ten, as of a leak. */
const followed = new WeakMap<AbortSignal, { callbacks: Set<() => void>; listener: () => void }>();

/**
 * Calls `callback` when the signal fires, unless the returned function is called before. Once it has fired, `callback`
 * is not called: look at `signal.aborted` first.
 */
export function onAbort(signal: AbortSignal, callback: () => void): () => void {
  let entry = followed.get(signal);
  if (entry === undefined) {
    const callbacks = new Set<() => void>();
    const listener = (): void => {
      for (const each of callbacks) each();
    };
    entry = { callbacks, listener };
    followed.set(signal, entry);
    signal.addEventListener('abort', listener, { once: true });
  }
  const { callbacks, listener } = entry;
  // One of its own, so that the same function may wait twice.
  const own = (): void => callback();
  callbacks.add(own);
  return () => {
    callbacks.delete(own);
    if (callbacks.size > 0) return;
    signal.removeEventListener('abort', listener);
    if (followed.get(signal) === entry) followed.delete(signal);
  };
}

/**
 * A controller that also aborts when the caller's signal does, until `release` is called. `AbortSignal.any` would leave
 * an entry on the caller's signal for as long as that lives.
 */
export function linkedController(signal: AbortSignal | undefined): {
  controller: AbortController;
  release: () => void;
} {
  const controller = new AbortController();
  if (signal === undefined) return { controller, release: () => {} };
  if (signal.aborted) controller.abort(signal.reason);
  return { controller, release: onAbort(signal, () => controller.abort(signal.reason)) };
}
