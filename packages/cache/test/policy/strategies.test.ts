import { expect } from 'chai';
import { digestOf } from '@layercache/oci';
import {
  composite,
  costAware,
  lru,
  size,
  strategyNamed,
  ttl,
  type Candidate,
  type EvictionStrategy,
} from '../../src/index.js';
import { failure } from '../test-cache.js';

const NOW = new Date('2026-01-10T00:00:00Z');

function candidate(name: string, over: Partial<Candidate> = {}): Candidate {
  return {
    kind: 'image',
    digest: digestOf(name),
    names: [name],
    bytes: 100,
    usedAt: new Date('2026-01-05T00:00:00Z'),
    expiresAt: undefined,
    rebuildable: false,
    ...over,
  };
}

const tar = candidate('tar', { kind: 'tar', rebuildable: true, usedAt: new Date('2026-01-09T00:00:00Z') });
const index = candidate('index', { kind: 'layer-index', rebuildable: true, bytes: 5 });
const old = candidate('old', { usedAt: new Date('2026-01-01T00:00:00Z'), bytes: 10 });
const large = candidate('large', { bytes: 1000, usedAt: new Date('2026-01-06T00:00:00Z') });
const soon = candidate('soon', {
  expiresAt: new Date('2026-01-11T00:00:00Z'),
  usedAt: new Date('2026-01-07T00:00:00Z'),
});
const over = candidate('over', {
  expiresAt: new Date('2026-01-09T00:00:00Z'),
  usedAt: new Date('2026-01-08T00:00:00Z'),
});
const all = [large, soon, index, over, tar, old];

function ranked(strategy: EvictionStrategy, derived = false): string[] {
  return [...strategy.rank(all, { now: NOW, derived })].map(({ names }) => names[0] ?? '');
}

describe('eviction strategies', () => {
  it('cost-aware: what is over, what can be rebuilt, then what was used least lately', () => {
    expect(ranked(costAware)).to.deep.equal(['over', 'tar', 'index', 'old', 'large', 'soon']);
  });

  it('cost-aware: nothing that costs the network goes for what can be rebuilt', () => {
    expect(ranked(costAware, true)).to.deep.equal(['over', 'tar', 'index']);
  });

  it('lru: what was used least lately', () => {
    expect(ranked(lru)).to.deep.equal(['old', 'index', 'large', 'soon', 'over', 'tar']);
  });

  it('ttl: what is over first, what never is last', () => {
    expect(ranked(ttl)).to.deep.equal(['over', 'soon', 'old', 'index', 'large', 'tar']);
  });

  it('size: what is largest', () => {
    expect(ranked(size)).to.deep.equal(['large', 'soon', 'over', 'tar', 'old', 'index']);
  });

  it('composite: the weighted average of places; what one leaves out stays', () => {
    const both = composite([{ strategy: lru }, { strategy: size }]);
    expect(ranked(both)[0]).to.equal('large');
    expect(ranked(composite([{ strategy: lru, weight: 100 }, { strategy: size }]))).to.deep.equal(
      ranked(lru),
    );
    const some: EvictionStrategy = { name: 'some', rank: () => [tar, old] };
    expect(ranked(composite([{ strategy: lru }, { strategy: some }])).sort()).to.deep.equal(['old', 'tar']);
    expect(() => composite([])).to.throw('at least one');
  });

  it('have names', async () => {
    for (const name of ['cost-aware', 'lru', 'ttl', 'size', 'composite']) {
      expect([...strategyNamed(name).rank(all, { now: NOW, derived: false })]).to.have.members(all);
    }
    await failure('USAGE', () => strategyNamed('toString'));
  });
});
