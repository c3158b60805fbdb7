import { randomBytes } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import { OciLayout } from '@layercache/layout';
import { Annotation, MediaType, digestOf, withAnnotations } from '@layercache/oci';
import type { Registry } from '@layercache/registry';
import { decodeCacheIndex, decodeShard, encodeCacheIndex, type LayerCache } from '../src/index.js';
import { imageOf, layerOf, pushImage, tarOf, type BuiltLayer } from './image-builder.js';
import { Scratch, bytesOf, failure, memoryRegistry } from './test-cache.js';

const TARGET = 'registry.test/team/cache:main';

describe('a whole cache in a registry', () => {
  const scratch = new Scratch();
  afterEach(() => scratch.clean());

  const someLayer = (): BuiltLayer => layerOf(tarOf({ data: randomBytes(20_000) }));

  async function cacheWith(
    registry: Registry,
    name: string,
    layers: readonly BuiltLayer[],
  ): Promise<LayerCache> {
    await pushImage(registry, name, '1', imageOf(layers));
    const cache = await scratch.cache({ registry: () => registry });
    await cache.add(`registry.test/${name}:1`);
    return cache;
  }

  it('comes back on another machine with both names of every layer, and its images', async () => {
    const registry = memoryRegistry();
    const layers = [someLayer(), someLayer(), layerOf(tarOf({ plain: 'tar' }), MediaType.layer)];
    const first = await cacheWith(registry, 'app', layers);
    await first.push(TARGET);
    const second = await scratch.cache({ registry: () => registry });
    const pulled = await second.pull(TARGET);
    expect(pulled.received.blobs).to.equal(4);
    for (const layer of layers) {
      expect(await bytesOf(second.layer(layer.diffID).uncompressed())).to.deep.equal(layer.tar);
      expect(await bytesOf(second.blob(layer.descriptor.digest))).to.deep.equal(layer.bytes);
    }
    expect([...second.images()].map((image) => image.name)).to.deep.equal(['registry.test/app:1']);
    await second.export('registry.test/app:1', `oci:${join(await scratch.dir(), 'out')}:app`);
  });

  it('is claimed there, whatever was proven here', async () => {
    const registry = memoryRegistry();
    const layer = someLayer();
    const first = await cacheWith(registry, 'app', [layer]);
    await bytesOf(first.layer(layer.diffID).uncompressed());
    await first.push(TARGET);
    const second = await scratch.cache({ registry: () => registry });
    await second.pull(TARGET);
    expect(first.layer(layer.diffID).proven).to.equal(true);
    expect(second.layer(layer.diffID).proven).to.equal(false);
  });

  it('leaves uncompressed tars at home: they are derived again', async () => {
    const registry = memoryRegistry();
    const layer = someLayer();
    const first = await cacheWith(registry, 'app', [layer]);
    await bytesOf(first.layer(layer.diffID).uncompressed());
    await first.push(TARGET);
    expect(await registry.blobSize('team/cache', layer.diffID)).to.equal(undefined);
    const second = await scratch.cache({ registry: () => registry });
    await second.pull(TARGET);
    expect(await bytesOf(second.layer(layer.diffID).uncompressed())).to.deep.equal(layer.tar);
  });

  it('mounts from the repository that the layers came from, instead of sending them', async () => {
    const registry = memoryRegistry();
    const first = await cacheWith(registry, 'app', [someLayer(), someLayer()]);
    const pushed = await first.push(TARGET);
    expect(pushed.mounted).to.be.at.least(2);
    expect(pushed.sent.bytes).to.be.lessThan(1000);
  });

  it('is united with what others pushed: nothing of theirs is lost', async () => {
    const registry = memoryRegistry();
    const [one, two] = [someLayer(), someLayer()];
    await (await cacheWith(registry, 'one', [one])).push(TARGET);
    await (await cacheWith(registry, 'two', [two])).push(TARGET);
    const third = await scratch.cache({ registry: () => registry });
    await third.pull(TARGET);
    for (const layer of [one, two])
      expect(await bytesOf(third.layer(layer.diffID).uncompressed())).to.deep.equal(layer.tar);
    expect([...third.images()].map((image) => image.name)).to.deep.equal([
      'registry.test/one:1',
      'registry.test/two:1',
    ]);
  });

  it('loses nothing when four push at the same time', async () => {
    const registry = memoryRegistry();
    const layers = Array.from({ length: 4 }, someLayer);
    const caches = await Promise.all(layers.map((layer, n) => cacheWith(registry, `app${n}`, [layer])));
    await Promise.all(caches.map((cache) => cache.push(TARGET)));
    const all = await scratch.cache({ registry: () => registry });
    await all.pull(TARGET);
    for (const layer of layers) expect(all.has(layer.diffID)).to.equal(true);
  }).timeout(60_000);

  it('is pushed again with two requests when nothing is new, and pulled again without a byte of a blob', async () => {
    const registry = memoryRegistry();
    const first = await cacheWith(registry, 'app', [someLayer(), someLayer()]);
    const pushed = await first.push(TARGET);
    registry.asked.clear();
    const again = await first.push(TARGET);
    expect(again.digest).to.equal(pushed.digest);
    expect(Object.fromEntries(registry.asked)).to.deep.equal({ fetchManifest: 1, tags: 1 });
    const second = await scratch.cache({ registry: () => registry });
    await second.pull(TARGET);
    registry.asked.clear();
    const kept = await second.pull(TARGET);
    expect(kept.received).to.deep.equal({ blobs: 0, bytes: 0 });
    expect(registry.asked.get('fetchBlob')).to.equal(undefined);
  });

  it('takes an image whose plain tar layer has a compressed twin in the cache', async () => {
    const registry = memoryRegistry();
    const tar = tarOf({ data: randomBytes(5000) });
    const [plain, gzip] = [layerOf(tar, MediaType.layer), layerOf(tar)];
    await pushImage(registry, 'plain', '1', imageOf([plain]));
    const cache = await cacheWith(registry, 'app', [gzip]);
    await cache.add('registry.test/plain:1');
    await cache.push(TARGET);
    const second = await scratch.cache({ registry: () => registry });
    await second.pull(TARGET);
    const dir = join(await scratch.dir(), 'out');
    await second.export('registry.test/plain:1', `oci:${dir}:plain`);
  });

  it('that was poisoned with a false diffID cannot make a lookup return wrong bytes', async () => {
    const registry = memoryRegistry();
    const [good, evil] = [someLayer(), someLayer()];
    await pushImage(registry, 'team/cache', undefined, imageOf([good, evil]));
    const entries = [withAnnotations(evil.descriptor, { [Annotation.diffID]: good.diffID })];
    const index = encodeCacheIndex(entries, []);
    for (const shard of index.shards) {
      await registry.pushBlob('team/cache', shard.config.descriptor, () => [shard.config.bytes]);
      await registry.pushManifest('team/cache', MediaType.manifest, shard.bytes);
    }
    await registry.pushManifest('team/cache', MediaType.index, index.bytes, { tag: 'main' });
    const cache = await scratch.cache({ registry: () => registry });
    await cache.pull(TARGET);
    await failure('DIFFID_MISMATCH', async () => bytesOf(cache.layer(good.diffID).uncompressed()));
    await failure('NOT_FOUND', () => cache.layer(good.diffID));

    // With the true counterpart beside the false one, the true one answers.
    const victim = await cacheWith(registry, 'app', [good]);
    await victim.pull(TARGET);
    expect(await bytesOf(victim.layer(good.diffID).uncompressed())).to.deep.equal(good.tar);
    expect(await bytesOf(victim.layer(good.diffID).compressed())).to.deep.equal(good.bytes);
  });

  it('that is not there, or not a cache, is an error that says so', async () => {
    const registry = memoryRegistry();
    const cache = await scratch.cache({ registry: () => registry });
    await failure('NOT_FOUND', () => cache.pull(TARGET));
    await pushImage(registry, 'team/cache', 'main', imageOf([someLayer()]));
    const error = await failure('DOCUMENT_INVALID', () => cache.pull(TARGET));
    expect(error.message).to.contain(TARGET);
    await failure('DOCUMENT_INVALID', () => cache.push(TARGET));
    await failure('REFERENCE_INVALID', () => cache.push(`registry.test/team/cache@${digestOf('x')}`));
  });
});

