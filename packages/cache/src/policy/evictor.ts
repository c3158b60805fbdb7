import { throwIfAborted, type Digest, type Logger } from '@layercache/oci';
import type { OciLayout, PartialFile, RoomMade, Shortage, StoredBlob } from '@layercache/layout';
import type { MetricsRecorder } from '../metrics/metrics.js';
import { ImageGraph } from '../images/image-graph.js';
import { Inventory, type Loss } from './inventory.js';
import { unreferencedBlobs } from './unreferenced.js';
import type { Candidate, EvictionContext, EvictionStrategy } from './strategy.js';

/** How much more is made room for than is missing, as a part of the limit: so that not each blob looks at all. */
const AHEAD = 1 / 256;

/** How long an upload must have been idle to be worth less than what is in the cache, in ms. */
const STALE = 60_000;

/** How long a blob must have been unreferenced and idle to go before anything that is cached, in ms. */
const ABANDONED = 600_000;

/** One thing that was evicted. */
export interface EvictedItem {
  /** `orphan`: a blob that nothing refers to. */
  readonly kind: Candidate['kind'] | 'orphan';
  /** Of the blob, or of the image's manifest. */
  readonly digest: Digest;
  /** Of an image. */
  readonly names: readonly string[];
  /** Bytes on disk that went with it. */
  readonly bytes: number;
}

/** What to take out, and how much of it. */
export interface EvictionGoal {
  /** Bytes that have to go. */
  readonly bytes: number;
  /** Entries that have to go. */
  readonly entries: number;
}

/** A candidate, and what went with it. */
export interface Eviction {
  readonly candidate: Candidate;
  readonly loss: Loss;
}

export interface EvictorContext {
  readonly layout: OciLayout;
  readonly strategy: EvictionStrategy;
  readonly logger: Logger;
  readonly metrics: MetricsRecorder;
  /** Bytes that the cache may have, where that is limited. */
  readonly maxSize?: number | undefined;
  readonly onEvicted?: ((item: EvictedItem) => void) | undefined;
}

/** Makes room in a cache. */
export class Evictor {
  readonly #layout: OciLayout;
  readonly #strategy: EvictionStrategy;
  readonly #logger: Logger;
  readonly #metrics: MetricsRecorder;
  readonly #graph: ImageGraph;
  readonly #ahead: number;

  /** When to look for abandoned blobs again, in ms since 1970: to look costs a walk over all blobs. */
  #nextLook = 0;
  readonly #onEvicted: (item: EvictedItem) => void;

  constructor(context: EvictorContext) {
    const { layout, strategy, logger, metrics, maxSize = 0, onEvicted = () => undefined } = context;
    this.#onEvicted = onEvicted;
    this.#layout = layout;
    this.#strategy = strategy;
    this.#logger = logger;
    this.#metrics = metrics;
    this.#graph = new ImageGraph(layout);
    this.#ahead = Math.floor(maxSize * AHEAD);
  }

