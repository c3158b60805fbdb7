import { Readable } from 'node:stream';
import { Digester, IntegrityError, digestAlgorithm, throwIfAborted, type Digest } from '@layercache/oci';
import { isSystemError, storageError, type FileSystem } from './file-system.js';
import type { IngestOptions } from './ingest.js';

const READ_SIZE = 256 * 1024;

export interface ArrivingContext {
  readonly files: FileSystem;
  /** Where the blob is while it arrives, and where it is then. */
  readonly paths: readonly string[];
}

/**
 * A blob as a stream while it is being fetched. Resolves when its first bytes come, so that a source that has nothing is
 * an error and no stream. The bytes are hashed on their own, as the fetch may have to start again, and the last of them
 * are held back until they are right and the fetch is done.
 *
 * @param fetch brings the blob here. It is called off when the stream is destroyed.
 */
export async function openArriving(
  context: ArrivingContext,
  want: { readonly digest: Digest; readonly size: number },
  fetch: (options: IngestOptions) => Promise<unknown>,
  signal: AbortSignal | undefined,
): Promise<Readable> {
  throwIfAborted(signal);
  const arrival = new Arrival(fetch);
  const stop = (): void => {
    arrival.stop(signal?.reason);
  };
  signal?.addEventListener('abort', stop, { once: true });
  try {
    await arrival.next();
    arrival.throwIfFailed();
  } catch (error) {
    signal?.removeEventListener('abort', stop);
    throw error;
  }
  const stream = Readable.from(chunksOf(context, want, arrival), {
    objectMode: false,
    highWaterMark: READ_SIZE,
  });
  // A generator that was never started has no `finally` to run.
  stream.once('close', () => {
    signal?.removeEventListener('abort', stop);
    arrival.stop();
  });
  return stream;
}

/** A fetch under way, and its news. */
class Arrival {
  readonly #abort = new AbortController();
  #failure: { readonly error: unknown } | undefined;
  #wake: () => void = () => undefined;
  #news = false;
  done = false;

  constructor(fetch: (options: IngestOptions) => Promise<unknown>) {
    const tell = (): void => {
      this.#news = true;
      this.#wake();
    };
    fetch({ signal: this.#abort.signal, onProgress: tell })
      .then(
        () => (this.done = true),
        (error: unknown) => (this.#failure = { error }),
      )
      .finally(tell);
  }

  /** Resolves when something came since the last call, or all is over. */
  async next(): Promise<void> {
    if (!this.#news && !this.done && this.#failure === undefined) {
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
    this.#news = false;
  }

  throwIfFailed(): void {
    if (this.#failure !== undefined) throw this.#failure.error as Error;
  }

  stop(reason?: unknown): void {
    this.#abort.abort(reason);
  }
}

async function* chunksOf(
  { files, paths }: ArrivingContext,
  { digest, size }: { readonly digest: Digest; readonly size: number },
  arrival: Arrival,
): AsyncGenerator<Buffer> {
  const digester = new Digester(digestAlgorithm(digest));
  let fd: number | undefined;
  let held: Buffer | undefined;
  try {
    while (digester.size < size) {
      arrival.throwIfFailed();
      const { done } = arrival;
      fd ??= await openFirst(files, paths);
      const buffer = Buffer.allocUnsafeSlow(Math.min(READ_SIZE, size - digester.size));
      const count = fd === undefined ? 0 : await files.read(fd, buffer, digester.size);
      if (count === 0) {
        if (done) break;
        await arrival.next();
        continue;
      }
      if (held !== undefined) yield held;
      held = buffer.subarray(0, count);
      digester.update(held);
    }
    while (!arrival.done) {
      await arrival.next();
      arrival.throwIfFailed();
    }
    const found = digester.digest();
    if (found !== digest) {
      throw new IntegrityError(
        'DIGEST_MISMATCH',
        `what came of blob ${digest} was not its beginning, and has been fetched again: read it again`,
        { expected: digest, found },
      );
    }
    if (held !== undefined) yield held;
  } catch (error) {
    throw storageError(error, `read blob ${digest}`);
  } finally {
    if (fd !== undefined) await files.close(fd);
  }
}

async function openFirst(files: FileSystem, paths: readonly string[]): Promise<number | undefined> {
  for (const path of paths) {
    try {
      return await files.open(path, 'r');
    } catch (error) {
      if (!isSystemError(error, 'ENOENT', 'ENOTDIR')) throw error;
    }
  }
  return undefined;
}
