import type { Readable } from 'node:stream';
import { isLayercacheError, type Descriptor } from '@layercache/oci';
import type { OciLayout, ReadOptions } from '@layercache/layout';

/** How often a blob may be evicted between its arrival and its opening. */
const TRIES = 3;

/**
 * A blob of an entry as an open stream, fetched first when it is not here. One that is evicted in between is fetched
 * again; once open, nobody takes it away.
 *
 * @throws LayercacheError `NOT_FOUND` when it is not here and nobody has it
 */
export async function openBlob<D extends Pick<Descriptor, 'digest'>>(
  layout: OciLayout,
  supply: (descriptor: D, signal: AbortSignal | undefined) => Promise<void>,
  descriptor: D,
  options: ReadOptions = {},
): Promise<Readable> {
  for (let attempt = 1; ; attempt++) {
    await supply(descriptor, options.signal);
    try {
      return await layout.openToRead(descriptor.digest, options);
    } catch (error) {
      if (!isLayercacheError(error, 'NOT_FOUND') || attempt === TRIES) throw error;
    }
  }
}
