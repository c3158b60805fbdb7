import { randomBytes } from 'node:crypto';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import { MediaType, digestOf } from '@layercache/oci';
import type { FetchBlobOptions, FetchedBlob, Registry } from '@layercache/registry';
import { encodeCacheIndex, type LayerCache } from '../src/index.js';
import { imageOf, layerOf, pushImage, tarOf, type BuiltLayer } from './image-builder.js';
import { Scratch, bytesOf, counted, failure, memoryRegistry } from './test-cache.js';

const TARGET = 'registry.test/team/cache:main';

describe('a lazily pulled cache', () => {
  const scratch = new Scratch();
  afterEach(() => scratch.clean());

  const someLayer = (size = 20_000): BuiltLayer => layerOf(tarOf({ data: randomBytes(size) }));

  async function pushed(registry: Registry, layers: readonly BuiltLayer[]): Promise<void> {
    await pushImage(registry, 'app', '1', imageOf(layers));
    const cache = await scratch.cache({ registry: () => registry });
    await cache.add('registry.test/app:1');
    await cache.push(TARGET);
  }

  async function lazyCache(
    registry: Registry,
    layers: readonly BuiltLayer[],
  ): Promise<{ cache: LayerCache; dir: string }> {
    await pushed(registry, layers);
    const dir = join(await scratch.dir(), 'lazy');
    const cache = await scratch.cache({ dir, registry: () => registry });
    await cache.pull(TARGET, { lazy: true });
    return { cache, dir };
  }

  it('takes manifests only, and every blob when it is asked for, by either name', async () => {
    const registry = memoryRegistry();
    const [one, two] = [someLayer(), someLayer()];
    await pushed(registry, [one, two]);
    const cache = await scratch.cache({ registry: () => registry });
    registry.asked.clear();
    const result = await cache.pull(TARGET, { lazy: true });
    expect(result.received).to.deep.equal({ blobs: 0, bytes: 0 });
    expect(result.remote).to.equal(3);
    expect([...registry.asked.keys()]).to.deep.equal(['fetchManifest', 'tags', 'resolve']);
    expect(await bytesOf(cache.layer(one.diffID).uncompressed())).to.deep.equal(one.tar);
    expect(registry.asked.get('fetchBlob')).to.equal(1);
    expect(await bytesOf(cache.layer(two.descriptor.digest).compressed())).to.deep.equal(two.bytes);
    expect(await bytesOf(cache.blob(two.descriptor.digest))).to.deep.equal(two.bytes);
    expect(registry.asked.get('fetchBlob')).to.equal(2);
  });

  it('tells what is here from what is not', async () => {
    const registry = memoryRegistry();
    const [one, two] = [someLayer(), someLayer()];
    const { cache } = await lazyCache(registry, [one, two]);
    await bytesOf(cache.blob(one.descriptor.digest));
    expect(await cache.blobState(one.descriptor)).to.equal('local');
    expect(await cache.blobState(two.descriptor)).to.equal('remote');
    expect(await cache.blobState({ ...two.descriptor, digest: digestOf('unheard of') })).to.equal('missing');
  });

  it('is a valid layout from its first second, and the same cache when it is opened again', async () => {
    const registry = memoryRegistry();
    const layer = someLayer();
    const { cache, dir } = await lazyCache(registry, [layer]);
    await cache.close();
    const again = await scratch.cache({ dir, registry: () => registry });
    expect([...again.images()].map((image) => image.name)).to.deep.equal(['registry.test/app:1']);
    expect(await bytesOf(again.layer(layer.diffID).uncompressed())).to.deep.equal(layer.tar);
    expect(again.layer(layer.diffID).proven).to.equal(true);
  });

  it('serves as a registry, and exports, what it does not have yet', async () => {
    const registry = memoryRegistry();
    const layers = [someLayer(), someLayer()];
    const { cache } = await lazyCache(registry, layers);
    const [one] = layers as [BuiltLayer];
    const served = cache.registry();
    registry.asked.clear();
    expect(await served.blobSize('any', one.descriptor.digest)).to.equal(one.bytes.length);
    expect(registry.asked.get('fetchBlob')).to.equal(undefined);
    const range = await served.fetchBlob('any', one.descriptor.digest, { range: { first: 10, last: 19 } });
    expect(await bytesOf(range.body)).to.deep.equal(Buffer.from(one.bytes).subarray(10, 20));
    await cache.export('registry.test/app:1', `oci:${join(await scratch.dir(), 'out')}:app`);
    await cache.export('registry.test/app:1', `docker-archive:${join(await scratch.dir(), 'out.tar')}:app:1`);
  });

  it('checks every blob that comes: a registry that sends other bytes is refused', async () => {
    const registry = memoryRegistry();
    const [one, two] = [someLayer(), someLayer()];
    const { cache } = await lazyCache(registry, [one, two]);
    const real = registry.fetchBlob.bind(registry);
    registry.fetchBlob = (repository, _digest, options) => real(repository, two.descriptor.digest, options);
    await failure('DIGEST_MISMATCH', () => bytesOf(cache.layer(one.diffID).uncompressed()));
    registry.fetchBlob = real;
    expect(await bytesOf(cache.layer(one.diffID).uncompressed())).to.deep.equal(one.tar);
  });

  it('says which blob cannot be had, and where it was looked for', async () => {
    const registry = memoryRegistry();
    const layer = someLayer();
    const { cache } = await lazyCache(registry, [layer]);
    await registry.deleteBlob('team/cache', layer.descriptor.digest);
    const error = await failure('NOT_FOUND', () => cache.blob(layer.descriptor.digest));
    expect(error.message).to.contain(layer.descriptor.digest).and.to.contain('registry.test/team/cache');
  });

  it('can be pushed on to another place, fetching what it needs', async () => {
    const [registry, another] = [memoryRegistry(), memoryRegistry()];
    const layer = someLayer();
    await pushed(registry, [layer]);
    const cache = await scratch.cache({
      registry: (host) => (host === 'another.test' ? another : registry),
    });
    await cache.pull(TARGET, { lazy: true });
    await cache.push('another.test/team/cache:main');
    const third = await scratch.cache({ registry: () => another });
    await third.pull('another.test/team/cache:main');
    expect(await bytesOf(third.layer(layer.diffID).uncompressed())).to.deep.equal(layer.tar);
  });

  it('does not believe a cache index that says where else its blobs are', async () => {
    const registry = memoryRegistry();
    const layer = someLayer();
    await pushImage(registry, 'team/cache', undefined, imageOf([layer]));
    const planted = { 'containerd.io/distribution.source.internal.test': 'secret' };
    const index = encodeCacheIndex([{ ...layer.descriptor, annotations: planted }], []);
    for (const { config, descriptor, bytes } of index.shards) {
      await registry.pushBlob('team/cache', config.descriptor, () => [config.bytes]);
      await registry.pushManifest('team/cache', descriptor.mediaType, bytes);
    }
    await registry.pushManifest('team/cache', MediaType.index, index.bytes, { tag: 'main' });
    await registry.deleteBlob('team/cache', layer.descriptor.digest);
    const hosts: string[] = [];
    const cache = await scratch.cache({
      registry: (host) => {
        hosts.push(host);
        return registry;
      },
    });
    await cache.pull(TARGET, { lazy: true });
    await failure('NOT_FOUND', () => cache.blob(layer.descriptor.digest));
    expect(new Set(hosts)).to.deep.equal(new Set(['registry.test']));
  });

  it('of which nothing new is pushed again', async () => {
    const registry = memoryRegistry();
    const { cache } = await lazyCache(registry, [someLayer()]);
    registry.asked.clear();
    const result = await cache.push(TARGET);
    expect(result.sent.blobs).to.equal(0);
    expect(Object.fromEntries(registry.asked)).to.deep.equal({ fetchManifest: 1, tags: 1 });
  });

  it('becomes whole by a pull, which fetches what is missing and nothing else', async () => {
    const registry = memoryRegistry();
    const [one, two] = [someLayer(), someLayer()];
    const { cache } = await lazyCache(registry, [one, two]);
    await bytesOf(cache.blob(one.descriptor.digest));
    const result = await cache.pull(TARGET);
    expect(result.received.blobs).to.equal(2);
    expect(result.kept).to.equal(1);
    expect(await cache.blobState(two.descriptor)).to.equal('local');
  });
});

