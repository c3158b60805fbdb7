import { Readable, Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { LayercacheError, abortedError } from '@layercache/oci';
import { escapeJson, escapeLines } from './escape.js';

type Pieces = Iterable<string> | AsyncIterable<string>;

/** Streams the bytes of a blob or file to stdout as they are: they are data, and not for a terminal to show. */
export async function toStdout(source: Readable, signal: AbortSignal): Promise<void> {
  const stdout = new Writable({
    write(chunk, _encoding, done) {
      // At the pace of its reader. It stays open: it is not ours to close.
      process.stdout.write(chunk as Buffer, done);
    },
  });
  try {
    await pipeline(source, stdout, { signal });
  } catch (error) {
    if (error instanceof LayercacheError) throw error;
    if (signal.aborted) throw abortedError(signal);
    throw new LayercacheError('STORAGE', `cannot write to stdout: ${String(error)}`, { cause: error });
  }
}

/** Streams whole lines of text to stdout, with unseen characters escaped. */
export function textToStdout(lines: Pieces, signal: AbortSignal): Promise<void> {
  return toStdout(Readable.from(mapped(lines, escapeLines), { objectMode: false }), signal);
}

/** Streams JSON to stdout, each piece with whole strings in it, and unseen characters in those escaped. */
export function jsonToStdout(pieces: Pieces, signal: AbortSignal): Promise<void> {
  return toStdout(Readable.from(mapped(pieces, escapeJson), { objectMode: false }), signal);
}

async function* mapped(pieces: Pieces, change: (text: string) => string): AsyncGenerator<string> {
  for await (const piece of pieces) yield change(piece);
}
