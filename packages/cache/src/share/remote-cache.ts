import {
  isLayercacheError,
  LayercacheError,
  type Descriptor,
  type Digest,
  type Logger,
} from '@layercache/oci';
import type { FetchedManifest, Registry } from '@layercache/registry';
import type { BlobOrigin } from '../entries/origins.js';
import {
  decodeCacheIndex,
  decodeImageShard,
  encodeCacheIndex,
  type CacheDocument,
  type CacheIndex,
} from './cache-index.js';
import { eachOf } from './each.js';
import { IndexReader, type ReadIndex } from './index-reader.js';
import { PendingTags } from './pending-tags.js';
import type { RemoteMemory } from './remote-memory.js';
import { listsOf, stateOf, type SharedLists } from './shared-state.js';
import type { SkippedPart } from './skipped-part.js';

/** Where a whole cache is kept: one tag of one repository. */
export interface CacheLocation {
  readonly registry: Registry;
  readonly repository: string;
  readonly tag: string;
  /** As people write it: `registry.example/team/cache:main`. */
  readonly name: string;
  readonly origin: BlobOrigin;
}

/** A cache index that was pushed and that the one under the tag may not contain yet. */
export interface PendingIndex {
  readonly tag: string;
  readonly index: ReadIndex;
}

/** What all cache indexes of a location say together. */
export interface RemoteCache extends SharedLists {
  /** What stands under the tag itself. */
  readonly main: ReadIndex | undefined;
  readonly pending: readonly PendingIndex[];
  /** Whether the registry lists its tags: if not, pending indexes cannot be found. */
  readonly lists: boolean;
  /** All of them, each once. */
  readonly indexes: readonly ReadIndex[];
  readonly lost: readonly SkippedPart[];
}

export interface ReadOptions {
  readonly signal?: AbortSignal | undefined;
  /** Cache indexes that no tag names any more, to be united as well. */
  readonly overwritten?: Iterable<Digest>;
}

/** Documents asked for at the same time. */
const CONCURRENCY = 8;
/** Times that the tags are listed again because one of them was gone when it was read. */
const MAX_LISTINGS = 20;

/** Reads the cache indexes of a location and their shards, and each of those once. */
export class RemoteCacheReader {
  readonly pendingTags: PendingTags;
  readonly #location: CacheLocation;
  readonly #memory: RemoteMemory;
  readonly #logger: Logger;
  readonly #reader: IndexReader;
  #hasReadMain = false;

  constructor(location: CacheLocation, memory: RemoteMemory, logger: Logger) {
    this.#location = location;
    this.#memory = memory;
    this.#logger = logger;
    this.#reader = new IndexReader(location, memory);
    this.pendingTags = new PendingTags(location, logger);
  }

