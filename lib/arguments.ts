/**
 * Argument checks. A failed check throws a `TypeError` (wrong kind) or `RangeError` (wrong value) that names the
 * argument, says what was expected and shows what came.
 */
import { SiglipError } from './errors.js';

/** A short description of any value, for error messages. */
export function describe(value: unknown): string {
  if (value === null) return 'null';
  if (value === undefined) return 'undefined';
  if (typeof value === 'string') return value.length > 60 ? `"${value.slice(0, 57)}…"` : `"${value}"`;
  if (typeof value === 'number' || typeof value === 'boolean' || typeof value === 'bigint') return String(value);
  if (typeof value === 'function') return `function ${value.name || '(anonymous)'}`;
  if (typeof value === 'symbol') return value.toString();
  if (Array.isArray(value)) return `an array of ${value.length}`;
  const name = Object.getPrototypeOf(value)?.constructor?.name;
  if (ArrayBuffer.isView(value)) return `${name} of ${value.byteLength} bytes`;
  return name && name !== 'Object' ? `an instance of ${name}` : 'an object';
}

/** The `TypeError` for an argument of the wrong kind. */
export function wrongType(argument: string, expected: string, value: unknown): TypeError {
  return new TypeError(`${argument}: expected ${expected}, got ${describe(value)}`);
}

/** The `RangeError` for an argument with a wrong value. */
export function wrongRange(argument: string, expected: string, value: unknown): RangeError {
  return new RangeError(`${argument}: expected ${expected}, got ${describe(value)}`);
}

/** Requires an integer of at least `minimum` (and at most `maximum`). */
export function requireInteger(
  argument: string,
  value: unknown,
  minimum: number,
  maximum = Number.MAX_SAFE_INTEGER,
): number {
  const range = maximum === Number.MAX_SAFE_INTEGER ? `of at least ${minimum}` : `from ${minimum} to ${maximum}`;
  if (typeof value !== 'number') throw wrongType(argument, `an integer ${range}`, value);
  if (!Number.isSafeInteger(value) || value < minimum || value > maximum)
    throw wrongRange(argument, `an integer ${range}`, value);
  return value;
}

/** Requires a finite number that is `allowed`, which `expected` puts into words. */
export function requireNumber(
  argument: string,
  value: unknown,
  expected: string,
  allowed: (number: number) => boolean,
): number {
  if (typeof value !== 'number') throw wrongType(argument, expected, value);
  if (!Number.isFinite(value) || !allowed(value)) throw wrongRange(argument, expected, value);
  return value;
}

/** Requires true or false. */
export function requireBoolean(argument: string, value: unknown): boolean {
  if (typeof value !== 'boolean') throw wrongType(argument, 'true or false', value);
  return value;
}

/** Requires a string. */
export function requireString(argument: string, value: unknown): string {
  if (typeof value !== 'string') throw wrongType(argument, 'a string', value);
  return value;
}

/** Requires one of a list of strings. */
export function requireOneOf<T extends string>(argument: string, value: unknown, allowed: readonly T[]): T {
  const expected = `one of ${allowed.map((item) => `"${item}"`).join(', ')}`;
  if (typeof value !== 'string') throw wrongType(argument, expected, value);
  if (!(allowed as readonly string[]).includes(value)) throw wrongRange(argument, expected, value);
  return value as T;
}

/** Requires a plain options object; `undefined` is the empty one. Unknown keys are mistakes worth naming. */
export function requireOptions<T extends object>(argument: string, value: T | undefined, known: readonly string[]): T {
  if (value === undefined) return {} as T;
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw wrongType(argument, 'an options object', value);
  for (const key of Object.keys(value))
    if (!known.includes(key)) throw wrongRange(`${argument}.${key}`, `an option among ${known.join(', ')}`, key);
  return value;
}

/** Throws `ERR_SIGLIP_ABORTED`, with the signal's reason as cause, when the signal has fired. */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted)
    throw new SiglipError('ERR_SIGLIP_ABORTED', 'the operation was aborted', { cause: signal.reason });
}
