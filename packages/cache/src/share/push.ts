import { setTimeout as sleep } from 'node:timers/promises';
import {
  LayercacheError,
  isLayercacheError,
  refName,
  throwIfAborted,
  type Descriptor,
  type Digest,
} from '@layercache/oci';
import { encodeCacheIndex, type CacheIndex } from './cache-index.js';
import { ImagePartsReader } from './image-parts.js';
import { mergeImages, uniteForPush, type OwnEntry } from './merge.js';
import { pushManifest } from './push-manifest.js';
import { RemoteCacheReader, type RemoteCache } from './remote-cache.js';
import type { RemoteMemory } from './remote-memory.js';
import { findRemoval, withoutRemoved, type Removal } from './removal.js';
import { selectEntries, type Selected, type Selection } from './selection.js';
import type { SkippedPart } from './skipped-part.js';
import { CacheSender, type SenderContext, type SenderOptions } from './sender.js';

export interface PushOptions extends Omit<Selection, 'images'>, SenderOptions {
  /** Only these images, by name or digest, with their layers and layer indexes. Default: everything. */
  readonly images?: readonly string[] | undefined;
  /**
   * Remove from the remote what is not being pushed, if the answer is yes. The blobs themselves go when the
   * registry collects its garbage. Default: nothing is removed.
   */
  readonly prune?: ((removal: Removal) => boolean | Promise<boolean>) | undefined;
}

export interface PushResult {
  readonly name: string;
  /** Of the cache index that stands under the tag now or, in a dry run, would. */
  readonly digest: Digest;
  readonly dryRun: boolean;
  readonly sent: { readonly blobs: number; readonly bytes: number };
  readonly mounted: number;
  /** Blobs that the registry had, though the cache there did not list them. */
  readonly present: number;
  /** Entries that the cache there listed: they are not asked for again. */
  readonly listed: number;
  /** Entries and images taken out of the cache there. */
  readonly removed: number;
  /** Entries and images of the cache there now. */
  readonly entries: number;
  readonly images: number;
  /** Images and blobs that the registry refused, or that nobody has any more. */
  readonly skipped: readonly SkippedPart[];
}

export interface PushContext extends Omit<SenderContext, 'parts'> {
  readonly memory: RemoteMemory;
  readonly image: (nameOrDigest: string) => Descriptor;
}

/** Writers that keep winning the race for the tag. Eight at a time settle within a few rounds. */
const MAX_ROUNDS = 40;

/**
 * Milliseconds, at least. A writer who looked at the tag before this one wrote may still write over it; by
 * the end of this time it has, and it shows. See docs/architecture.md, "Concurrent pushes".
 */
const SETTLE = 300;
/** Milliseconds. Whoever writes the tag has looked at it so recently: well below the time others wait. */
const FRESH = SETTLE / 3;

/** Unites a cache with the one in a registry, and sends what that does not have. */
export class CachePusher {
  readonly #context: PushContext;
  readonly #options: PushOptions;
  readonly #parts: ImagePartsReader;
  readonly #sender: CacheSender;
  readonly #reader: RemoteCacheReader;
  #removal: Removal | undefined;
  #listed = 0;
  /** Milliseconds that the slowest write of the tag took, from the last look at it. */
  #slowest = 0;

  constructor(context: PushContext, options: PushOptions) {
    this.#context = context;
    this.#options = options;
    this.#parts = new ImagePartsReader(context.layout);
    this.#sender = new CacheSender({ ...context, parts: this.#parts }, options);
    this.#reader = new RemoteCacheReader(context.location, context.memory);
  }

