import { createWriteStream } from 'node:fs';
import { lstat, readlink, realpath, rename, rm } from 'node:fs/promises';
import { basename, dirname, resolve } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { LayercacheError, abortedError } from '@layercache/oci';

/**
 * Writes a file that appears when it is whole: beside its place first, then moved there. What is no regular file, a
 * device or a pipe, is written to as it is; a link stays, and what it leads to is written.
 *
 * @throws LayercacheError `STORAGE`, `ABORTED`; errors of `source` as they are
 */
export async function writeWholeFile(
  path: string,
  source: Readable | AsyncIterable<Uint8Array>,
  signal?: AbortSignal,
): Promise<void> {
  const readable = source instanceof Readable ? source : Readable.from(source, { objectMode: false });
  let temporary: string | undefined;
  try {
    const place = await placeOf(path);
    if (place.regular) temporary = `${place.path}.${process.pid}.partial`;
    await pipeline(
      readable,
      // A pipe or device has no beginning to truncate to, and a file that a process has open keeps what it has.
      createWriteStream(temporary ?? place.path, {
        flags: temporary === undefined ? 'a' : 'w',
        ...(place.fd === undefined ? {} : { fd: place.fd, autoClose: false }),
      }),
      signal === undefined ? {} : { signal },
    );
    if (temporary !== undefined) await rename(temporary, place.path);
  } catch (error) {
    readable.destroy();
    if (temporary !== undefined) await rm(temporary, { force: true });
    if (error instanceof LayercacheError) throw error;
    if (signal?.aborted === true) throw abortedError(signal);
    throw new LayercacheError('STORAGE', `${path} cannot be written: ${String(error)}`, { cause: error });
  }
}

interface Place {
  readonly path: string;
  /** Whether it is a file, or nothing yet: then it can be replaced by a whole one. */
  readonly regular: boolean;
  /** What this process has open there: a socket cannot be opened a second time. */
  readonly fd?: number;
}

/** How many links may lead to one another: as many as Linux follows. */
const MAX_LINKS = 40;

/**
 * Where the bytes go. Links are followed here and not by `realpath`, which fails for one that leads nowhere yet, and for
 * an open pipe or file of a process (`/dev/stdout`): those are written to through the link.
 */
async function placeOf(path: string): Promise<Place> {
  let current = path;
  for (let links = 0; links <= MAX_LINKS; links++) {
    const facts = await lstat(current).catch((error: unknown) => {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      throw error;
    });
    if (facts?.isSymbolicLink() !== true) return { path: current, regular: facts?.isFile() ?? true };
    const folder = await realpath(dirname(current));
    if (folder === `/proc/${process.pid}/fd` && /^\d+$/.test(basename(current)))
      return { path: current, regular: false, fd: Number(basename(current)) };
    if (folder.startsWith('/proc/')) return { path: current, regular: false };
    current = resolve(folder, await readlink(current));
  }
  throw new LayercacheError('USAGE', `${path} cannot be written: too many links lead to one another`);
}
