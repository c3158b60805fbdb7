// An order of one's own in which things leave a cache that is full: what CI made of branches goes first, however
// lately it was used, and releases go last. A strategy ranks; limits, pins, shared layers and readers of other
// processes are the cache's business.
//
//   node examples/custom-eviction.mjs
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { LayerCache, costAware } from '@layercache/cache';
import { kilobytes, startRegistry } from './embedded-registry.mjs';

const branchesFirst = {
  name: 'branches-first',
  rank(candidates, context) {
    const isBranch = ({ names }) => names.length > 0 && names.every((name) => name.includes(':branch-'));
    const ranked = [...costAware.rank(candidates, context)];
    return [...ranked.filter(isBranch), ...ranked.filter((each) => !isBranch(each))];
  },
};

const LIMIT = 3_000_000;
const dir = await mkdtemp(join(tmpdir(), 'custom-eviction-'));
const registry = await startRegistry();
try {
  const cache = await LayerCache.open(join(dir, 'cache'), {
    limits: { maxSize: LIMIT },
    eviction: branchesFirst,
  });
  const tags = ['release-1', 'branch-a', 'release-2', 'branch-b', 'release-3', 'branch-c', 'release-4'];
  for (const tag of tags) {
    await mkdir(join(dir, tag));
    await writeFile(join(dir, tag, 'program'), randomBytes(500_000));
    await registry.pushImage(`team/app:${tag}`, dir, [tag]);
    await cache.add(`${registry.host}/team/app:${tag}`);
    if (tag === 'branch-a') await cache.pin(`${registry.host}/team/app:${tag}`);
    const { disk } = await cache.stats();
    console.log(`${tag.padEnd(10)} added: ${kilobytes(disk.total)} of ${kilobytes(LIMIT)}`);
    assert.ok(disk.total <= LIMIT);
  }
  const left = [...cache.images()].map(({ name }) => name.slice(name.lastIndexOf(':') + 1)).sort();
  console.log(`left: ${left.join(', ')}`);
  const releases = tags.filter((tag) => tag.startsWith('release-'));
  assert.deepEqual(left, ['branch-a', ...releases], 'branches went, but for the one that is pinned');
  await cache.close();
} finally {
  await registry.close();
  await rm(dir, { recursive: true });
}
