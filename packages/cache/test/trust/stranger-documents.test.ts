import { randomBytes } from 'node:crypto';
import { cp, mkdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { expect } from 'chai';
import fc from 'fast-check';
import { create } from 'tar';
import { Annotation, MediaType, digestHex, digestOf, isDigest, type Descriptor } from '@layercache/oci';
import type { Registry } from '@layercache/registry';
import { decodeCacheIndex, decodeShard, encodeCacheIndex, LayerCache } from '../../src/index.js';
import { imageOf, layerOf, pushCacheIndex, pushImage, tarOf } from '../image-builder.js';
import { Scratch, bytesOf, memoryRegistry } from '../test-cache.js';
import { hostileImage, type HostileImage } from './hostile.js';

const GOOD = 'registry.test/good:1';
const OTHER = 'registry.test/other:1';
const EVIL = 'registry.test/evil/image:1';

const layers = [layerOf(tarOf({ os: 'good', data: randomBytes(3000) })), layerOf(tarOf({ lib: 'good' }))];
const good = imageOf(layers);
const [base] = layers;
const other = imageOf(base === undefined ? [] : [base], { platform: { os: 'linux', architecture: 'arm64' } });
const artifact = Buffer.from('a blob that belongs to nobody');
const ours = new Set<string>([
  ...[good, other].flatMap((image) => [image.descriptor.digest, image.config.descriptor.digest]),
  ...layers.flatMap((layer) => [layer.descriptor.digest, layer.diffID]),
  digestOf(artifact),
]);

/** How a stranger's image gets in. Resolves when it has, or was refused. */
type Way = (
  cache: LayerCache,
  registry: Registry,
  evil: HostileImage,
  scratch: Scratch,
) => Promise<LayerCache>;

async function pushHostile(
  registry: Registry,
  repository: string,
  evil: HostileImage,
  tag?: string,
): Promise<void> {
  for (const { descriptor, bytes } of [...evil.layers, evil.config])
    await registry.pushBlob(repository, descriptor, () => [bytes]);
  await registry.pushManifest(
    repository,
    MediaType.manifest,
    evil.manifest,
    tag === undefined ? {} : { tag },
  );
}

const manifestOf = (evil: HostileImage, annotations: Record<string, string> = {}): Descriptor => ({
  mediaType: MediaType.manifest,
  digest: digestOf(evil.manifest),
  size: evil.manifest.length,
  annotations,
});

async function writeBlob(dir: string, bytes: Uint8Array): Promise<void> {
  const path = join(dir, 'blobs/sha256', digestHex(digestOf(bytes)));
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, bytes);
}

