/** Expecting coded errors. */
import { expect } from 'vitest';
import { SiglipError, type SiglipErrorCode } from '../../lib/errors.js';

/** Runs `action` and requires a SiglipError of this code whose message has every one of the given parts. */
export async function expectSiglipError(
  action: () => unknown,
  code: SiglipErrorCode,
  ...parts: (string | RegExp)[]
): Promise<SiglipError> {
  let caught: unknown;
  try {
    await action();
  } catch (error) {
    caught = error;
  }
  expect(caught, `expected ${code}`).toBeInstanceOf(SiglipError);
  const error = caught as SiglipError;
  expect(error.code, error.message).toBe(code);
  for (const part of parts)
    if (typeof part === 'string') expect(error.message).toContain(part);
    else expect(error.message).toMatch(part);
  return error;
}
