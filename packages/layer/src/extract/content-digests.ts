import { setImmediate } from 'node:timers/promises';
import { Digester, throwIfAborted, type Digest } from '@layercache/oci';
import type { Content } from '../merge/tree.js';
import { contentsOf } from './layer-contents.js';

const HOLE = new Uint8Array(1 << 20);

/** A hole may be of any size, whatever the layer's: others get their turn, and the caller can give up. */
async function addHole(digester: Digester, size: number, signal: AbortSignal | undefined): Promise<void> {
  for (let left = size; left > 0; left -= HOLE.length) {
    digester.update(HOLE.subarray(0, left));
    if (left < HOLE.length) return;
    await setImmediate();
    throwIfAborted(signal);
  }
}

/**
 * Digests of many files of one layer, holes included, found in its tar as it streams by once.
 *
 * @throws LayercacheError `ARCHIVE_INVALID` when the tar ends before the last of them; `ABORTED`
 */
export async function contentDigests(
  tar: AsyncIterable<Uint8Array>,
  contents: Iterable<Content>,
  signal?: AbortSignal,
): Promise<Map<Content, Digest>> {
  const digesters = new Map([...contents].map((content) => [content, new Digester()]));
  const files = [...digesters].map(([content, digester]) => ({ file: digester, content }));
  for await (const { file, position, bytes } of contentsOf(tar, files)) {
    throwIfAborted(signal);
    await addHole(file, position - file.size, signal);
    file.update(bytes);
  }
  const found = new Map<Content, Digest>();
  for (const [content, digester] of digesters) {
    await addHole(digester, (content.sparse?.size ?? content.size) - digester.size, signal);
    found.set(content, digester.digest());
  }
  return found;
}
