import type { Command } from 'commander';
import type { Session } from '../session.js';

/** One command: how it is called, and what it does. */
export interface CommandModule {
  /** Adds the command to the program, with its help and an example. */
  register(program: Command): Command;
  run(session: Session, command: Command): Promise<void>;
}

/** An example below a command's help. */
export function example(...lines: string[]): string {
  return `\nExample:\n${lines.map((line) => `  $ ${line}`).join('\n')}\n`;
}
