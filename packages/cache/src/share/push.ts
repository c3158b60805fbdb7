import { setTimeout as sleep } from 'node:timers/promises';
import pLimit from 'p-limit';
import {
  LayercacheError,
  MAX_MANIFEST_SIZE,
  isNondistributable,
  refName,
  throwIfAborted,
  type Descriptor,
  type Digest,
  type Logger,
} from '@layercache/oci';
import type { OciLayout } from '@layercache/layout';
import { parseManifest } from '../image-walk.js';
import { mountSources } from './blob-origin.js';
import {
  cachedImages,
  encodeCacheIndex,
  travellingEntries,
  uniteEntries,
  type CacheIndex,
} from './cache-index.js';
import { readRemoteCache, type CacheLocation, type RemoteCache } from './remote-cache.js';

export interface PushProgress {
  readonly descriptor: Descriptor;
  readonly state: 'sending' | 'sent' | 'mounted' | 'present';
}

export interface PushOptions {
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: PushProgress) => void) | undefined;
}

export interface PushResult {
  readonly name: string;
  /** Of the cache index that stands under the tag now. */
  readonly digest: Digest;
  readonly sent: { readonly blobs: number; readonly bytes: number };
  readonly mounted: number;
  /** Blobs that the registry had. */
  readonly present: number;
  readonly entries: number;
  readonly images: number;
}

interface PushContext {
  readonly layout: OciLayout;
  readonly location: CacheLocation;
  readonly concurrency: number;
  readonly logger: Logger;
}

/** Writers that keep winning the race for the tag. Eight at a time settle within a few rounds. */
const MAX_ROUNDS = 40;

/**
 * Milliseconds, at least. A writer who looked at the tag before this one wrote may still write over it; by
 * the end of this time it has, and it shows. See docs/architecture.md, "Concurrent pushes".
 */
const SETTLE = 300;

/** Unites a cache with the one in a registry, and sends what that does not have. */
export class CachePusher {
  readonly #context: PushContext;
  readonly #options: PushOptions;
  readonly #tally = { blobs: 0, bytes: 0, mounted: 0, present: 0 };
  /** Blobs and manifests known to be in the repository. */
  readonly #there = new Set<Digest>();
  /** Milliseconds that the slowest write of a manifest took. */
  #slowest = 0;

  constructor(context: PushContext, options: PushOptions) {
    this.#context = context;
    this.#options = options;
  }

  async push(): Promise<PushResult> {
    const local = [...this.#context.layout.entries()].map((entry) => entry.descriptor);
    const entries = travellingEntries(local);
    const images = await this.#completeImages(cachedImages(local));
    const known = encodeCacheIndex(entries, images);
    for (let round = 0; round < MAX_ROUNDS; round++) {
      throwIfAborted(this.#options.signal);
      const remote = await readRemoteCache(this.#context.location, known, this.#options.signal);
      const united = unite(remote, known, entries);
      if (remote?.descriptor.digest === united.descriptor.digest) return this.#result(united);
      this.#remember(remote);
      await this.#sendBlobs(entries, images);
      await this.#sendManifests(united, images);
      if (await this.#replaceTag(united, remote)) return this.#result(united);
      this.#context.logger.info({
        message: 'another push came first: merging again',
        name: this.#context.location.name,
      });
      await sleep(Math.random() * SETTLE * Math.min(round + 1, 5), undefined, {
        signal: this.#options.signal,
      });
    }
    throw new LayercacheError(
      'REGISTRY',
      `${this.#context.location.name} changed ${MAX_ROUNDS} times while this cache was pushed: push again when fewer others do`,
    );
  }

  #result(index: CacheIndex): PushResult {
    const { blobs, bytes, mounted, present } = this.#tally;
    return {
      name: this.#context.location.name,
      digest: index.descriptor.digest,
      sent: { blobs, bytes },
      mounted,
      present,
      entries: index.shards.reduce((sum, shard) => sum + shard.entries.length, 0),
      images: index.images.length,
    };
  }

  /** What a cache index lists is in its repository: a registry takes no manifest whose parts it misses. */
  #remember(remote: RemoteCache | undefined): void {
    if (remote === undefined) return;
    for (const each of [...remote.entries, ...remote.shards, ...remote.images]) this.#there.add(each.digest);
  }

