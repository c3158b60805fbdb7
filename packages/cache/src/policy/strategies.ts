import { LayercacheError } from '@layercache/oci';
import type { Candidate, EvictionContext, EvictionStrategy } from './strategy.js';

type Order = (a: Candidate, b: Candidate) => number;

const byLastUse: Order = (a, b) => a.usedAt.getTime() - b.usedAt.getTime();
const bySize: Order = (a, b) => b.bytes - a.bytes;
const byExpiry: Order = (a, b) => expiry(a) - expiry(b);

function expiry({ expiresAt }: Candidate): number {
  return expiresAt?.getTime() ?? Infinity;
}

/** `Infinity - Infinity` is no order. */
function compare(order: Order, a: Candidate, b: Candidate): number {
  const result = order(a, b);
  return Number.isNaN(result) ? 0 : result;
}

function sorted(candidates: readonly Candidate[], ...orders: readonly Order[]): Candidate[] {
  return [...candidates].sort((a, b) => {
    for (const order of orders) {
      const result = compare(order, a, b);
      if (result !== 0) return result;
    }
    return a.digest < b.digest ? -1 : 1;
  });
}

/** How dear it is to lose: what is over, what a decompression brings back, what only the network brings back. */
const byCost =
  ({ now }: EvictionContext): Order =>
  (a, b) =>
    cost(a, now) - cost(b, now);

function cost(candidate: Candidate, now: Date): number {
  if (expiry(candidate) <= now.getTime()) return 0;
  if (candidate.kind === 'tar') return 1;
  return candidate.kind === 'layer-index' ? 2 : 3;
}

/**
 * The default. What is over goes first; then what can be rebuilt from what remains: tars, then layer indexes; then
 * whole images and blobs of none. Within each, what was used least lately. Nothing that would have to come from the
 * network goes for what can be rebuilt.
 */
export const costAware: EvictionStrategy = {
  name: 'cost-aware',
  rank: (candidates, context) => {
    const able = context.derived
      ? candidates.filter((each) => each.rebuildable || expiry(each) <= context.now.getTime())
      : candidates;
    return sorted(able, byCost(context), byLastUse);
  },
};

/** What was used least lately goes first, whatever it is. */
export const lru: EvictionStrategy = { name: 'lru', rank: (candidates) => sorted(candidates, byLastUse) };

/** What expires first goes first; what never does goes last. */
export const ttl: EvictionStrategy = {
  name: 'ttl',
  rank: (candidates) => sorted(candidates, byExpiry, byLastUse),
};

/** What is largest goes first. */
export const size: EvictionStrategy = {
  name: 'size',
  rank: (candidates) => sorted(candidates, bySize, byLastUse),
};

/**
 * Several orders at once: what stands, on the weighted average, first in all of them goes first. A candidate that one
 * of them leaves out stays.
 */
export function composite(
  parts: readonly { readonly strategy: EvictionStrategy; readonly weight?: number }[],
): EvictionStrategy {
  if (parts.length === 0) throw new LayercacheError('USAGE', 'a composite strategy needs at least one part');
  return {
    name: `composite(${parts.map(({ strategy }) => strategy.name).join(', ')})`,
    rank: (candidates, context) => {
      const places = new Map<Candidate, number>(candidates.map((each) => [each, 0]));
      for (const { strategy, weight = 1 } of parts) {
        const ranked = new Set(strategy.rank(candidates, context));
        let place = 0;
        for (const each of ranked) places.set(each, (places.get(each) ?? 0) + weight * place++);
        for (const each of candidates) if (!ranked.has(each)) places.delete(each);
      }
      return [...places].sort(([, a], [, b]) => a - b).map(([candidate]) => candidate);
    },
  };
}

/** The strategies that have a name, as the command line takes them. */
export const strategies: Readonly<Record<string, EvictionStrategy>> = {
  'cost-aware': costAware,
  lru,
  ttl,
  size,
  composite: composite([{ strategy: costAware, weight: 2 }, { strategy: lru }, { strategy: size }]),
};

/** @throws LayercacheError `USAGE` */
export function strategyNamed(name: string): EvictionStrategy {
  const found = Object.hasOwn(strategies, name) ? strategies[name] : undefined;
  if (found !== undefined) return found;
  throw new LayercacheError(
    'USAGE',
    `there is no eviction strategy "${name}"; choose one of ${Object.keys(strategies).join(', ')}`,
  );
}
