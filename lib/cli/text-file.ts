/** Text files that options name. */
import { readFile } from 'node:fs/promises';
import { fileError } from './errors.js';

/**
 * The text of a file, without a byte order mark.
 * @param option the option that names it
 * @throws the system's error, naming option and file
 */
export async function readTextFile(option: string, file: string): Promise<string> {
  const text = await readFile(file, 'utf8').catch((error) => {
    throw fileError(`${option}: "${file}" cannot be read`, error);
  });
  return text.replace(/^\ufeff/, '');
}
