import { isManifestMediaType, type Descriptor, type Digest } from '@layercache/oci';
import type { OciLayout, StoredBlob } from '@layercache/layout';
import type { ImageGraph } from '../images/image-graph.js';

/**
 * Blobs that have no entry, and that no manifest with one refers to: uploads whose manifest never came.
 *
 * @throws LayercacheError `STORAGE` when it cannot be told what a manifest refers to
 */
export async function unreferencedBlobs(layout: OciLayout, graph: ImageGraph): Promise<StoredBlob[]> {
  const listed = new Set<Digest>();
  const manifests: Descriptor[] = [];
  for (const { descriptor } of layout.entries()) {
    listed.add(descriptor.digest);
    if (isManifestMediaType(descriptor.mediaType)) manifests.push(descriptor);
  }
  // The cache index is an entry, too: so its shards are referred to.
  for await (const { descriptor, blobs, manifests: children } of graph.below(manifests)) {
    listed.add(descriptor.digest);
    for (const { digest } of [...blobs, ...children]) listed.add(digest);
  }
  const found: StoredBlob[] = [];
  for await (const blob of layout.storedBlobs()) if (!listed.has(blob.digest)) found.push(blob);
  return found;
}
