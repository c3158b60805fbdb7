import {
  LayercacheError,
  isManifestMediaType,
  refName,
  type Descriptor,
  type Digest,
  type Logger,
} from '@layercache/oci';
import type { Limits, OciLayout, RoomMade, Shortage } from '@layercache/layout';
import type { MetricsRecorder } from '../metrics/metrics.js';
import { Evictor, type EvictedItem } from './evictor.js';
import type { Candidate, EvictionStrategy } from './strategy.js';
import { costAware } from './strategies.js';
import { imagesThatNeed } from '../images/needed-by.js';
import { expiryOf, isPinned, withExpiry, withPin } from '../entries/lifetime.js';
import { GRACE, prune, type PruneOptions, type PruneReport } from './prune.js';

export interface RetentionOptions {
  /** What the cache may take, at every instant and with all processes that use it. Default: everything. */
  readonly limits?: Limits | undefined;
  /** What goes first when a limit is reached. Default: what is cheapest to have again. */
  readonly eviction?: EvictionStrategy | undefined;
  /** How long an image stays after it was added, in ms, where its `add` does not say. Default: for ever. */
  readonly ttl?: number | undefined;
  /** Is told of each thing that is evicted because space is needed. */
  readonly onEvicted?: ((item: EvictedItem) => void) | undefined;
}

/** Bytes that could go, by what they are. */
export interface Reclaimable {
  /** By {@link Candidate.kind}; those of images count what no other image needs, each on its own. */
  readonly byKind: Readonly<Record<Candidate['kind'] | 'orphan' | 'partial', number>>;
  /** What can be made again without a network, and what nothing leads to. */
  readonly free: number;
}

/** How long things stay in a cache, and what goes for others. */
export class Retention {
  readonly #layout: OciLayout;
  readonly #evictor: Evictor;
  readonly #ttl: number | undefined;

  constructor(layout: OciLayout, options: RetentionOptions, logger: Logger, metrics: MetricsRecorder) {
    const { limits, eviction: strategy = costAware, ttl, onEvicted } = options;
    this.#layout = layout;
    this.#ttl = ttl;
    const maxSize = limits?.maxSize;
    this.#evictor = new Evictor({ layout, strategy, logger, metrics, maxSize, onEvicted });
  }

  makeRoom(shortage: Shortage): Promise<RoomMade> {
    return this.#evictor.makeRoom(shortage);
  }

  /** How long the entry of an image says that it stays: as it was said before, and its time begins anew. */
  renew(named: Descriptor, ttl: number | undefined = this.#ttl): Descriptor {
    const name = refName(named);
    const before = name === undefined ? undefined : this.#layout.lookupTag(name)?.descriptor;
    const pinned = before !== undefined && isPinned(before) ? withPin(named, true) : named;
    if (name === undefined) return named;
    if (ttl !== undefined) return withExpiry(pinned, new Date(Date.now() + ttl));
    return before === undefined || expiryOf(before) === undefined ? pinned : withExpiry(pinned, undefined);
  }

  /** @throws LayercacheError `NOT_FOUND`, `USAGE` for an image without a name */
  async setPin(image: Descriptor, pinned: boolean): Promise<void> {
    if (refName(image) === undefined) {
      throw new LayercacheError(
        'USAGE',
        `image ${image.digest} has no name: only images with a name are pinned`,
      );
    }
    await this.#layout.put(withPin(image, pinned));
    await this.#layout.sync();
  }

  /** Removes a name, and the image with what no other needs when it has no name any more. */
  async removeImage(named: Descriptor): Promise<boolean> {
    const { digest } = named;
    const name = refName(named) ?? '';
    if (isPinned(named)) await this.#layout.put(withPin(named, false));
    const removed = await this.#layout.untag(name);
    const others = this.#entriesOf(digest).filter((entry) => refName(entry) !== undefined);
    if (others.length === 0) await this.#takeOut(digest);
    await this.#layout.sync();
    return removed;
  }

  /**
   * Removes what a digest names: an image with what no other needs, or a blob. False when there is nothing.
   *
   * @param force also when another image needs it
   * @throws LayercacheError `USAGE` when an image needs it
   */
  async removeDigest(digest: Digest, force: boolean): Promise<boolean> {
    const entries = this.#entriesOf(digest);
    if (!force && entries.length > 0) await this.#refuseIfNeeded(digest);
    if (!entries.some((entry) => isManifestMediaType(entry.mediaType))) return this.#layout.remove(digest);
    for (const entry of entries) if (isPinned(entry)) await this.#layout.put(withPin(entry, false));
    return (await this.#takeOut(digest)) || (force && (await this.#layout.remove(digest)));
  }

  async #refuseIfNeeded(digest: Digest): Promise<void> {
    const [first, ...others] = await imagesThatNeed(this.#layout, digest);
    if (first === undefined) return;
    const more = others.length === 0 ? '' : ` and ${others.length} more`;
    throw new LayercacheError(
      'USAGE',
      `${digest} is needed by image ${refName(first) ?? first.digest}${more}: remove that first, or force it`,
    );
  }

  prune(options: PruneOptions): Promise<PruneReport> {
    return prune(this.#layout, this.#evictor, options);
  }

  async reclaimable(grace = GRACE): Promise<Reclaimable> {
    const byKind = { tar: 0, 'layer-index': 0, image: 0, blob: 0, orphan: 0, partial: 0 };
    for (const { kind, bytes } of (await this.#evictor.inventory()).candidates) byKind[kind] += bytes;
    const { orphans, partials } = await this.#evictor.leftovers(grace);
    for (const { size } of orphans) byKind.orphan += size;
    for (const { size } of partials) byKind.partial += size;
    const { tar, 'layer-index': indexes, orphan, partial } = byKind;
    return { byKind, free: tar + indexes + orphan + partial };
  }

  /** Where times are set, what is over goes when the cache is closed. */
  async close(): Promise<void> {
    if (this.#ttl !== undefined) await this.prune({});
  }

  #entriesOf(digest: Digest): Descriptor[] {
    return this.#layout
      .lookup(digest)
      .map((entry) => entry.descriptor)
      .filter((each) => each.digest === digest);
  }

  /** What another image needs stays, and so does what a writer holds. */
  async #takeOut(digest: Digest): Promise<boolean> {
    const inventory = await this.#evictor.inventory();
    const candidate = inventory.candidates.find((each) => each.kind === 'image' && each.digest === digest);
    if (candidate === undefined) return false;
    return (await this.#evictor.evict([{ candidate, loss: inventory.take(candidate) }])).length > 0;
  }
}
