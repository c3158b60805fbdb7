import { throwIfAborted, type Digest, type Logger } from '@layercache/oci';
import type { OciLayout, PartialFile, RoomMade, Shortage, StoredBlob } from '@layercache/layout';
import type { MetricsRecorder } from '../metrics/metrics.js';
import { ImagePartsReader } from '../share/image-parts.js';
import { Inventory, type Loss } from './inventory.js';
import type { Candidate, EvictionContext, EvictionStrategy } from './strategy.js';

/** How much more is made room for than is missing, as a part of the limit: so that not each blob looks at all. */
const AHEAD = 1 / 256;

/** How long an upload must have been idle to be worth less than what is in the cache, in ms. */
const STALE = 60_000;

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

/** Makes room in a cache. */
export class Evictor {
  readonly #layout: OciLayout;
  readonly #strategy: EvictionStrategy;
  readonly #logger: Logger;
  readonly #metrics: MetricsRecorder;
  readonly #reader: ImagePartsReader;
  readonly #ahead: number;

  /** @param maxSize bytes that the cache may have, where that is limited */
  constructor(
    layout: OciLayout,
    strategy: EvictionStrategy,
    logger: Logger,
    metrics: MetricsRecorder,
    maxSize = 0,
  ) {
    this.#layout = layout;
    this.#strategy = strategy;
    this.#logger = logger;
    this.#metrics = metrics;
    this.#reader = new ImagePartsReader(layout);
    this.#ahead = Math.floor(maxSize * AHEAD);
  }

  inventory(): Promise<Inventory> {
    return Inventory.of(this.#layout, this.#reader);
  }

  /**
   * Evicts until as much is gone, or says that it cannot and evicts nothing. What a writer holds is passed over, and
   * so may be less than wanted: whoever wants room asks again.
   */
  async makeRoom({ bytes, entries, derived }: Shortage): Promise<RoomMade> {
    if (entries === 0 && ((await this.#dropPartial()) || (await this.#layout.dropStaged(STALE))))
      return 'freed';
    const goal = { bytes, entries };
    const passedOver = new Set<Digest>();
    for (;;) {
      const inventory = await this.inventory();
      const context = { now: new Date(), derived };
      const free = inventory.candidates.filter((each) => !passedOver.has(each.digest));
      const { plan, enough } = choose(
        inventory,
        this.#strategy.rank(free, context),
        goal,
        bytes > 0 ? this.#ahead : 0,
      );
      if (!enough) return bytes > 0 && !derived && (await this.#layout.dropStaged(0)) ? 'freed' : 'busy';
      if ((await this.evict(plan)).length > 0) return 'freed';
      for (const { candidate } of plan) passedOver.add(candidate.digest);
    }
  }

  /** Takes out what was chosen. Resolves with what of it went. */
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
      const { kind, digest, names: called } = candidate;
      this.#logger.debug({ message: 'evicted', kind, digest, names: called, bytes: loss.bytes });
      this.#metrics.count('evictions');
      this.#metrics.count('bytesEvicted', loss.bytes);
    }
    return done;
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
    return [...(strategy ?? this.#strategy).rank(inventory.candidates, context)];
  }
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
