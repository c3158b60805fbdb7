import { cp, mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import pLimit from 'p-limit';
import { LayercacheError, digestHex, isLayercacheError } from '@layercache/oci';
import { MemoryRegistry, type Registry } from '@layercache/registry';
import { LayerCache, type LayerCacheOptions } from '../src/index.js';
import { Dead, FAULTS, FaultyDisk, type Fault } from './faulty-disk.js';
import { imageOf, layerOf, pushImage, tarOf, type BuiltImage, type BuiltLayer } from './image-builder.js';
import { bytesOf } from './test-cache.js';

const TARGET = 'registry.test/team/cache:main';
const nameOf = (image: keyof typeof IMAGES): string => `registry.test/app/${image}:1`;

/** Layers that do not compress, and are the same in each run. */
function someLayer(seed: number, size = 3000): BuiltLayer {
  let state = seed;
  const bytes = Uint8Array.from({ length: size }, () => {
    state = (state * 48_271) % 2_147_483_647;
    return state & 255;
  });
  return layerOf(tarOf({ [`file-${seed}`]: bytes }));
}

const base = someLayer(1);
const IMAGES = {
  /** Pinned. */
  kept: imageOf([base, someLayer(2)]),
  /** What goes first. */
  old: imageOf([base, someLayer(3, 70_000)]),
  /** Comes while something fails. */
  fresh: imageOf([base, someLayer(4, 70_000)]),
  /** In the shared cache. */
  theirs: imageOf([someLayer(5), someLayer(6)]),
};
const damaged = IMAGES.old.layers[1]!;

interface World {
  readonly dir: string;
  readonly registry: Registry;
}

interface Action {
  /** Whether it can be that `old` is gone afterwards. */
  readonly takesOld?: boolean;
  /** Whether each run needs a registry of its own. */
  readonly writesRemote?: boolean;
  readonly options?: LayerCacheOptions;
  readonly before?: (world: World) => Promise<void>;
  readonly run: (cache: LayerCache) => Promise<unknown>;
  /** What must be so when it has resolved. */
  readonly after?: (cache: LayerCache, world: World) => Promise<void>;
  /** What must be so in any case. */
  readonly always?: (world: World, resolved: boolean) => Promise<void>;
}

const noNetwork: LayerCacheOptions = {
  registry: () => {
    throw new LayercacheError('NETWORK', 'there is no network');
  },
};

const ACTIONS: Readonly<Record<string, Action>> = {
  'verify --repair': {
    before: async ({ dir }) => {
      const path = join(dir, 'blobs/sha256', digestHex(damaged.descriptor.digest));
      const bytes = await readFile(path);
      bytes[100]! ^= 1;
      await writeFile(path, bytes);
    },
    run: (cache) => cache.verify({ repair: true, grace: 0 }),
    always: async ({ dir, registry }) => {
      await using cache = await LayerCache.open(dir, { registry: () => registry });
      // Where it came from is known, whatever became of its bytes.
      await cache.verify({ repair: true, grace: 0 });
      await expectWhole(cache, 'old');
      await expectWhole(cache, 'kept');
    },
  },
  'verify --repair of a truncated blob': {
    before: ({ dir }) => truncate(join(dir, 'blobs/sha256', digestHex(damaged.descriptor.digest)), 100),
    run: (cache) => cache.verify({ repair: true, grace: 0 }),
    always: async ({ dir, registry }) => {
      await using cache = await LayerCache.open(dir, { registry: () => registry });
      await expectNothingFalse(cache, IMAGES.old);
      await expectWhole(cache, 'old');
      await expectWhole(cache, 'kept');
    },
  },
  eviction: {
    takesOld: true,
    options: { limits: { maxSize: 140_000 } },
    run: (cache) => cache.add(nameOf('fresh')),
    after: (cache) => expectWhole(cache, 'fresh'),
  },
  prune: {
    takesOld: true,
    run: (cache) => cache.prune({ maxSize: 1, grace: 0 }),
    after: async (cache) => {
      expect([...cache.images()].map(({ name }) => name)).to.deep.equal([nameOf('kept')]);
      return Promise.resolve();
    },
  },
  pull: {
    run: (cache) => cache.pull(TARGET),
    after: (cache) => expectWhole(cache, 'theirs'),
  },
  push: {
    writesRemote: true,
    run: (cache) => cache.push(TARGET),
    always: async ({ registry }, resolved) => {
      const dir = await mkdtemp(join(tmpdir(), 'layercache-faults-'));
      try {
        await using puller = await LayerCache.open(join(dir, 'cache'), { registry: () => registry });
        await puller.pull(TARGET, { names: 'trust' });
        await expectWhole(puller, 'theirs');
        if (resolved) for (const image of ['kept', 'old'] as const) await expectWhole(puller, image);
      } finally {
        await rm(dir, { recursive: true });
      }
    },
  },
};

/** Every byte of an image, by every name that its layers have. */
async function expectWhole(cache: LayerCache, name: keyof typeof IMAGES): Promise<void> {
  const image = IMAGES[name];
  expect(cache.image(nameOf(name)).digest, name).to.equal(image.descriptor.digest);
  expect(await bytesOf(cache.blob(image.descriptor.digest))).to.deep.equal(Buffer.from(image.bytes));
  expect(await bytesOf(cache.blob(image.config.descriptor.digest))).to.deep.equal(
    Buffer.from(image.config.bytes),
  );
  for (const layer of image.layers) {
    expect(await bytesOf(cache.layer(layer.descriptor.digest).compressed())).to.deep.equal(layer.bytes);
    const tar = await bytesOf(cache.layer(layer.diffID).uncompressed({ keep: false }));
    expect(tar.equals(layer.tar), 'tar').to.equal(true);
  }
}

/** Whatever is handed out for the layers of an image is what its name says. */
async function expectNothingFalse(cache: LayerCache, image: BuiltImage): Promise<void> {
  for (const layer of image.layers) {
    for (const [key, wanted] of [
      [layer.descriptor.digest, layer.bytes],
      [layer.diffID, layer.tar],
    ] as const) {
      const read = async (): Promise<Buffer> => {
        const found = cache.layer(key);
        return bytesOf(wanted === layer.tar ? found.uncompressed({ keep: false }) : found.compressed());
      };
      const bytes = await read().catch((error: unknown) => {
        if (!isLayercacheError(error)) throw error;
        return undefined;
      });
      if (bytes !== undefined) expect(bytes.equals(wanted), `bytes of ${key}`).to.equal(true);
    }
  }
}

async function registryWithAll(): Promise<Registry> {
  const registry = new MemoryRegistry();
  for (const [name, image] of Object.entries(IMAGES)) await pushImage(registry, `app/${name}`, '1', image);
  return registry;
}

/** A shared cache with an image of somebody else's. */
async function shareTheirs(registry: Registry, dir: string): Promise<void> {
  await using cache = await LayerCache.open(dir, { registry: () => registry });
  await cache.add(nameOf('theirs'));
  await cache.push(TARGET);
}

async function prepare(dir: string, registry: Registry): Promise<void> {
  await using cache = await LayerCache.open(dir, { registry: () => registry });
  for (const name of ['old', 'kept'] as const) {
    await cache.add(nameOf(name));
    for (const layer of IMAGES[name].layers) await bytesOf(cache.layer(layer.diffID).uncompressed());
  }
  await cache.pin(nameOf('kept'));
}

/** What one finds who comes after: everything that was good is there, and nothing false. */
async function checkThere(action: Action, world: World, resolved: boolean): Promise<void> {
  {
    await using cache = await LayerCache.open(world.dir, noNetwork);
    await expectWhole(cache, 'kept');
    const named = new Set([...cache.images()].map(({ name }) => name));
    if (action.takesOld !== true) expect(named, 'names').to.include(nameOf('old'));
    // Who reads what was damaged loses it: that is for later.
    if (action.before !== undefined) return;
    if (named.has(nameOf('old'))) await expectWhole(cache, 'old');
    if (resolved) await action.after?.(cache, world);
    for (const image of Object.values(IMAGES)) await expectNothingFalse(cache, image);
    const report = await cache.verify({ grace: 0 });
    const bad = report.problems.filter(({ kind }) => kind !== 'orphaned');
    expect(bad, 'verify').to.deep.equal([]);
  }
}

describe('when the disk fails, or the process dies, under a whole cache', function () {
  // Each fault at some operation. In the long form each operation fails in one of the ways, or `every`: in all of them.
  const form = process.env.LAYERCACHE_SOAK;
  const isLong = form !== undefined;
  this.timeout(isLong ? 3_600_000 : 60_000);
  let root: string;
  let shared: Registry;

  before(async () => {
    root = await mkdtemp(join(tmpdir(), 'layercache-faults-'));
    shared = await registryWithAll();
    await prepare(join(root, 'template'), shared);
    await shareTheirs(shared, join(root, 'theirs'));
  });
  after(() => rm(root, { recursive: true }));

  async function inWorld<T>(action: Action, work: (world: World) => Promise<T>): Promise<T> {
    const dir = await mkdtemp(join(root, 'run-'));
    try {
      const registry = action.writesRemote === true ? await registryWithAll() : shared;
      if (action.writesRemote === true) await shareTheirs(registry, join(dir, 'theirs'));
      const world = { dir: join(dir, 'cache'), registry };
      await cp(join(root, 'template'), world.dir, { recursive: true, preserveTimestamps: true });
      await action.before?.(world);
      return await work(world);
    } finally {
      await rm(dir, { recursive: true });
    }
  }

  /** Does it on a disk that goes wrong once, and looks at what is left. */
  function attempt(name: string, fault: Fault, at: number): Promise<FaultyDisk> {
    const action = ACTIONS[name]!;
    return inWorld(action, async (world) => {
      const disk = new FaultyDisk(at, fault);
      let resolved = false;
      let cache: LayerCache | undefined;
      try {
        const options = { durability: 'fsync', concurrency: 1, ...action.options } as const;
        cache = await LayerCache.open(world.dir, {
          ...options,
          files: disk.files,
          registry: () => world.registry,
        });
        await action.run(cache);
        resolved = true;
        await cache.close();
      } catch (error) {
        if (!(error instanceof Dead) && !isLayercacheError(error)) throw error;
      }
      disk.end();
      await cache?.close().catch(() => undefined);
      try {
        await checkThere(action, world, resolved);
        await action.always?.(world, resolved);
      } catch (error) {
        throw new Error(`${fault} at ${disk.hit ?? 'no'}, operation ${at} of ${name}`, { cause: error });
      }
      return disk;
    });
  }

  for (const [name] of Object.entries(ACTIONS)) {
    it(`${name} loses nothing that was good, and nothing false is served after it`, async () => {
      const whole = await attempt(name, 'EIO', Infinity);
      expect(whole.count).to.be.greaterThan(50);
      const limit = pLimit(name === 'push' ? 8 : 2);
      const runs: Promise<FaultyDisk>[] = [];
      const step = form === 'every' ? 1 : isLong ? FAULTS.length : whole.count;
      const shift = isLong ? Math.floor(Math.random() * FAULTS.length) : 0;
      for (const [which, fault] of FAULTS.entries()) {
        const first = isLong ? (which + shift) % step : Math.floor((step * which) / FAULTS.length);
        for (let at = first; at < whole.count; at += step)
          runs.push(limit(() => attempt(name, fault, Math.floor(at))));
      }
      const results = await Promise.allSettled(runs);
      const failures = results.flatMap((one) => (one.status === 'rejected' ? [one.reason as Error] : []));
      const said = failures.map((error) => `${error.message}: ${String(error.cause)}`);
      if (said.length > 0) throw new Error(said.slice(0, 20).join('\n'), { cause: failures[0]?.cause });
      const hit = results.filter((one) => one.status === 'fulfilled' && one.value.hit !== undefined);
      expect(hit.length).to.be.greaterThan(runs.length / 2);
      if (isLong) console.log(`      ${whole.count} operations, ${hit.length} runs with a fault`);
    });
  }
});
