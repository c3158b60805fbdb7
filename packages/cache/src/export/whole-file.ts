import { createWriteStream } from 'node:fs';
import { lstat, realpath, rename, rm } from 'node:fs/promises';
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
      createWriteStream(temporary ?? place.path),
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

async function placeOf(path: string): Promise<{ readonly path: string; readonly regular: boolean }> {
  try {
    const target = await realpath(path);
    return { path: target, regular: (await lstat(target)).isFile() };
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return { path, regular: true };
    throw error;
  }
}
