/** Output that cannot be written, because nobody reads it any more or the disk is full. */
import { exitCodes } from './errors.js';

/**
 * Keeps failures to write from ending the process, for as long as it lives. Of stdout a closed pipe is silent, and
 * anything else an error. Of stderr every failure is silent: messages have no other place to go, and work is worth more
 * than messages about it.
 */
export function handleOutputErrors(): void {
  process.stdout.once('error', (error: NodeJS.ErrnoException) => {
    // Every further write fails, too.
    process.stdout.on('error', () => {});
    // Whoever closed the pipe has read enough.
    if (error.code === 'EPIPE') return;
    process.exitCode ??= exitCodes.failure;
    process.stderr.write(`error ${error.code ?? 'EIO'}: the output could not be written: ${error.message}\n`);
  });
  process.stderr.on('error', () => {});
}
