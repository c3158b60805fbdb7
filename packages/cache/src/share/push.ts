import { LayercacheError, refName, throwIfAborted, type Descriptor, type Digest } from '@layercache/oci';
import { encodeCacheIndex, type CacheIndex } from './cache-index.js';
import { systemClock, type Clock } from './clock.js';
import { ImagePartsReader } from './image-parts.js';
import { IndexPublisher } from './index-publisher.js';
import { findMissing } from './listed-check.js';
import { entriesForPush, imagesForPush } from './merge.js';
import { saysUnknown } from './push-manifest.js';
import { RemoteCacheReader, type RemoteCache } from './remote-cache.js';
import type { RemoteMemory } from './remote-memory.js';
import { findRemoval, withoutRemoved, type Removal } from './removal.js';
import { selectEntries, type Selected, type Selection } from './selection.js';
import { CacheSender, type SenderContext, type SenderOptions } from './sender.js';
import { listsOf, stateOf, type SharedLists } from './shared-state.js';
import type { SkippedPart } from './skipped-part.js';

export interface PushOptions extends Omit<Selection, 'images'>, SenderOptions {
  /** Only these images, by name or digest, with their layers and layer indexes. Default: everything. */
  readonly images?: readonly string[] | undefined;
  /**
   * Remove from the remote what is not being pushed, if the answer is yes. The blobs themselves go when the
   * registry collects its garbage. Default: nothing is removed.
   */
  readonly prune?: ((removal: Removal) => boolean | Promise<boolean>) | undefined;
  /** Ask the registry for everything that the cache there lists, and send what it has lost. Default false. */
  readonly check?: boolean | undefined;
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
  /** Default: that of this machine. */
  readonly clock?: Clock | undefined;
}

/** Times that a cache is united with what others pushed meanwhile. Eight at a time settle within a few rounds. */
const MAX_ROUNDS = 40;
/** Milliseconds before the next round, where a cache cannot be pushed without waiting for others. */
const PAUSE = 300;

/** Unites a cache with the one in a registry, and sends what that does not have. */
export class CachePusher {
  readonly #context: PushContext;
  readonly #options: PushOptions;
  readonly #clock: Clock;
  readonly #parts: ImagePartsReader;
  readonly #sender: CacheSender;
  readonly #reader: RemoteCacheReader;
  readonly #publisher: IndexPublisher;
  #removal: Removal | undefined;
  /** What was published: from then on it is only joined with what others say. */
  #published: SharedLists | undefined;
  /** What the registry has lost and nobody here has. */
  readonly #lost = new Map<Digest, SkippedPart>();
  #isChecked = false;
  #listed = 0;

  constructor(context: PushContext, options: PushOptions) {
    const { location, memory, logger, clock = systemClock } = context;
    this.#context = context;
    this.#options = options;
    this.#clock = clock;
    this.#parts = new ImagePartsReader(context.layout);
    this.#sender = new CacheSender({ ...context, parts: this.#parts }, options);
    this.#reader = new RemoteCacheReader(location, memory, logger);
    this.#publisher = new IndexPublisher({ location, logger, clock, pendingTags: this.#reader.pendingTags });
  }