  async push(): Promise<PushResult> {
    const { layout, location, logger, image } = this.#context;
    const { signal, dryRun = false } = this.#options;
    const images = this.#options.images?.map(image);
    const selected = await selectEntries(layout, this.#parts, { ...this.#options, images });
    const last = await this.#reader.lastImages();
    for (let round = 0; round < MAX_ROUNDS;) {
      throwIfAborted(signal);
      const looked = performance.now();
      const remote = await this.#reader.read(signal);
      const united = await this.#unite(remote, selected, last);
      if (remote?.descriptor.digest === united.index.descriptor.digest) return this.#result(united.index);
      const sent = await this.#sender.sendBlobs(
        united.entries.map((entry) => entry.descriptor),
        united.images,
      );
      // What was skipped is not to be in the index: it is put together again without that.
      if (!sent || !(await this.#sender.sendImages(united.images))) continue;
      await this.#sender.sendShards(united.index);
      if (dryRun) return this.#result(united.index);
      if (await this.#replaceTag(united.index, remote, looked)) return this.#result(united.index);
      logger.info({ message: 'another push came first: merging again', name: location.name });
      round++;
      await sleep(Math.random() * SETTLE * Math.min(round, 5), undefined, { signal });
    }
    throw new LayercacheError(
      'REGISTRY',
      `${location.name} changed ${MAX_ROUNDS} times while this cache was pushed: push again when fewer others do`,
    );
  }

  /** The cache index that is to stand under the tag, and those of our images that it names. */
  async #unite(
    remote: RemoteCache | undefined,
    selected: Selected,
    last: readonly Descriptor[],
  ): Promise<{ index: CacheIndex; entries: readonly OwnEntry[]; images: readonly Descriptor[] }> {
    const entries = selected.entries.filter(({ descriptor }) => !this.#sender.isSkipped(descriptor));
    if (remote === undefined) {
      const images = await this.#sender.sendable(selected.images);
      return {
        index: encodeCacheIndex(
          entries.map((entry) => entry.descriptor),
          images,
        ),
        entries,
        images,
      };
    }
    this.#sender.remember(remote);
    const theirs = new Set(remote.entries.map((entry) => entry.digest));
    this.#listed = entries.filter((entry) => theirs.has(entry.descriptor.digest)).length;
    const images = await this.#sender.sendable(selected.images);
    const kept = await this.#prune(remote, selected);
    const claimed = new Set(selected.claimedNames);
    const merged = mergeImages(kept.images, images, last, claimed);
    return { index: encodeCacheIndex(uniteForPush(kept.entries, entries), merged), entries, images };
  }

  /** Asks once; what others add in the meantime was not asked about and stays. */
  async #prune(remote: RemoteCache, selected: Selected): Promise<Pick<RemoteCache, 'entries' | 'images'>> {
    const { prune } = this.#options;
    if (prune === undefined) return remote;
    if (this.#removal === undefined) {
      const removal = findRemoval(remote, selected);
      const isNothing = removal.entries.length + removal.images.length === 0;
      if (!isNothing && selected.entries.length + selected.images.length === 0) {
        // A lazy cache has used nothing yet: choosing by use would choose nothing, and empty the cache of all.
        throw new LayercacheError(
          'USAGE',
          `nothing here is selected, so pruning would empty ${this.#context.location.name}: select more, or do not prune`,
        );
      }
      if (!isNothing && !(await prune(removal))) {
        throw new LayercacheError(
          'ABORTED',
          `nothing was pushed to ${this.#context.location.name}: the removal was not confirmed`,
        );
      }
      this.#removal = removal;
    }
    return withoutRemoved(remote, this.#removal);
  }

  async #result(index: CacheIndex): Promise<PushResult> {
    const { dryRun = false } = this.#options;
    if (!dryRun) await this.#reader.keep(index);
    const { blobs, bytes, mounted, present } = this.#sender.tally;
    const result = {
      name: this.#context.location.name,
      digest: index.descriptor.digest,
      dryRun,
      sent: { blobs, bytes },
      mounted,
      present,
      listed: this.#listed,
      removed: (this.#removal?.entries.length ?? 0) + (this.#removal?.images.length ?? 0),
      entries: index.shards.reduce((sum, shard) => sum + shard.entries.length, 0),
      images: index.images.filter((image) => refName(image) !== undefined).length,
      skipped: this.#sender.skipped,
    };
    this.#context.logger.info({ message: 'cache pushed', ...result });
    return result;
  }

  /**
   * Moves the tag, unless somebody else has since it was read. True when it stayed moved.
   *
   * @param looked when it was read, by `performance.now()`
   */
  async #replaceTag(index: CacheIndex, remote: RemoteCache | undefined, looked: number): Promise<boolean> {
    const { registry, repository, tag } = this.#context.location;
    const { signal } = this.#options;
    let seen = looked;
    // That there is nothing is believed when it is seen twice: what is there would be lost.
    if (remote === undefined || performance.now() - seen > FRESH) {
      seen = performance.now();
      if ((await this.#tagged()) !== remote?.descriptor.digest) return false;
    }
    await pushManifest(registry, repository, index, { tag, signal });
    this.#slowest = Math.max(this.#slowest, performance.now() - seen);
    await sleep(Math.max(SETTLE, 4 * this.#slowest), undefined, { signal });
    return (await this.#tagged()) === index.descriptor.digest;
  }

  async #tagged(): Promise<Digest | undefined> {
    const { registry, repository, tag } = this.#context.location;
    try {
      return (await registry.resolve(repository, tag, { signal: this.#options.signal })).digest;
    } catch (error) {
      if (isLayercacheError(error, 'NOT_FOUND')) return undefined;
      throw error;
    }
  }
}
