/** The frame around every command: signals, output that nobody reads, errors, exit codes. */
import type { Command } from 'commander';
import { exitCodes, reportFailure } from './errors.js';
import type { CommonOptions } from './options.js';
import { Terminal } from './terminal.js';

/** What a command works with. */
export interface Context {
  terminal: Terminal;
  options: CommonOptions;
  /** Fires when the user interrupts the command, or nobody reads its output any more. */
  signal: AbortSignal;
}

/** A command's work; returns the exit code. */
export type Action<Options> = (context: Context, options: Options, operands: string[]) => Promise<number>;

const signals = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 } as const;
type SignalName = keyof typeof signals;

/** Whether stack traces are wanted although the option was not given. */
export const debugging = (): boolean => Boolean(process.env.DEBUG);

/** Makes an action the command's, with everything around it. */
export function runs<Options extends CommonOptions>(command: Command, action: Action<Options>): Command {
  return command.action(async (...given: unknown[]) => {
    const options = command.opts() as Options;
    const operands = given
      .slice(0, -2)
      .flat()
      .filter((operand) => typeof operand === 'string');
    const { json = false, quiet = false, verbose = debugging() } = options;
    const exitCode = await runAction(command.name(), new Terminal({ json, quiet, verbose }), (terminal, signal) =>
      action({ terminal, options, signal }, options, operands),
    );
    // A failure to write the output may have set one already.
    if (exitCode !== 0) process.exitCode = exitCode;
  });
}

async function runAction(
  name: string,
  terminal: Terminal,
  action: (terminal: Terminal, signal: AbortSignal) => Promise<number>,
): Promise<number> {
  const controller = new AbortController();
  let received: SignalName | undefined;
  let unread = false;
  const onSignal = (signal: SignalName): void => {
    // The second time nothing is waited for; what is left to tidy up is done by handlers of 'exit'.
    if (received !== undefined) process.exit(signals[signal]);
    received = signal;
    controller.abort(new Error(`received ${signal}`));
  };
  for (const signal of Object.keys(signals) as SignalName[]) process.on(signal, onSignal);
  // Before what reports the error (output.ts), which writes where the progress is.
  terminal.stdout.prependListener('error', (error) => {
    unread = true;
    terminal.active?.stop();
    controller.abort(error);
  });
  try {
    return await action(terminal, controller.signal);
  } catch (error) {
    terminal.active?.stop();
    if (unread) return exitCodes.success;
    if (received === undefined) return reportFailure(terminal, error, name);
    if (terminal.settings.json) reportFailure(terminal, error, name);
    else terminal.error(received === 'SIGINT' ? 'interrupted' : `stopped by ${received}`);
    return signals[received];
  } finally {
    terminal.active?.stop();
    for (const signal of Object.keys(signals) as SignalName[]) process.off(signal, onSignal);
  }
}
