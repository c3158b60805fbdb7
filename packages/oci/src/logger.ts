import { LayercacheError, type ErrorCode } from './errors.js';

/** What happened, as fields: `{ message: 'layer stored', digest, size }`. */
export interface LogFields {
  readonly message: string;
  readonly [field: string]: unknown;
}

/** Satisfied as it is by `console`, and by loggers of pino and winston. */
export interface Logger {
  debug(fields: LogFields): void;
  info(fields: LogFields): void;
  warn(fields: LogFields): void;
  error(fields: LogFields): void;
}

const nothing = (): void => undefined;

/** The default of every library call that takes a logger. */
export const silentLogger: Logger = { debug: nothing, info: nothing, warn: nothing, error: nothing };

/**
 * An error as fields of a log line, which any logger can write: an `Error` has nothing that JSON shows. What is not
 * foreseen comes with its stack.
 */
export function errorFields(error: unknown): {
  readonly error: string;
  readonly code?: ErrorCode;
  readonly stack?: string | undefined;
} {
  if (error instanceof LayercacheError) return { error: error.message, code: error.code };
  if (error instanceof Error) return { error: error.message, stack: error.stack };
  return { error: String(error) };
}
