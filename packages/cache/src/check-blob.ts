import { finished } from 'node:stream/promises';
import type { OciLayout } from '@layercache/layout';
import type { Digest } from '@layercache/oci';

/**
 * Reads a blob to find out whether it is the reason why something failed. One that went bad is dropped.
 *
 * @throws IntegrityError `DIGEST_MISMATCH`
 */
export async function checkBlob(layout: OciLayout, digest: Digest, signal?: AbortSignal): Promise<void> {
  if (await layout.has(digest)) await finished(layout.read(digest, { signal }).resume());
}