  inventory(): Promise<Inventory> {
    return Inventory.of(this.#layout, this.#graph);
  }

  /**
   * Evicts until as much is gone, or says that it cannot and evicts nothing. Blobs that a writer holds are passed over,
   * so that less than wanted may go: the caller asks again.
   *
   * @throws LayercacheError `STORAGE` when it cannot be told what an image needs: then nothing is evicted
   */
  async makeRoom({ bytes, entries, derived }: Shortage): Promise<RoomMade> {
    if (entries === 0 && (await this.#dropAbandoned(bytes))) return 'freed';
    const goal = { bytes, entries };
    const passedOver = new Set<Digest>();
    for (;;) {
      const inventory = await this.inventory();
      const context = { now: new Date(), derived };
      const free = inventory.candidates.filter((each) => !passedOver.has(each.digest));
      const ranking =
        bytes > 0 ? this.#byBytes(inventory, free, context) : this.#strategy.rank(free, context);
      const { plan, enough } = choose(inventory, ranking, goal, bytes > 0 ? this.#ahead : 0);
      if (!enough) return bytes > 0 && !derived && (await this.#dropLastResort(bytes)) ? 'freed' : 'busy';
      const evicted = await this.evict(plan);
      for (const { candidate, loss } of evicted) this.#onEvicted({ ...itemOf(candidate), bytes: loss.bytes });
      if (evicted.length > 0) return 'freed';
      for (const { candidate } of plan) passedOver.add(candidate.digest);
    }
  }

  /**
   * The order in which candidates go where bytes are wanted: an image whose contents are elsewhere frees next to nothing
   * and is forgotten last, and one that has nothing here stays.
   */
  *#byBytes(
    inventory: Inventory,
    candidates: readonly Candidate[],
    context: EvictionContext,
    strategy = this.#strategy,
  ): Generator<Candidate> {
    const here = candidates.filter((each) => !inventory.isElsewhere(each));
    yield* strategy.rank(here, context);
    const remote = candidates.filter((each) => inventory.isElsewhere(each) && !inventory.isAbsent(each));
    if (remote.length > 0) yield* strategy.rank(remote, context);
  }

  /** Former cache indexes, and what was begun and nobody goes on with: worth less than anything that is cached. */
  async #dropAbandoned(bytes: number): Promise<boolean> {
    if (await this.#layout.dropRetired()) return true;
    if (await this.#dropPartial()) return true;
    if (await this.#layout.dropStaged(STALE)) return true;
    if (Date.now() < this.#nextLook) return false;
    if (await this.#dropUnreferenced(bytes, ABANDONED)) return true;
    this.#nextLook = Date.now() + STALE;
    return false;
  }

  /** Uploads that may still go on, when nothing else is left: a client can send them again. */
  async #dropLastResort(bytes: number): Promise<boolean> {
    return (await this.#dropUnreferenced(bytes, STALE)) || (await this.#layout.dropStaged(0));
  }

  /**
   * Removes unreferenced blobs, the oldest first, until as many bytes are free.
   *
   * @param idle ms that a blob must not have been written or read for
   */
  async #dropUnreferenced(bytes: number, idle: number): Promise<boolean> {
    const old = (await unreferencedBlobs(this.#layout, this.#graph))
      .filter(({ usedAt }) => Date.now() - usedAt.getTime() >= idle)
      .sort((a, b) => a.usedAt.getTime() - b.usedAt.getTime());
    const chosen: StoredBlob[] = [];
    let size = 0;
    for (const blob of old) {
      if (size >= bytes) break;
      chosen.push(blob);
      size += blob.size;
    }
    if (chosen.length === 0) return false;
    const gone = new Set(await this.#layout.removeUnlisted(chosen));
    for (const { digest, size: freed } of chosen) {
      if (!gone.has(digest)) continue;
      const item = { kind: 'orphan', digest, names: [], bytes: freed } as const;
      this.#note(item);
      this.#onEvicted(item);
    }
    return gone.size > 0;
  }

  /** Evicts what was chosen. Resolves with what of it went. */
  async evict(plan: readonly Eviction[]): Promise<Eviction[]> {
    const blobs = plan.flatMap(({ loss }) => loss.blobs);
    const names = plan.flatMap(({ loss }) => loss.names);
    const gone = new Set(await this.#layout.evict(blobs, names));
    const done = plan.flatMap(({ candidate, loss }) => {
      const went = loss.blobs.filter(({ digest }) => gone.has(digest));
      if (went.length === 0 && loss.names.length === 0) return [];
      const bytes = went.reduce((sum, { size }) => sum + size, 0);
      return [{ candidate, loss: { ...loss, blobs: went, bytes } }];
    });
    for (const { candidate, loss } of done) {
      this.#note({ ...itemOf(candidate), bytes: loss.bytes });
    }
    return done;
  }

  #note(item: EvictedItem): void {
    this.#logger.info({ message: 'evicted', ...item });
    this.#metrics.count('evictions');
    this.#metrics.count('bytesEvicted', item.bytes);
  }

  /** The beginning of a download that nobody goes on with is worth least. One at a time. */
  async #dropPartial(): Promise<boolean> {
    const [oldest] = this.#layout.partialFiles().sort((a, b) => a.usedAt.getTime() - b.usedAt.getTime());
    return oldest !== undefined && (await this.#layout.removePartial(oldest));
  }

  /** What nothing leads to, and has not been written lately. */
  async leftovers(grace: number): Promise<{ orphans: StoredBlob[]; partials: PartialFile[] }> {
    const old = ({ usedAt }: { readonly usedAt: Date }): boolean => Date.now() - usedAt.getTime() >= grace;
    return {
      orphans: await this.#layout.orphans({ grace }),
      partials: this.#layout.partialFiles().filter(old),
    };
  }

  rank(inventory: Inventory, strategy: EvictionStrategy | undefined, context: EvictionContext): Candidate[] {
    return [...this.#byBytes(inventory, inventory.candidates, context, strategy)];
  }
}

function itemOf({ kind, digest, names }: Candidate): Omit<EvictedItem, 'bytes'> {
  return { kind, digest, names };
}

/**
 * The first of a ranking that together free as much as is wanted, or all of it when that is not enough.
 *
 * @param ahead bytes that may go on top, if there is as much
 */
export function choose(
  inventory: Inventory,
  ranking: Iterable<Candidate>,
  goal: EvictionGoal,
  ahead = 0,
): { readonly plan: Eviction[]; readonly enough: boolean } {
  const plan: Eviction[] = [];
  let bytes = 0;
  let entries = 0;
  const enough = (more: number): boolean => bytes >= goal.bytes + more && entries >= goal.entries;
  for (const candidate of ranking) {
    if (enough(ahead)) break;
    const loss = inventory.take(candidate);
    plan.push({ candidate, loss });
    bytes += loss.bytes;
    entries += loss.entries;
  }
  return { plan, enough: enough(0) };
}

/** Fails when whoever waits has given up; else chooses all that a condition holds for. */
export function chooseAll(
  inventory: Inventory,
  ranking: Iterable<Candidate>,
  condition: (candidate: Candidate) => boolean,
  signal: AbortSignal | undefined,
): Eviction[] {
  const plan: Eviction[] = [];
  for (const candidate of ranking) {
    throwIfAborted(signal);
    if (condition(candidate)) plan.push({ candidate, loss: inventory.take(candidate) });
  }
  return plan;
}
