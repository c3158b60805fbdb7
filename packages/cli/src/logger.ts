import type { LogFields, Logger } from '@layercache/oci';
import { sayJson, sayLine } from './terminal.js';

export const LOG_LEVELS = ['debug', 'info', 'warn', 'error', 'silent'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

/** Log lines on stderr: for people, or with `--json` one JSON object a line. */
export function stderrLogger(level: LogLevel, json: boolean): Logger {
  const at =
    (own: LogLevel) =>
    (fields: LogFields): void => {
      if (LOG_LEVELS.indexOf(own) < LOG_LEVELS.indexOf(level)) return;
      const { message, ...rest } = fields;
      if (json) sayJson({ level: own, message, ...rest });
      else sayLine(`${own}: ${message}${Object.entries(rest).map(shown).join('')}`);
    };
  return { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') };
}

function shown([name, value]: [string, unknown]): string {
  if (value === undefined) return '';
  return ` ${name}=${typeof value === 'string' ? value : JSON.stringify(value)}`;
}
