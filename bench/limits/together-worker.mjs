/**
 * One of several writers of a cache with a limit. Says what it does before and after it, a line of JSON each; ends
 * with SIGTERM, or is killed.
 */
import { randomBytes } from 'node:crypto';
import { writeSync } from 'node:fs';
import { LayerCache, costAware } from '@layercache/cache';
import { isLayercacheError, silentLogger } from '@layercache/oci';
import { MemoryRegistry } from '@layercache/registry';
import { makeImage, pushImage } from './together-image.mjs';

const { dir, id, maxSize, host } = JSON.parse(process.argv[2]);

const say = (event) => writeSync(1, `${JSON.stringify({ at: Date.now(), ...event })}\n`);
const stopping = { asked: false };
process.on('SIGTERM', () => (stopping.asked = true));

const registry = new MemoryRegistry();
const eviction = {
  rank: (candidates, context) => {
    // Who is killed from here on may have evicted what it has not told of.
    say({ op: 'evicting' });
    return costAware.rank(candidates, context);
  },
};
const logger = {
  ...silentLogger,
  debug: (fields) => {
    if (fields.message === 'evicted') say({ op: 'evicted', digest: fields.digest });
  },
};
const pick = (n) => Math.floor(Math.random() * n);

/** @returns whether it was done, and not given up for want of room */
async function told(event, work) {
  say({ op: 'begin', ...event });
  try {
    await work();
    say({ op: 'done' });
    return true;
  } catch (error) {
    // What is pinned or under way in other processes may leave no room for the moment.
    if (!isLayercacheError(error, 'CACHE_FULL', 'NOT_FOUND')) throw error;
    say({ op: 'failed', code: error.code });
    return false;
  }
}

async function add(cache, name, { pinned = false, size }) {
  const [, repository, tag] = /^[^/]+\/(.+):(.+)$/.exec(name);
  const image = makeImage(randomBytes(8).toString('hex'), size);
  await pushImage(registry, repository, tag, image);
  const done = await told({ name, digest: image.digest }, () => cache.add(name));
  if (!done || !pinned) return;
  await told({ pin: name, digest: image.digest }, () => cache.pin(name));
}

async function read(cache) {
  const layers = [...cache.layers()];
  const layer = layers[pick(layers.length)];
  if (layer === undefined) return;
  await told({ read: true }, async () => {
    for await (const bytes of await layer.uncompressed()) void bytes;
  });
}

// A tag is asked for anew each time: its digest here is what this process has just pushed.
const cache = await LayerCache.open(dir, {
  limits: { maxSize },
  eviction,
  logger,
  tagTTL: 0,
  registry: () => registry,
});
say({ op: 'ready' });
while (!stopping.asked) {
  const dice = pick(20);
  if (dice === 0) await add(cache, `${host}/pinned/w${id}:${pick(2)}`, { pinned: true, size: 4000 });
  else if (dice < 8) await add(cache, `${host}/own/w${id}:${pick(8)}`, { size: 2000 + pick(60_000) });
  else if (dice < 12) await add(cache, `${host}/shared/app:${pick(4)}`, { size: 2000 + pick(20_000) });
  else if (dice < 13) {
    const name = `${host}/own/w${id}:${pick(8)}`;
    await told({ name, digest: null }, () => cache.remove(name));
  } else if (dice < 14) {
    await told({ prune: true }, () => cache.prune());
  } else await read(cache);
}
await cache.close();
say({ op: 'closed' });