  async push(): Promise<PushResult> {
    const { layout, location, logger, image, memory } = this.#context;
    const { signal, dryRun = false, check = false } = this.#options;
    const images = this.#options.images?.map(image);
    const selected = await selectEntries(layout, this.#parts, { ...this.#options, images });
    const last = await this.#reader.lastImages();
    this.#sender.forget(await memory.lost(location.name));
    for (let round = 0; round < MAX_ROUNDS;) {
      throwIfAborted(signal);
      const looked = this.#clock.now();
      const remote = await this.#reader.read({ signal, overwritten: this.#publisher.overwritten });
      if (check) await this.#check(remote);
      const united = await this.#unite(remote, selected, last);
      const sent = await this.#send(united, remote);
      // What was skipped is not to be in the index: it is put together again without that.
      if (!sent) continue;
      if (dryRun) return this.#result(united.index);
      this.#published ??= united.lists;
      this.#reader.know(united.index);
      const removes = this.#removal !== undefined || this.#lost.size > 0;
      if (await this.#publisher.publish(united.index, remote, { looked, removes, signal }))
        return this.#result(united.index);
      if (round++ > 0) {
        logger.info({ message: 'others push as well: uniting again', name: location.name });
        if (!this.#publisher.isSafe)
          await this.#clock.sleep(Math.random() * PAUSE * Math.min(round, 5), signal);
      }
    }
    throw new LayercacheError(
      'REGISTRY',
      `${location.name} changed ${MAX_ROUNDS} times while this cache was pushed: push again when fewer others do`,
    );
  }

  /** The cache index that the location is to have, and what of it is ours. */
  async #unite(
    remote: RemoteCache | undefined,
    selected: Selected,
    last: readonly Descriptor[],
  ): Promise<{
    index: CacheIndex;
    lists: SharedLists;
    entries: readonly Descriptor[];
    images: readonly Descriptor[];
  }> {
    const ours = selected.entries.filter(({ descriptor }) => !this.#sender.isSkipped(descriptor));
    if (remote !== undefined) {
      this.#sender.remember(remote);
      for (const part of remote.lost) this.#lost.set(part.digest, part);
      if (this.#published === undefined) {
        const theirs = new Set(remote.entries.map((entry) => entry.digest));
        this.#listed = ours.filter(({ descriptor }) => theirs.has(descriptor.digest)).length;
      }
    }
    const images = await this.#sender.sendable(selected.images);
    const kept = await this.#kept(remote, selected);
    const claimed = new Set(selected.claimedNames);
    const own = this.#published ?? {
      entries: entriesForPush(kept.entries, ours),
      images: imagesForPush(kept.images, images, last, claimed),
    };
    const lists = listsOf(stateOf(kept, own));
    const index = encodeCacheIndex(lists.entries, lists.images);
    return { index, lists, entries: ours.map(({ descriptor }) => descriptor), images };
  }

  /** @returns false when something had to be skipped, or is found to be lost */
  async #send(
    {
      index,
      entries,
      images,
    }: { index: CacheIndex; entries: readonly Descriptor[]; images: readonly Descriptor[] },
    remote: RemoteCache | undefined,
  ): Promise<boolean> {
    try {
      if ((await this.#sender.sendBlobs(entries, images)) && (await this.#sender.sendImages(images))) {
        await this.#sender.sendShards(index);
        return true;
      }
      // A registry refuses an image also when it has lost a part that is listed there.
      const wasRefused = this.#sender.skipped.some(({ code }) => code === 'REGISTRY');
      if (wasRefused && (await this.#check(remote))) this.#sender.retry();
      return false;
    } catch (error) {
      if (!saysUnknown(error) || !(await this.#check(remote))) throw error;
      return false;
    }
  }

  /** Finds out, once, what the location has lost. True when there is something. */
  async #check(remote: RemoteCache | undefined): Promise<boolean> {
    if (remote === undefined || this.#isChecked) return false;
    this.#isChecked = true;
    const { location, concurrency } = this.#context;
    const missing = await findMissing(location, remote, this.#parts, {
      concurrency,
      signal: this.#options.signal,
    });
    this.#sender.forget(missing);
    return missing.size > 0;
  }

  /** Of what is there, all that stays: not what is pruned, and not what is lost and nobody here has. */
  async #kept(remote: RemoteCache | undefined, selected: Selected): Promise<SharedLists> {
    if (remote === undefined) return { entries: [], images: [] };
    const kept = await this.#prune(remote, selected);
    const { lost } = this.#sender;
    if (lost.size === 0) return kept;
    const ours = new Set(
      [...selected.entries.map(({ descriptor }) => descriptor), ...selected.images].map(
        ({ digest }) => digest,
      ),
    );
    const isKept = (part: Descriptor): boolean => {
      if (!lost.has(part.digest)) return true;
      const canBeSent = ours.has(part.digest) && !this.#sender.isSkipped(part);
      if (!canBeSent) this.#lost.set(part.digest, lostPart(part, this.#context.location.name));
      return canBeSent;
    };
    return { entries: kept.entries.filter(isKept), images: kept.images.filter(isKept) };
  }

  /** Asks once; what others add in the meantime was not asked about and stays. */
  async #prune(remote: SharedLists, selected: Selected): Promise<SharedLists> {
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
    if (!dryRun) {
      await this.#reader.keep(index);
      await this.#context.memory.keepLost(this.#context.location.name, this.#sender.lost);
    }
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
      skipped: [...this.#sender.skipped, ...this.#lost.values()],
    };
    this.#context.logger.info({ message: 'cache pushed', ...result });
    return result;
  }
}

function lostPart(part: Descriptor, location: string): SkippedPart {
  return {
    digest: part.digest,
    name: refName(part),
    code: 'NOT_FOUND',
    message: `${location} lists ${part.digest}, and neither the registry nor this cache has it: push from where it is`,
  };
}
