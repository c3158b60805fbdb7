import { writeSync } from 'node:fs';
import { isLayercacheError } from '@layercache/oci';
import { LayerCache } from '../../../src/index.js';
import { bytesOf } from '../../test-cache.js';

/**
 * One process of several that use a cache at the same time, until it is told to stop, or is killed. What it did goes
 * to stdout, a line each: `added NAME`, `gone DIGEST`, `read`, `missed`.
 */
const [role = '', dir = '', host = '', seed = '0', count = '0', maxSize = ''] = process.argv.slice(2);

let random = Number(seed) + 1;
/** Numbers below `n`, the small ones more often. */
function pick(n: number): number {
  random = (random * 48_271) % 2_147_483_647;
  const fraction = random / 2_147_483_647;
  return Math.floor(n * fraction * fraction);
}

const say = (line: string): void => {
  writeSync(1, `${line}\n`);
};

const stopping = { asked: false };
process.on('SIGTERM', () => (stopping.asked = true));

const roles: Readonly<Record<string, (cache: LayerCache) => Promise<void>>> = {
  async write(cache) {
    const name = `${host}/r/app:${pick(Number(count))}`;
    try {
      await cache.add(name);
      say(`added ${name}`);
    } catch (error) {
      // Others hold what would have to go.
      if (!isLayercacheError(error, 'CACHE_FULL')) throw error;
      say('full');
    }
  },

  async read(cache) {
    const layers = [...cache.layers()];
    const layer = layers[pick(layers.length)];
    if (layer === undefined) {
      await new Promise((resolve) => setTimeout(resolve, 1));
      return;
    }
    let stream;
    try {
      stream = await (pick(10) < 4 ? layer.uncompressed() : layer.compressed());
    } catch (error) {
      if (!isLayercacheError(error, 'NOT_FOUND')) throw error;
      say('missed');
      return;
    }
    await bytesOf(stream);
    say('read');
  },

  async prune(cache) {
    const { items } = await cache.prune({ maxSize: 400_000 });
    for (const { digests } of items) for (const digest of digests) say(`gone ${digest}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  },
};

const cache = await LayerCache.open(dir, maxSize === '' ? {} : { limits: { maxSize: Number(maxSize) } });
say('ready');
while (!stopping.asked) await roles[role]?.(cache);
await cache.close();
