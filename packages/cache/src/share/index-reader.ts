import { isIndexMediaType, type Descriptor, type Digest } from '@layercache/oci';
import type { FetchedManifest } from '@layercache/registry';
import {
  decodeCacheIndex,
  decodeImageShard,
  decodeShard,
  type CacheDocument,
  type CacheIndex,
  type DecodedCacheIndex,
} from './cache-index.js';
import { eachOf } from './each.js';
import type { CacheLocation } from './remote-cache.js';
import type { RemoteMemory } from './remote-memory.js';
import type { SharedLists } from './shared-state.js';
import { skippedPart, type SkippedPart } from './skipped-part.js';

interface ReadShard extends CacheDocument {
  readonly config: Descriptor;
  readonly entries: readonly Descriptor[];
}

/** One cache index in a registry, and what its shards list. */
export interface ReadIndex extends CacheDocument, SharedLists {
  /** Those that could be read: of entries and of images. */
  readonly shards: readonly CacheDocument[];
  /** The configs of the shards. */
  readonly configs: readonly Descriptor[];
  /** Shards that the registry does not have any more, or that are not what they should be. */
  readonly lost: readonly SkippedPart[];
}

interface ReadImageShard extends CacheDocument {
  readonly images: readonly Descriptor[];
}

/** Documents asked for at the same time. */
const CONCURRENCY = 8;

/** Reads cache indexes in a registry with their shards, and each of those once. */
export class IndexReader {
  readonly #location: CacheLocation;
  readonly #memory: RemoteMemory;
  readonly #shards = new Map<Digest, ReadShard>();
  readonly #imageShards = new Map<Digest, ReadImageShard>();
  readonly #known = new Map<Digest, ReadIndex>();

  constructor(location: CacheLocation, memory: RemoteMemory) {
    this.#location = location;
    this.#memory = memory;
  }

  /** The indexes that have been read whole. */
  get known(): ReadonlyMap<Digest, ReadIndex> {
    return this.#known;
  }

  /** Takes note of a cache index that is going to be pushed, so that it is not fetched. */
  know(index: CacheIndex): void {
    const { descriptor, bytes, shards, imageShards, images } = index;
    this.#known.set(descriptor.digest, {
      descriptor,
      bytes,
      shards: [...shards, ...imageShards],
      configs: shards.map(({ config }) => config.descriptor),
      entries: shards.flatMap(({ entries }) => entries),
      images,
      lost: [],
    });
  }

  /**
   * What a manifest lists; undefined when it is not a cache index.
   *
   * @throws LayercacheError `DOCUMENT_INVALID`
   */
  async read(found: FetchedManifest, signal: AbortSignal | undefined): Promise<ReadIndex | undefined> {
    const { descriptor, bytes } = found;
    const known = this.#known.get(descriptor.digest);
    if (known !== undefined) return known;
    const decoded = isIndexMediaType(descriptor.mediaType)
      ? decodeCacheIndex(bytes, `cache index ${this.#location.name}`)
      : undefined;
    if (decoded === undefined) return undefined;
    const index = { descriptor, bytes, ...(await this.#listed(decoded, signal)) };
    // What a registry has lost may be sent again.
    if (index.lost.length === 0) this.#known.set(descriptor.digest, index);
    return index;
  }

  async #listed(
    decoded: DecodedCacheIndex,
    signal: AbortSignal | undefined,
  ): Promise<Omit<ReadIndex, keyof CacheDocument>> {
    const lost: SkippedPart[] = [];
    const read = async <T>(
      shards: readonly Descriptor[],
      one: (shard: Descriptor) => Promise<T>,
    ): Promise<T[]> => {
      const found = new Map<Digest, T>();
      await eachOf(shards, { concurrency: CONCURRENCY, signal }, async (shard) => {
        try {
          found.set(shard.digest, await one(shard));
        } catch (error) {
          lost.push(skippedPart(shard, error));
        }
      });
      return shards.flatMap(({ digest }) => found.get(digest) ?? []);
    };
    const shards = await read(decoded.shards, (shard) => this.#shard(shard, signal));
    const imageShards = await read(decoded.imageShards, (shard) => this.#imageShard(shard, signal));
    return {
      shards: [...shards, ...imageShards],
      configs: shards.map((shard) => shard.config),
      entries: shards.flatMap((shard) => shard.entries),
      images: [...decoded.images, ...imageShards.flatMap((shard) => shard.images)],
      lost,
    };
  }

  async #shard(descriptor: Descriptor, signal: AbortSignal | undefined): Promise<ReadShard> {
    const { digest } = descriptor;
    const before = this.#shards.get(digest);
    if (before !== undefined) return before;
    const bytes = await this.#document(digest, signal);
    const what = `cache manifest ${digest} of ${this.#location.name}`;
    const shard = { descriptor, bytes, ...decodeShard(bytes, what) };
    this.#shards.set(digest, shard);
    return shard;
  }

  async #imageShard(descriptor: Descriptor, signal: AbortSignal | undefined): Promise<ReadImageShard> {
    const { digest } = descriptor;
    const before = this.#imageShards.get(digest);
    if (before !== undefined) return before;
    const bytes = await this.#document(digest, signal);
    const images = decodeImageShard(bytes, `images ${digest} of ${this.#location.name}`);
    const shard = { descriptor, bytes, images };
    this.#imageShards.set(digest, shard);
    return shard;
  }

  async #document(digest: Digest, signal: AbortSignal | undefined): Promise<Uint8Array> {
    const { registry, repository, name } = this.#location;
    const known = await this.#memory.shard(name, digest);
    return known ?? (await registry.fetchManifest(repository, digest, { signal })).bytes;
  }
}
