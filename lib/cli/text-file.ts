/** Text files that options name. */
import { readFile } from 'node:fs/promises';
import { fileError, UsageError } from './errors.js';

/**
 * The text of a file, without a byte order mark.
 * @param option the option that names it
 * @throws UsageError when it is not UTF-8; the system's error, naming option and file, when it cannot be read
 */
export async function readTextFile(option: string, file: string): Promise<string> {
  const bytes = await readFile(file).catch((error) => {
    throw fileError(`${option}: "${file}" cannot be read`, error);
  });
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    throw new UsageError(`${option}: "${file}" is not valid UTF-8`, 'save the file in UTF-8');
  }
}
