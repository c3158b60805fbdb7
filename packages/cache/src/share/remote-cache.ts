import {
  isIndexMediaType,
  isLayercacheError,
  LayercacheError,
  type Descriptor,
  type Digest,
} from '@layercache/oci';
import type { Registry } from '@layercache/registry';
import { decodeCacheIndex, decodeShard, type CacheIndex } from './cache-index.js';

/** Where a whole cache is kept: one tag of one repository. */
export interface CacheLocation {
  readonly registry: Registry;
  readonly repository: string;
  readonly tag: string;
  /** As people write it: `registry.example/team/cache:main`. */
  readonly name: string;
}

export interface RemoteCache {
  /** Of the cache index. */
  readonly descriptor: Descriptor;
  readonly shards: readonly Descriptor[];
  readonly entries: readonly Descriptor[];
  readonly images: readonly Descriptor[];
}

/**
 * Reads the cache index of a location and its shards. A shard that `known` has, too, is not fetched.
 *
 * @returns undefined when there is nothing under the tag
 * @throws LayercacheError `DOCUMENT_INVALID` when what is there is not a cache
 */
export async function readRemoteCache(
  location: CacheLocation,
  known: CacheIndex | undefined,
  signal?: AbortSignal,
): Promise<RemoteCache | undefined> {
  const { registry, repository, tag, name } = location;
  const found = await registry.fetchManifest(repository, tag, { signal }).catch((error: unknown) => {
    if (isLayercacheError(error, 'NOT_FOUND')) return undefined;
    throw error;
  });
  if (found === undefined) return undefined;
  const decoded = isIndexMediaType(found.descriptor.mediaType)
    ? decodeCacheIndex(found.bytes, `cache index ${name}`)
    : undefined;
  if (decoded === undefined) {
    throw new LayercacheError(
      'DOCUMENT_INVALID',
      `${name} is not a cache but ${found.descriptor.mediaType}: choose another tag for the cache, or add it as an image`,
    );
  }
  const local = new Map<Digest, readonly Descriptor[]>(
    known?.shards.map((shard) => [shard.descriptor.digest, shard.entries] as const),
  );
  const entries = await Promise.all(
    decoded.shards.map(async (shard) => {
      const here = local.get(shard.digest);
      if (here !== undefined) return here;
      const { bytes } = await registry.fetchManifest(repository, shard.digest, { signal });
      return decodeShard(bytes, `cache manifest ${shard.digest} of ${name}`).entries;
    }),
  );
  return {
    descriptor: found.descriptor,
    shards: decoded.shards,
    entries: entries.flat(),
    images: decoded.images,
  };
}
