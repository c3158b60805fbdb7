import {
  isIndexMediaType,
  isLayercacheError,
  LayercacheError,
  type Descriptor,
  type Digest,
} from '@layercache/oci';
import type { Registry } from '@layercache/registry';
import type { BlobOrigin } from '../entries/origins.js';
import { decodeCacheIndex, decodeShard, type CacheDocument } from './cache-index.js';
import type { RemoteMemory } from './remote-memory.js';

/** Where a whole cache is kept: one tag of one repository. */
export interface CacheLocation {
  readonly registry: Registry;
  readonly repository: string;
  readonly tag: string;
  /** As people write it: `registry.example/team/cache:main`. */
  readonly name: string;
  readonly origin: BlobOrigin;
}

interface ReadShard extends CacheDocument {
  readonly config: Descriptor;
  readonly entries: readonly Descriptor[];
}

/** The cache index of a location, and what its shards list. */
export interface RemoteCache extends CacheDocument {
  readonly shards: readonly CacheDocument[];
  /** The configs of the shards. */
  readonly configs: readonly Descriptor[];
  readonly entries: readonly Descriptor[];
  readonly images: readonly Descriptor[];
}

/** Reads the cache index of a location and its shards, and each of those once. */
export class RemoteCacheReader {
  readonly #location: CacheLocation;
  readonly #memory: RemoteMemory;
  readonly #shards = new Map<Digest, ReadShard>();

  constructor(location: CacheLocation, memory: RemoteMemory) {
    this.#location = location;
    this.#memory = memory;
  }

  /**
   * @returns undefined when there is nothing under the tag
   * @throws LayercacheError `DOCUMENT_INVALID` when what is there is not a cache
   */
  async read(signal?: AbortSignal): Promise<RemoteCache | undefined> {
    const { registry, repository, tag, name } = this.#location;
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
    const shards = await Promise.all(decoded.shards.map((shard) => this.#shard(shard, signal)));
    return {
      descriptor: found.descriptor,
      bytes: found.bytes,
      shards,
      configs: shards.map((shard) => shard.config),
      entries: shards.flatMap((shard) => shard.entries),
      images: decoded.images,
    };
  }

  /** The images of the cache index that was last pushed to or pulled from here. */
  async lastImages(): Promise<readonly Descriptor[]> {
    const bytes = await this.#memory.index(this.#location.name);
    if (bytes === undefined) return [];
    try {
      return decodeCacheIndex(bytes, 'the cache index last seen')?.images ?? [];
    } catch (error) {
      if (isLayercacheError(error)) return [];
      throw error;
    }
  }

  /** Remembers what stands under the tag now. */
  async keep({ bytes, shards }: Pick<RemoteCache, 'bytes' | 'shards'>): Promise<void> {
    const known = new Map(shards.map((shard) => [shard.descriptor.digest, shard.bytes] as const));
    await this.#memory.keep(this.#location.name, bytes, known);
  }

  async #shard(descriptor: Descriptor, signal: AbortSignal | undefined): Promise<ReadShard> {
    const { registry, repository, name } = this.#location;
    const { digest } = descriptor;
    const before = this.#shards.get(digest);
    if (before !== undefined) return before;
    const bytes =
      (await this.#memory.shard(name, digest)) ??
      (await registry.fetchManifest(repository, digest, { signal })).bytes;
    const shard = { descriptor, bytes, ...decodeShard(bytes, `cache manifest ${digest} of ${name}`) };
    this.#shards.set(digest, shard);
    return shard;
  }
}