  /**
   * @returns undefined when there is nothing under the tag, and nothing pending
   * @throws LayercacheError `DOCUMENT_INVALID` when what is there is not a cache
   */
  async read({ signal, overwritten = [] }: ReadOptions = {}): Promise<RemoteCache | undefined> {
    const [main, tags] = await Promise.all([this.#main(signal), this.pendingTags.list(signal)]);
    const pending = await this.#pending(tags ?? [], signal);
    const others: ReadIndex[] = [];
    for (const digest of overwritten) {
      const found = await this.#fetch(digest, signal);
      const index = found === undefined ? undefined : await this.#reader.read(found, signal);
      if (index !== undefined) others.push(index);
    }
    const all = [...(main === undefined ? [] : [main]), ...pending.map(({ index }) => index), ...others];
    const indexes = [...new Map(all.map((index) => [index.descriptor.digest, index])).values()];
    const [first] = indexes;
    if (first === undefined) return undefined;
    const { entries, images } = indexes.length === 1 ? first : listsOf(stateOf(...indexes));
    const lost = new Map(indexes.flatMap((index) => index.lost).map((part) => [part.digest, part]));
    return {
      main,
      pending,
      lists: tags !== undefined,
      indexes,
      entries,
      images,
      lost: [...lost.values()],
    };
  }

  /** The images of the cache that was last pushed to or pulled from here. */
  async lastImages(): Promise<readonly Descriptor[]> {
    const { name } = this.#location;
    const bytes = await this.#memory.index(name);
    if (bytes === undefined) return [];
    try {
      const decoded = decodeCacheIndex(bytes, 'the cache index last seen');
      if (decoded === undefined) return [];
      const images = [...decoded.images];
      for (const { digest } of decoded.imageShards) {
        const shard = await this.#memory.shard(name, digest);
        for (const image of shard === undefined ? [] : decodeImageShard(shard, 'images last seen'))
          images.push(image);
      }
      return images;
    } catch (error) {
      if (isLayercacheError(error)) return [];
      throw error;
    }
  }

  /** Takes note of a cache index that is going to be pushed, so that it is not fetched. */
  know(index: CacheIndex): void {
    this.#reader.know(index);
  }

  /**
   * Remembers what the location has now.
   *
   * @returns the cache index that says it
   */
  async keep(cache: RemoteCache | CacheIndex): Promise<Descriptor> {
    const { descriptor, bytes, shards } = documentsOf(cache);
    const known = new Map(shards.map((shard) => [shard.descriptor.digest, shard.bytes] as const));
    await this.#memory.keep(this.#location.name, bytes, known);
    return descriptor;
  }

  async #main(signal: AbortSignal | undefined): Promise<ReadIndex | undefined> {
    const { registry, repository, tag, name } = this.#location;
    if (this.#hasReadMain) {
      const digest = await orNotFound(registry.resolve(repository, tag, { signal }));
      const known = digest === undefined ? undefined : this.#reader.known.get(digest.digest);
      if (digest === undefined || known !== undefined) return known;
    }
    this.#hasReadMain = true;
    const found = await this.#fetch(tag, signal);
    if (found === undefined) return undefined;
    const index = await this.#reader.read(found, signal);
    if (index === undefined) {
      throw new LayercacheError(
        'DOCUMENT_INVALID',
        `${name} is not a cache but ${found.descriptor.mediaType}: choose another tag for the cache, or add it as an image`,
      );
    }
    return index;
  }

  /**
   * A tag that was listed and is gone was removed because another contains it: that one is listed now. One that stays
   * listed and cannot be had names nothing.
   */
  async #pending(listed: readonly string[], signal: AbortSignal | undefined): Promise<PendingIndex[]> {
    let tags = listed;
    let gone = new Set<string>();
    for (let listing = 1; ; listing++) {
      const found: PendingIndex[] = [];
      const missing = new Set<string>();
      await eachOf(tags, { concurrency: CONCURRENCY, signal }, async (tag) => {
        const index = await this.#tagged(tag, signal);
        if (index === undefined) missing.add(tag);
        else if (index !== 'other') found.push({ tag, index });
      });
      if ([...missing].every((tag) => gone.has(tag))) return found.sort(byTag);
      if (listing >= MAX_LISTINGS) {
        throw new LayercacheError(
          'REGISTRY',
          `${this.#location.name} was changed ${listing} times while it was read: try again when fewer push`,
        );
      }
      gone = missing;
      tags = (await this.pendingTags.list(signal)) ?? [];
    }
  }

  /** What a pending tag stands for; `other` when it is no cache index, or not that of its name. */
  async #tagged(tag: string, signal: AbortSignal | undefined): Promise<ReadIndex | 'other' | undefined> {
    for (const [digest, index] of this.#reader.known)
      if (this.pendingTags.nameOf(digest) === tag) return index;
    const found = await this.#fetch(tag, signal);
    if (found === undefined) return undefined;
    if (this.pendingTags.nameOf(found.descriptor.digest) !== tag) return 'other';
    try {
      return (await this.#reader.read(found, signal)) ?? 'other';
    } catch (error) {
      if (!isLayercacheError(error, 'DOCUMENT_INVALID')) throw error;
      this.#logger.warn({ message: 'pending tag is not a cache', tag, error: error.message });
      return 'other';
    }
  }

  #fetch(reference: string, signal: AbortSignal | undefined): Promise<FetchedManifest | undefined> {
    const { registry, repository } = this.#location;
    return orNotFound(registry.fetchManifest(repository, reference, { signal }));
  }
}

/** A cache index and all its shards. What several indexes say is one that nobody has pushed yet. */
function documentsOf(
  cache: RemoteCache | CacheIndex,
): CacheDocument & { readonly shards: readonly CacheDocument[] } {
  const [single, ...others] = 'indexes' in cache ? cache.indexes : [];
  if (single !== undefined && others.length === 0) return single;
  const index = 'indexes' in cache ? encodeCacheIndex(cache.entries, cache.images) : cache;
  return { ...index, shards: [...index.shards, ...index.imageShards] };
}

async function orNotFound<T>(answer: Promise<T>): Promise<T | undefined> {
  try {
    return await answer;
  } catch (error) {
    if (isLayercacheError(error, 'NOT_FOUND')) return undefined;
    throw error;
  }
}

function byTag(a: PendingIndex, b: PendingIndex): number {
  return a.tag < b.tag ? -1 : 1;
}