describe('the cache index in the layout itself', () => {
  const scratch = new Scratch();
  afterEach(() => scratch.clean());

  it('reaches every layer, and is replaced by the next commit together with its shards', async () => {
    const registry = memoryRegistry();
    const [one, two] = [layerOf(tarOf({ one: '1' })), layerOf(tarOf({ two: '2' }))];
    await pushImage(registry, 'app', '1', imageOf([one]));
    await pushImage(registry, 'app', '2', imageOf([two]));
    const cache = await scratch.cache({ registry: () => registry });
    await cache.add('registry.test/app:1');
    const reached = async (): Promise<string[]> => {
      const index = cache.image('layercache');
      const decoded = decodeCacheIndex(await bytesOf(cache.blob(index.digest)), 'index');
      const entries = [];
      for (const shard of decoded?.shards ?? []) {
        entries.push(...decodeShard(await bytesOf(cache.blob(shard.digest)), 'shard').entries);
      }
      return entries.map((entry) => entry.digest);
    };
    const before = cache.image('layercache');
    expect(await reached()).to.deep.equal([one.descriptor.digest]);
    await cache.add('registry.test/app:2');
    expect((await reached()).sort()).to.deep.equal([one.descriptor.digest, two.descriptor.digest].sort());
    expect(cache.lookup(before.digest), 'it is no entry any more').to.deep.equal([]);
    await cache.prune({ grace: 0 });
    await failure('NOT_FOUND', () => cache.blob(before.digest));
  });

  it('is expanded when it arrives alone, as other tools bring it', async () => {
    const registry = memoryRegistry();
    const layer = layerOf(tarOf({ one: '1' }));
    await pushImage(registry, 'app', '1', imageOf([layer]));
    const cache = await scratch.cache({ registry: () => registry });
    await cache.add('registry.test/app:1');
    const index = cache.image('layercache');
    const dir = join(await scratch.dir(), 'copied');
    const copied = await OciLayout.open(dir);
    for (const { descriptor } of cache.entries())
      await copied.write(await bytesOf(cache.blob(descriptor.digest)));
    for (const shard of decodeCacheIndex(await bytesOf(cache.blob(index.digest)), 'index')?.shards ?? []) {
      await copied.write(await bytesOf(cache.blob(shard.digest)));
    }
    await copied.put({
      mediaType: index.mediaType,
      digest: index.digest,
      size: index.size,
      annotations: { [Annotation.refName]: 'layercache' },
    });
    await copied.close();
    await rm(join(dir, '.layercache'), { recursive: true });
    const opened = await scratch.cache({ dir });
    expect(await bytesOf(opened.layer(layer.diffID).uncompressed())).to.deep.equal(layer.tar);
    expect(opened.has(layer.descriptor.digest)).to.equal(true);
    expect([...opened.images()].map((image) => image.name)).to.deep.equal(['registry.test/app:1']);
  });
});