  /** Images whose every part can be sent. One with a part missing would be refused. */
  async #completeImages(images: readonly Descriptor[]): Promise<Descriptor[]> {
    const complete: Descriptor[] = [];
    for (const image of images) {
      if (await this.#isComplete(image)) complete.push(image);
      else {
        this.#context.logger.warn({
          message: 'image not pushed: parts of it are not in the cache',
          digest: image.digest,
          name: refName(image),
        });
      }
    }
    return complete;
  }

  async #isComplete(image: Descriptor): Promise<boolean> {
    const { layout } = this.#context;
    if (!(await layout.has(image.digest, image.size))) return false;
    const { blobs, manifests } = await this.#parts(image);
    for (const blob of blobs) if (!(await layout.has(blob.digest, blob.size))) return false;
    for (const child of manifests) if (!(await this.#isComplete(child))) return false;
    return true;
  }

  async #parts(image: Descriptor): Promise<{ blobs: Descriptor[]; manifests: readonly Descriptor[] }> {
    const bytes = await this.#context.layout.readBytes(image.digest, { maxSize: MAX_MANIFEST_SIZE });
    const parsed = parseManifest(image, bytes);
    if (parsed.kind === 'index') return { blobs: [], manifests: parsed.index.manifests };
    const { config, layers } = parsed.manifest;
    return {
      blobs: [config, ...layers.filter((layer) => !isNondistributable(layer.mediaType))],
      manifests: [],
    };
  }

  async #sendBlobs(entries: readonly Descriptor[], images: readonly Descriptor[]): Promise<void> {
    const wanted = new Map(entries.map((entry) => [entry.digest, entry] as const));
    for (const image of images) {
      if (this.#there.has(image.digest)) continue;
      for (const blob of (await this.#parts(image)).blobs) {
        if (!wanted.has(blob.digest)) wanted.set(blob.digest, blob);
      }
    }
    const missing = [...wanted.values()].filter((blob) => !this.#there.has(blob.digest));
    await this.#each(missing, (blob) => this.#sendBlob(blob));
  }

  async #sendBlob(blob: Descriptor): Promise<void> {
    const { registry, repository } = this.#context.location;
    const { signal, onProgress } = this.#options;
    const { layout } = this.#context;
    if ((await registry.blobSize(repository, blob.digest, { signal })) !== undefined) {
      this.#tally.present += 1;
      onProgress?.({ descriptor: blob, state: 'present' });
    } else if (await this.#mount(blob)) {
      this.#tally.mounted += 1;
      onProgress?.({ descriptor: blob, state: 'mounted' });
    } else {
      onProgress?.({ descriptor: blob, state: 'sending' });
      await registry.pushBlob(repository, blob, () => layout.read(blob.digest, { signal }), { signal });
      this.#tally.blobs += 1;
      this.#tally.bytes += blob.size;
      onProgress?.({ descriptor: blob, state: 'sent' });
    }
    this.#there.add(blob.digest);
  }

  async #mount(blob: Descriptor): Promise<boolean> {
    const { registry, repository, name } = this.#context.location;
    for (const from of mountSources(blob, name)) {
      if (from === repository) continue;
      if (await registry.mountBlob(repository, blob.digest, from, { signal: this.#options.signal }))
        return true;
    }
    return false;
  }

  /** Children before the index, images before what names them. */
  async #sendManifests(index: CacheIndex, images: readonly Descriptor[]): Promise<void> {
    const { registry, repository } = this.#context.location;
    const { signal } = this.#options;
    for (const image of images) await this.#sendImage(image);
    const fresh = index.shards.filter((shard) => !this.#there.has(shard.descriptor.digest));
    await this.#each(fresh, async (shard) => {
      const { config } = shard;
      if ((await registry.blobSize(repository, config.descriptor.digest, { signal })) === undefined) {
        await registry.pushBlob(repository, config.descriptor, () => [config.bytes], { signal });
      }
      await registry.pushManifest(repository, shard.descriptor.mediaType, shard.bytes, { signal });
      this.#there.add(shard.descriptor.digest);
    });
  }

  async #sendImage(image: Descriptor): Promise<void> {
    if (this.#there.has(image.digest)) return;
    const { registry, repository } = this.#context.location;
    for (const child of (await this.#parts(image)).manifests) await this.#sendImage(child);
    const bytes = await this.#context.layout.readBytes(image.digest, { maxSize: MAX_MANIFEST_SIZE });
    await registry.pushManifest(repository, image.mediaType, bytes, { signal: this.#options.signal });
    this.#there.add(image.digest);
  }

  /** Moves the tag, unless somebody else has since it was read. True when it stayed moved. */
  async #replaceTag(index: CacheIndex, remote: RemoteCache | undefined): Promise<boolean> {
    const { registry, repository, tag } = this.#context.location;
    const { signal } = this.#options;
    if ((await this.#tagged()) !== remote?.descriptor.digest) return false;
    const started = performance.now();
    await registry.pushManifest(repository, index.descriptor.mediaType, index.bytes, { tag, signal });
    this.#slowest = Math.max(this.#slowest, performance.now() - started);
    await sleep(Math.max(SETTLE, 4 * this.#slowest), undefined, { signal });
    return (await this.#tagged()) === index.descriptor.digest;
  }

  async #tagged(): Promise<Digest | undefined> {
    const { registry, repository, tag } = this.#context.location;
    try {
      return (await registry.resolve(repository, tag, { signal: this.#options.signal })).digest;
    } catch (error) {
      if (error instanceof LayercacheError && error.code === 'NOT_FOUND') return undefined;
      throw error;
    }
  }

  async #each<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
    const limit = pLimit(this.#context.concurrency);
    const abort = new AbortController();
    await Promise.all(
      items.map((item) =>
        limit(async () => {
          if (abort.signal.aborted) return;
          try {
            throwIfAborted(this.#options.signal);
            await work(item);
          } catch (error) {
            abort.abort();
            throw error;
          }
        }),
      ),
    );
  }
}

/** The remote's entries and ours. Where both have a name, ours is the newer: this is a push. */
function unite(
  remote: RemoteCache | undefined,
  known: CacheIndex,
  entries: readonly Descriptor[],
): CacheIndex {
  if (remote === undefined) return known;
  return encodeCacheIndex(uniteEntries(remote.entries, entries), [...remote.images, ...known.images]);
}
