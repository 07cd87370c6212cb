/** Errors about training data. */
import { SiglipError } from '../../errors.js';

/** The error for training data that cannot be used; `place` is the file, and what of it if not the whole. */
export function dataError(
  place: string,
  reason: string,
  options: { details?: Record<string, unknown>; cause?: unknown } = {},
): SiglipError {
  return new SiglipError('ERR_SIGLIP_DATA', `${place}: ${reason}`, {
    ...options,
    details: { source: place, ...options.details },
  });
}

/** The message of whatever was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
