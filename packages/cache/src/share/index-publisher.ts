import { isLayercacheError, type Digest, type Logger } from '@layercache/oci';
import type { CacheIndex } from './cache-index.js';
import type { Clock } from './clock.js';
import { isRefused, type PendingTags } from './pending-tags.js';
import { pushManifest, saysUnknown } from './push-manifest.js';
import type { CacheLocation, PendingIndex, RemoteCache } from './remote-cache.js';
import type { ReadIndex } from './index-reader.js';
import { contains, stateOf, type SharedState } from './shared-state.js';
import { watchedTag } from './watched-tag.js';

export interface PublisherContext {
  readonly location: CacheLocation;
  readonly pendingTags: PendingTags;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** How an index is published, once it is known what the location has. */
export interface PublishOptions {
  /** When the location was read, by the clock. */
  readonly looked: number;
  /** Whether the index leaves out what others list, on purpose: then it replaces those that do. */
  readonly removes: boolean;
  readonly signal: AbortSignal | undefined;
}

/**
 * Milliseconds, at least. Where there are no pending tags, a writer who looked at the tag before this one wrote may
 * still write over it; by the end of this time it has, and it shows.
 */
const SETTLE = 300;
/** Milliseconds. Whoever writes the tag alone has looked at it so recently: well below the time others wait. */
const FRESH = SETTLE / 3;

/**
 * Makes a cache index what a location has (docs/architecture.md, "Concurrent pushes"): under a pending tag of its own
 * first, which nobody writes over, then under the tag itself. Where the registry lists or removes no tags, the tag
 * alone is written, and looked at again after a time.
 */
export class IndexPublisher {
  readonly #context: PublisherContext;
  /** The registry does not list tags, or does not remove them. */
  #isAlone = false;
  /** The pending tag that was written last, and was not listed after that. */
  #unseen: string | undefined;
  #hasBeenSeen = false;
  /** The tag itself was written, and not looked at since for as long as others may write over it. */
  #isUnsettled = false;
  readonly #overwritten = new Set<Digest>();
  /** Milliseconds that the slowest write of the tag alone took, from the last look at it. */
  #slowest = 0;

  constructor(context: PublisherContext) {
    this.#context = context;
  }

  /** Cache indexes that stood under the tag while it was written alone: what they list is to be united, too. */
  get overwritten(): ReadonlySet<Digest> {
    return this.#overwritten;
  }

  /** Whether something that was published is sure to stay, whatever others do. */
  get isSafe(): boolean {
    return this.#hasBeenSeen;
  }

