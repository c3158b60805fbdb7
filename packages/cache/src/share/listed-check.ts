import { isLayercacheError, isManifestMediaType, type Descriptor, type Digest } from '@layercache/oci';
import { eachOf } from './each.js';
import type { ImagePartsReader } from './image-parts.js';
import type { CacheLocation, RemoteCache } from './remote-cache.js';

export interface ListedCheckOptions {
  readonly concurrency: number;
  readonly signal: AbortSignal | undefined;
}

/**
 * Asks a registry by HEAD for everything that a cache there lists: its shards, entries and images, and the blobs of
 * those images that are here as well.
 *
 * @returns what it does not have
 */
export async function findMissing(
  { registry, repository }: CacheLocation,
  remote: RemoteCache,
  parts: ImagePartsReader,
  { concurrency, signal }: ListedCheckOptions,
): Promise<Set<Digest>> {
  const listed = new Map<Digest, Descriptor>();
  const add = (descriptor: Descriptor): void => void listed.set(descriptor.digest, descriptor);
  for (const { shards, configs } of remote.indexes) {
    for (const { descriptor } of shards) add(descriptor);
    for (const config of configs) add(config);
  }
  for (const entry of remote.entries) add(entry);
  for (const image of remote.images) {
    const { manifests, blobs } = await parts.closure(image);
    for (const manifest of manifests) add(manifest);
    for (const blob of blobs) add(blob);
  }
  const missing = new Set<Digest>();
  await eachOf([...listed.values()], { concurrency, signal }, async ({ digest, mediaType }) => {
    const isThere = isManifestMediaType(mediaType)
      ? registry.resolve(repository, digest, { signal }).then(() => true, notFound)
      : registry.blobSize(repository, digest, { signal }).then((size) => size !== undefined);
    if (!(await isThere)) missing.add(digest);
  });
  return missing;
}

function notFound(error: unknown): false {
  if (isLayercacheError(error, 'NOT_FOUND')) return false;
  throw error;
}
