import { createInterface } from 'node:readline/promises';
import { escapeJson, escapeLine, escapeLines } from './escape.js';

/*
 * All text that the program prints goes through here and has its unseen characters escaped. Lint forbids process.stdout
 * and process.stderr elsewhere, but for the bytes of blobs and files (stdout.ts) and for the bars (progress.ts).
 */

/** Prints one line of text to stdout. */
export function printLine(text: string): void {
  process.stdout.write(`${escapeLine(text)}\n`);
}

/** Prints text as it is divided into lines, which is for texts of our own: a help, a usage error. */
export function printText(text: string): void {
  process.stdout.write(escapeLines(text));
}

/** Prints a value as a JSON document. */
export function printJson(value: unknown): void {
  process.stdout.write(`${escapeJson(JSON.stringify(value, undefined, 2))}\n`);
}

/** Says something in one line on stderr. */
export function sayLine(text: string): void {
  process.stderr.write(`${escapeLine(text)}\n`);
}

/** Says something in several lines on stderr, such as a stack. */
export function sayText(text: string): void {
  process.stderr.write(escapeLines(text));
}

/** Says something in one line of JSON on stderr. */
export function sayJson(value: unknown): void {
  process.stderr.write(`${escapeJson(JSON.stringify(value))}\n`);
}

/** Asks a question on stderr, and resolves with the line that is typed. */
export async function ask(question: string, signal: AbortSignal): Promise<string> {
  const terminal = createInterface({ input: process.stdin, output: process.stderr });
  try {
    return await terminal.question(`${escapeLine(question)} `, { signal });
  } finally {
    terminal.close();
  }
}

export function isStdoutTerminal(): boolean {
  return process.stdout.isTTY;
}

export function isStderrTerminal(): boolean {
  return process.stderr.isTTY;
}

/** Ends the program without a complaint when the reader of stdout has seen enough, as in `layercache ls | head`. */
export function endWithReader(): void {
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') process.exit(0);
    throw error;
  });
}
