import { Readable, Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { LayercacheError, abortedError } from '@layercache/oci';

/** Streams to stdout at the pace of its reader, and leaves it open: it is not ours to close. */
export async function toStdout(
  source: Readable | Iterable<string> | AsyncIterable<string>,
  signal: AbortSignal,
): Promise<void> {
  const stream = source instanceof Readable ? source : Readable.from(source, { objectMode: false });
  const stdout = new Writable({
    write(chunk, _encoding, done) {
      process.stdout.write(chunk as Buffer, done);
    },
  });
  try {
    await pipeline(stream, stdout, { signal });
  } catch (error) {
    if (error instanceof LayercacheError) throw error;
    if (signal.aborted) throw abortedError(signal);
    throw new LayercacheError('STORAGE', `cannot write to stdout: ${String(error)}`, { cause: error });
  }
}
