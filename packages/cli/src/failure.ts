import { isLayercacheError } from '@layercache/oci';
import { CommanderError } from 'commander';
import { sayJson, sayLine, sayText } from './terminal.js';

/** 0 done, 1 failed, 2 usage, 3 not found; 130 as shells say it, when the user stopped it. */
export const ExitCode = { done: 0, failed: 1, usage: 2, notFound: 3, interrupted: 130 } as const;

/** Thrown by a command that has said what it had to say. */
export class Exit extends Error {
  readonly exitCode: number;

  constructor(exitCode: number) {
    super(`exit ${exitCode}`);
    this.exitCode = exitCode;
  }
}

/** Says what went wrong in one line, and gives the exit code for it. */
export function report(error: unknown, json: boolean): number {
  if (error instanceof Exit) return error.exitCode;
  // commander has printed its own message by then, and a help text is not an error.
  if (error instanceof CommanderError) return error.exitCode === 0 ? ExitCode.done : ExitCode.usage;
  const code = isLayercacheError(error) ? error.code : 'INTERNAL';
  const message = error instanceof Error ? error.message : String(error);
  const oneLine = message.replace(/\s*\n\s*/g, ' ');
  if (json) sayJson({ error: { code, message: oneLine } });
  else sayLine(`layercache: ${oneLine}`);
  if (code === 'INTERNAL' && error instanceof Error && !json) sayText(`${error.stack ?? ''}\n`);
  switch (code) {
    case 'USAGE':
    case 'DIGEST_INVALID':
    case 'REFERENCE_INVALID':
      return ExitCode.usage;
    case 'NOT_FOUND':
    case 'EXPIRED':
    case 'INVALIDATED':
      return ExitCode.notFound;
    case 'ABORTED':
      return ExitCode.interrupted;
    default:
      return ExitCode.failed;
  }
}
