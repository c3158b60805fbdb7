import { throwIfAborted, type Digest } from '@layercache/oci';
import type { OciLayout } from '@layercache/layout';
import { choose, chooseAll, type Eviction, type Evictor } from './evictor.js';
import { isExpired } from '../entries/lifetime.js';
import type { Candidate, EvictionStrategy } from './strategy.js';

/** What no image needs is left alone for so long, in ms, as someone may be about to name it. */
export const GRACE = 3_600_000;

export interface PruneOptions {
  /** Bytes of all files of the cache that may remain: what goes is what the strategy ranks first. */
  readonly maxSize?: number | undefined;
  /** Milliseconds: what was not used for so long goes. */
  readonly unusedFor?: number | undefined;
  /** Whether what is over goes. Default true. */
  readonly expired?: boolean | undefined;
  /** Only say what would go. Default false. */
  readonly dryRun?: boolean | undefined;
  /** Default: that of the cache. */
  readonly strategy?: EvictionStrategy | undefined;
  /** Blobs and partial downloads that nothing leads to are left alone for so long, in ms. Default: an hour. */
  readonly grace?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** `size`: there was more than `maxSize`. `orphan`: nothing leads to it. `partial`: an interrupted download. */
export type PruneReason = 'expired' | 'unused' | 'size' | 'orphan' | 'partial';

export interface PrunedItem {
  readonly kind: Candidate['kind'] | 'orphan' | 'partial';
  /** Of the blob, or of the image's manifest; undefined for a partial download. */
  readonly digest: Digest | undefined;
  /** Of an image. */
  readonly names: readonly string[];
  /** Bytes on disk that went with it. */
  readonly bytes: number;
  /** Blobs and manifests that went with it. */
  readonly digests: readonly Digest[];
  readonly usedAt: Date;
  readonly reason: PruneReason;
}

export interface PruneReport {
  readonly items: readonly PrunedItem[];
  /** Bytes on disk that were freed, or would be. */
  readonly bytes: number;
  readonly dryRun: boolean;
}

/** Takes out what is over, what was not used, what nothing leads to, and then what is too much. */
export async function prune(
  layout: OciLayout,
  evictor: Evictor,
  options: PruneOptions,
): Promise<PruneReport> {
  const { maxSize, unusedFor, expired = true, dryRun = false, strategy, grace = GRACE, signal } = options;
  throwIfAborted(signal);
  const now = new Date();
  const items: PrunedItem[] = [];
  const { orphans, partials } = await evictor.leftovers(grace);
  for (const { digest, size, usedAt } of orphans)
    items.push({
      kind: 'orphan',
      digest,
      names: [],
      bytes: size,
      digests: [digest],
      usedAt,
      reason: 'orphan',
    });
  for (const { size, usedAt } of partials)
    items.push({
      kind: 'partial',
      digest: undefined,
      names: [],
      bytes: size,
      digests: [],
      usedAt,
      reason: 'partial',
    });
  if (!dryRun) {
    await layout.dropRetired(grace);
    await layout.removeOrphans({ grace });
    for (const partial of partials) await layout.removePartial(partial);
    if (expired) await untagExpired(layout, now);
  }

  const inventory = await evictor.inventory();
  const isOver = ({ expiresAt }: Candidate): boolean => expiresAt !== undefined && expiresAt <= now;
  const oldest = unusedFor === undefined ? -Infinity : now.getTime() - unusedFor;
  const ranking = evictor.rank(inventory, strategy, { now, derived: false });
  const over = expired ? chooseAll(inventory, inventory.candidates, isOver, signal) : [];
  const taken = new Set(over.map(({ candidate }) => candidate));
  const unused = chooseAll(
    inventory,
    ranking.filter((each) => !taken.has(each)),
    ({ usedAt }) => usedAt.getTime() <= oldest,
    signal,
  );
  for (const { candidate } of unused) taken.add(candidate);
  const tooMuch: Eviction[] = [];
  if (maxSize !== undefined) {
    const goal = layout.size() - maxSize - sum(dryRun ? items : []) - freed([...over, ...unused]);
    const rest = ranking.filter((each) => !taken.has(each));
    if (goal > 0) tooMuch.push(...choose(inventory, rest, { bytes: goal, entries: 0 }).plan);
  }
  const reasons: [PruneReason, Eviction[]][] = [
    ['expired', over],
    ['unused', unused],
    ['size', tooMuch],
  ];
  for (const [reason, plan] of reasons) {
    for (const { candidate, loss } of dryRun ? plan : await evictor.evict(plan)) {
      const { kind, digest, names, usedAt } = candidate;
      const digests = loss.blobs.map((blob) => blob.digest);
      items.push({ kind, digest, names, bytes: loss.bytes, digests, usedAt, reason });
    }
  }
  return { items, bytes: sum(items), dryRun };
}

/** An image that has another name keeps it. */
async function untagExpired(layout: OciLayout, now: Date): Promise<void> {
  const expired = [...layout.tags()].filter(([, { descriptor }]) => isExpired(descriptor, now));
  for (const [name, { descriptor }] of expired) {
    const others = layout
      .lookup(descriptor.digest)
      .filter((entry) => entry.descriptor.digest === descriptor.digest);
    if (others.some((entry) => !isExpired(entry.descriptor, now))) await layout.untag(name);
  }
}

function sum(items: readonly PrunedItem[]): number {
  return items.reduce((bytes, item) => bytes + item.bytes, 0);
}

function freed(plan: readonly Eviction[]): number {
  return plan.reduce((bytes, { loss }) => bytes + loss.bytes, 0);
}