  /**
   * @param remote what the location had when it was read, all of which is in the index
   * @returns whether the location has the index. If not, it is to be read and united again.
   */
  async publish(
    index: CacheIndex,
    remote: RemoteCache | undefined,
    options: PublishOptions,
  ): Promise<boolean> {
    if (!this.#isAlone) this.#isAlone = await this.#mustBeAlone(index, remote, options);
    const tag = this.#context.pendingTags.nameOf(index.descriptor.digest);
    if (this.#isAlone) {
      const isDone = await this.#publishAlone(index, remote, options);
      if (isDone && options.removes && remote !== undefined)
        await this.#removeOthers(index, tag, remote, options);
      return isDone;
    }
    const isMain = remote?.main?.descriptor.digest === index.descriptor.digest;
    if (remote?.pending.some((pending) => pending.tag === tag) === true) {
      this.#hasBeenSeen = true;
      if (isMain) {
        await this.#removeOthers(index, tag, remote, options);
        return true;
      }
    } else if (!(await this.#putPending(index, tag, options))) {
      this.#isAlone = true;
      return this.publish(index, remote, options);
    }
    if (!isMain) {
      this.#isUnsettled = true;
      await this.#put(index, this.#context.location.tag, options);
    }
    return false;
  }

  /** Writes the pending tag, unless the registry takes none. */
  async #putPending(index: CacheIndex, tag: string, options: PublishOptions): Promise<boolean> {
    try {
      await this.#put(index, tag, options);
    } catch (error) {
      if (!isRefused(error) || saysUnknown(error) || isLayercacheError(error, 'UNAUTHORIZED')) throw error;
      this.#context.logger.debug({ message: 'pending tag refused', tag, error: error.message });
      return false;
    }
    this.#unseen = tag;
    return true;
  }

  async #mustBeAlone(
    { descriptor }: CacheIndex,
    remote: RemoteCache | undefined,
    { signal }: PublishOptions,
  ): Promise<boolean> {
    const { pendingTags } = this.#context;
    if (remote === undefined) return false;
    const tag = pendingTags.nameOf(descriptor.digest);
    const isListed = remote.pending.some((pending) => pending.tag === tag);
    if (!remote.lists || (this.#unseen === tag && !isListed && (await pendingTags.has(tag, signal)))) {
      // It was written all the same, when nothing was known of this registry.
      if (this.#unseen !== undefined) await pendingTags.remove(this.#unseen, descriptor.digest, signal);
      return true;
    }
    if (isListed || remote.pending.length < 2) return false;
    // Left over by a push that did not get so far as to remove it; or nothing can be removed here.
    const states = remote.pending.map(({ index }) => stateOf(index));
    const superseded = remote.pending.find((_, n) => isSuperseded(states, n));
    return superseded !== undefined && !(await this.#remove(superseded, signal));
  }

  async #removeOthers(
    index: CacheIndex,
    tag: string,
    remote: RemoteCache,
    { removes, signal }: PublishOptions,
  ): Promise<void> {
    const others = remote.pending.filter((pending) => pending.tag !== tag);
    if (others.length === 0) return;
    const state = stateOf({ entries: index.shards.flatMap((shard) => shard.entries), images: index.images });
    for (const pending of others) {
      if (!removes && !replaces(index, state, pending.index)) continue;
      if ((await this.#remove(pending, signal)) || !removes) continue;
      // A pending tag that does not name what it says stands for nothing.
      await this.#put(index, pending.tag, { signal });
    }
  }

  async #remove({ tag, index }: PendingIndex, signal: AbortSignal | undefined): Promise<boolean> {
    const isGone = await this.#context.pendingTags.remove(tag, index.descriptor.digest, signal);
    if (!isGone) this.#context.logger.debug({ message: 'pending tag not removed', tag });
    return isGone;
  }

  /** Moves the tag, unless somebody else has since it was read. True when it stayed moved. */
  async #publishAlone(
    index: CacheIndex,
    remote: RemoteCache | undefined,
    { looked, signal }: PublishOptions,
  ): Promise<boolean> {
    const { clock, location } = this.#context;
    const before = remote?.main?.descriptor.digest;
    const after = index.descriptor.digest;
    if (before === after) {
      if (this.#isUnsettled && !(await this.#settles(after, signal))) return false;
      return true;
    }
    let seen = looked;
    // That there is nothing is believed when it is seen twice: what is there would be lost.
    if (before === undefined || clock.now() - seen > FRESH) {
      seen = clock.now();
      if ((await this.#tagged(signal)) !== before) return false;
    }
    const put = this.#put(index, location.tag, { signal });
    const others = await watchedTag(put, { look: () => this.#tagged(signal), clock });
    const overwritten = others.filter((digest) => digest !== before && digest !== after);
    this.#slowest = Math.max(this.#slowest, clock.now() - seen);
    if (overwritten.length > 0) {
      for (const digest of overwritten) this.#overwritten.add(digest);
      return false;
    }
    return this.#settles(after, signal);
  }

  /** Waits for as long as others may write over the tag, and says whether it still means the same. */
  async #settles(digest: Digest, signal: AbortSignal | undefined): Promise<boolean> {
    await this.#context.clock.sleep(Math.max(SETTLE, 4 * this.#slowest), signal);
    this.#isUnsettled = false;
    return (await this.#tagged(signal)) === digest;
  }

  #put(index: CacheIndex, tag: string, { signal }: Pick<PublishOptions, 'signal'>): Promise<void> {
    const { registry, repository } = this.#context.location;
    return pushManifest(registry, repository, index, { tag, signal });
  }

  async #tagged(signal: AbortSignal | undefined): Promise<Digest | undefined> {
    const { registry, repository, tag } = this.#context.location;
    try {
      return (await registry.resolve(repository, tag, { signal })).digest;
    } catch (error) {
      if (isLayercacheError(error, 'NOT_FOUND')) return undefined;
      throw error;
    }
  }
}

/**
 * Whether a pending index is not needed beside another one. Where both say the same in other bytes, the greater digest
 * stays, so that two machines never remove each other's.
 */
function replaces({ descriptor }: CacheIndex, state: SharedState, other: ReadIndex): boolean {
  const theirs = stateOf(other);
  if (!contains(state, theirs)) return false;
  return other.lost.length > 0 || !contains(theirs, state) || other.descriptor.digest < descriptor.digest;
}

/** Whether another pending index contains the one at this place: indexes are told apart by digest, so never each the other. */
function isSuperseded(states: readonly SharedState[], place: number): boolean {
  const state = states[place];
  return (
    state !== undefined &&
    states.some((other, n) => n !== place && contains(other, state) && !contains(state, other))
  );
}