describe('a pull that is interrupted', () => {
  const scratch = new Scratch();
  afterEach(() => scratch.clean());

  it('goes on where it stopped, in the middle of a blob', async () => {
    const layer = layerOf(tarOf({ data: randomBytes(400_000) }));
    const memory = memoryRegistry();
    await pushImage(memory, 'app', '1', imageOf([layer]));
    const first = await scratch.cache({ registry: () => memory });
    await first.add('registry.test/app:1');
    await first.push(TARGET);

    const abort = new AbortController();
    const offsets: number[] = [];
    const slow = Object.assign(Object.create(memory) as Registry, {
      fetchBlob: async (repository: string, digest: `sha256:${string}`, options?: FetchBlobOptions) => {
        const fetched: FetchedBlob = await memory.fetchBlob(repository, digest, options);
        if (digest === layer.descriptor.digest) offsets.push(fetched.offset);
        return fetched;
      },
    });
    const registry = counted(slow);
    const dir = join(await scratch.dir(), 'cache');
    const cache = await scratch.cache({ dir, registry: () => registry });
    await failure('ABORTED', () =>
      cache.pull(TARGET, {
        signal: abort.signal,
        onProgress: ({ descriptor, received }) => {
          if (descriptor.digest === layer.descriptor.digest && received > 100_000) abort.abort();
        },
      }),
    );
    await cache.close();
    expect((await readdir(join(dir, 'blobs', 'sha256'))).length).to.be.greaterThan(0);
    const again = await scratch.cache({ dir, registry: () => registry });
    const result = await again.pull(TARGET);
    expect(offsets[0]).to.equal(0);
    expect(offsets[1]).to.be.greaterThan(100_000);
    expect(result.received.bytes).to.be.lessThan(layer.bytes.length);
    expect(await bytesOf(again.layer(layer.diffID).uncompressed())).to.deep.equal(layer.tar);
  });
});