/** Another tool puts an image under a name into a layout. */
async function putByHand(dir: string, evil: HostileImage, name: string): Promise<void> {
  for (const bytes of [evil.manifest, evil.config.bytes, ...evil.layers.map((layer) => layer.bytes)])
    await writeBlob(dir, bytes);
  const path = join(dir, 'index.json');
  const index = JSON.parse(
    await readFile(path, 'utf8').catch(() => '{"schemaVersion":2,"manifests":[]}'),
  ) as {
    manifests: Descriptor[];
  };
  index.manifests.push(manifestOf(evil, { [Annotation.refName]: name }));
  await writeFile(path, JSON.stringify(index));
  await writeFile(join(dir, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
}

async function added(cache: LayerCache, source: string): Promise<LayerCache> {
  // Refusing the image is right, too.
  await cache.add(source).catch(() => undefined);
  return cache;
}

/** A shared cache that lists a stranger's image and, as its entries, what the image says of its layers. */
async function pushShared(registry: Registry, evil: HostileImage): Promise<void> {
  const { layers: listed } = JSON.parse(Buffer.from(evil.manifest).toString()) as { layers: Descriptor[] };
  const distinct = [...new Map(listed.map((layer) => [layer.digest, layer])).values()];
  await pushHostile(registry, 'evil/cache', evil);
  const index = encodeCacheIndex(distinct, [manifestOf(evil, { [Annotation.refName]: GOOD })]);
  await pushCacheIndex(registry, 'evil/cache', 'main', index);
}

const ways: Readonly<Record<string, Way>> = {
  'added from a registry': async (cache, registry, evil) => {
    await pushHostile(registry, 'evil/image', evil, '1');
    return added(cache, EVIL);
  },
  'added from a layout': async (cache, _registry, evil, scratch) => {
    const dir = await scratch.dir();
    await putByHand(dir, evil, 'evil/image:1');
    return added(cache, `oci:${dir}`);
  },
  'added from an archive': async (cache, _registry, evil, scratch) => {
    const dir = await scratch.dir();
    await putByHand(dir, evil, 'evil/image:1');
    const file = join(await scratch.dir(), 'evil.tar');
    await create({ file, cwd: dir }, ['oci-layout', 'index.json', 'blobs']);
    return added(cache, `oci-archive:${file}`);
  },
  'pushed to the cache as a registry': async (cache, _registry, evil) => {
    await pushHostile(cache.registry(), 'evil/image', evil, '1').catch(() => undefined);
    return cache;
  },
  'mirrored from an upstream': async (cache, registry, evil) => {
    await pushHostile(registry, 'evil/image', evil, '1');
    const mirror = cache.mirror('registry.test');
    await mirror.fetchManifest('evil/image', '1');
    for (const { descriptor } of evil.layers)
      await bytesOf((await mirror.fetchBlob('evil/image', descriptor.digest)).body);
    return cache;
  },
  'pulled with a shared cache': async (cache, registry, evil) => {
    await pushShared(registry, evil);
    await cache.pull('registry.test/evil/cache:main', { names: 'skip' });
    return cache;
  },
  'pulled lazily with a shared cache': async (cache, registry, evil) => {
    await pushShared(registry, evil);
    await cache.pull('registry.test/evil/cache:main', { names: 'prove', lazy: true });
    return cache;
  },
  'put into the layout by another tool': async (cache, registry, evil) => {
    const { dir } = cache;
    await cache.close();
    await putByHand(dir, evil, 'evil/image:1');
    return LayerCache.open(dir, { registry: () => registry });
  },
};

/**
 * Annotations without what follows from the stranger's own entries: this machine saw our blobs at the stranger's place
 * as well, and a layer of the stranger's claims to be another compressed form of our tar.
 */
function oursOf(annotations: Readonly<Record<string, string>>): Record<string, string> {
  const kept = Object.entries(annotations).map(([name, value]): [string, string] => {
    const list = value.split(',').filter((each) => !each.startsWith('evil/'));
    return [name, list.filter((each) => !isDigest(each) || ours.has(each)).join(',')];
  });
  return Object.fromEntries(
    kept.filter(([name, value]) => value !== '' || !name.startsWith('containerd.io/')),
  );
}

/** Everything that a stranger must not change: what is said of our images, layers and blobs, here and to others. */
async function factsOf(cache: LayerCache): Promise<unknown> {
  await cache.sync();
  const entries = [...cache.entries()]
    .filter(({ descriptor }) => ours.has(descriptor.digest))
    .map(({ descriptor, proven }) => {
      return { ...descriptor, annotations: oursOf(descriptor.annotations ?? {}), proven };
    });
  const pairs = layers.map(({ descriptor, diffID }) => {
    const layer = cache.layer(descriptor.digest);
    return { diffID: layer.diffID, proven: layer.proven, isFound: cache.has(diffID) };
  });
  const index = cache.image('layercache');
  const decoded = decodeCacheIndex(await bytesOf(cache.blob(index.digest)), 'index');
  const shared: unknown[] = decoded?.images.filter((image) => ours.has(image.digest)) ?? [];
  for (const shard of decoded?.shards ?? []) {
    const listed = decodeShard(await bytesOf(cache.blob(shard.digest)), 'shard').entries;
    for (const entry of listed)
      if (ours.has(entry.digest)) shared.push({ ...entry, annotations: oursOf(entry.annotations ?? {}) });
  }
  const files = [];
  for (const name of [GOOD, OTHER]) {
    const view = await cache.view(name, {
      platform: { os: 'linux', architecture: name === GOOD ? 'amd64' : 'arm64' },
    });
    files.push(
      [...view.merged.nodes()].map(({ path, inode }) => [path, inode.size, inode.mode]),
      view.claimed,
    );
    files.push((await bytesOf(view.open('os'))).toString());
  }
  const names = [...cache.images()].filter(({ descriptor }) => ours.has(descriptor.digest));
  const problems = (await cache.verify()).problems.filter(
    ({ digest }) => digest !== undefined && ours.has(digest),
  );
  return { entries, pairs, shared, files, names, problems };
}

describe('a stranger’s image changes nothing of ours when it is', () => {
  const scratch = new Scratch();
  let start: string;

  /** A cache with two images that share a layer, a pin, an expiry, a proven pair, a layer index and a loose blob. */
  before(async () => {
    start = join(await scratch.dir(), 'start');
    const cache = await openAt(start, await freshRegistry());
    await cache.add(GOOD);
    await cache.add(OTHER, { platform: 'all', ttl: 3_600_000 });
    await cache.pin(GOOD);
    await cache.blobs.put([artifact]);
    if (base !== undefined) await bytesOf(cache.layer(base.diffID).uncompressed());
    await cache.index(GOOD);
    await cache.close();
  });
  after(() => scratch.clean());

  async function freshRegistry(): Promise<Registry> {
    const registry = memoryRegistry();
    await pushImage(registry, 'good', '1', good);
    await pushImage(registry, 'other', '1', other);
    return registry;
  }

  const openAt = (dir: string, registry: Registry): Promise<LayerCache> =>
    LayerCache.open(dir, { registry: () => registry });

  for (const [name, way] of Object.entries(ways)) {
    it(name, async () => {
      const hostile = hostileImage([GOOD, OTHER, 'registry.test/new:1'], layers, [...ours] as never);
      await fc.assert(
        fc.asyncProperty(hostile, async (evil) => {
          const own = new Scratch();
          const dir = join(await own.dir(), 'cache');
          await copyOf(start, dir);
          const registry = await freshRegistry();
          let cache = await openAt(dir, registry);
          try {
            const before = await factsOf(cache);
            cache = await way(cache, registry, evil, own);
            expect(await factsOf(cache)).to.deep.equal(before);
            const names = [...cache.images()].map((image) => image.name);
            expect(names.filter((each) => !['evil/image:1', EVIL, GOOD, OTHER].includes(each))).to.deep.equal(
              [],
            );
            await cache.push('registry.test/team/cache:main');
          } finally {
            await cache.close();
            await own.clean();
          }
        }),
        { numRuns: 3, endOnFailure: true },
      );
    }).timeout(120_000);
  }
});

function copyOf(from: string, to: string): Promise<void> {
  return cp(from, to, { recursive: true, preserveTimestamps: true });
}
