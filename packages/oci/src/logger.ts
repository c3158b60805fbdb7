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
