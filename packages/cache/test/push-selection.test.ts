import { randomBytes } from 'node:crypto';
import { utimes } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import { Annotation, MediaType, digestHex, digestOf, type Digest } from '@layercache/oci';
import { OciLayout } from '@layercache/layout';
import type { LayerCache, PushOptions, Removal } from '../src/index.js';
import { imageOf, layerOf, pushImage, tarOf, type BuiltLayer } from './image-builder.js';
import { Scratch, bytesOf, failure, memoryRegistry } from './test-cache.js';

const TARGET = 'registry.test/team/cache:main';

describe('a push of part of a cache', () => {
  const scratch = new Scratch();
  afterEach(() => scratch.clean());

  const someLayer = (size = 20_000): BuiltLayer => layerOf(tarOf({ data: randomBytes(size) }));

  /** A cache with the images `one` and `two`, of a layer each and one that they share, and a loose layer. */
  async function someCache(): Promise<{
    cache: LayerCache;
    registry: ReturnType<typeof memoryRegistry>;
    layers: Record<'base' | 'one' | 'two' | 'loose', BuiltLayer>;
  }> {
    const registry = memoryRegistry();
    const layers = { base: someLayer(), one: someLayer(), two: someLayer(), loose: someLayer() };
    await pushImage(registry, 'one', '1', imageOf([layers.base, layers.one]));
    await pushImage(registry, 'two', '1', imageOf([layers.base, layers.two]));
    const cache = await scratch.cache({ registry: () => registry });
    const layout = await OciLayout.open(cache.dir);
    await layout.write(layers.loose.bytes);
    await layout.put(layers.loose.descriptor);
    await layout.close();
    await cache.add('registry.test/one:1');
    await cache.add('registry.test/two:1');
    return { cache, registry, layers };
  }

  async function pulledAfter(
    setup: Awaited<ReturnType<typeof someCache>>,
    options: PushOptions,
  ): Promise<{ names: string[]; layers: string[]; cache: LayerCache }> {
    await setup.cache.push(TARGET, options);
    const cache = await scratch.cache({ registry: () => setup.registry });
    await cache.pull(TARGET);
    const layers = Object.entries(setup.layers).filter(([, layer]) => cache.has(layer.descriptor.digest));
    return {
      names: [...cache.images()].map((image) => image.name),
      layers: layers.map(([name]) => name),
      cache,
    };
  }

  const lastUsed = async (cache: LayerCache, digests: readonly Digest[], time: Date): Promise<void> => {
    for (const digest of digests)
      await utimes(join(cache.dir, 'blobs', 'sha256', digestHex(digest)), time, time);
  };

  const configOfOne = async (cache: LayerCache): Promise<Digest> => {
    const manifest = await bytesOf(cache.blob(cache.image('registry.test/one:1').digest));
    return (JSON.parse(manifest.toString()) as { config: { digest: Digest } }).config.digest;
  };

  it('takes the images that are named, with their layers, and nothing else', async () => {
    const pulled = await pulledAfter(await someCache(), { images: ['registry.test/one:1'] });
    expect(pulled.names).to.deep.equal(['registry.test/one:1']);
    expect(pulled.layers).to.deep.equal(['base', 'one']);
  });

  it('takes the layer indexes of the layers along', async () => {
    const setup = await someCache();
    const layout = await OciLayout.open(setup.cache.dir);
    const index = Buffer.from('a layer index');
    await layout.write(index);
    await layout.put({
      mediaType: MediaType.octetStream,
      digest: digestOf(index),
      size: index.length,
      annotations: { [Annotation.sociLayerDigest]: setup.layers.one.descriptor.digest },
    });
    await layout.close();
    const { cache } = await pulledAfter(setup, { images: ['registry.test/one:1'] });
    expect(await bytesOf(cache.blob(digestOf(index)))).to.deep.equal(index);
    const { cache: other } = await pulledAfter(await someCache(), { images: ['registry.test/two:1'] });
    expect(other.has(digestOf(index))).to.equal(false);
  });

  it('of an image that is not here is an error, and nothing is sent', async () => {
    const { cache, registry } = await someCache();
    registry.asked.clear();
    await failure('NOT_FOUND', () => cache.push(TARGET, { images: ['registry.test/three:1'] }));
    expect(registry.asked.size).to.equal(0);
  });

  it('takes what was used since', async () => {
    const setup = await someCache();
    const old = new Date('2020-01-01');
    await lastUsed(setup.cache, [await configOfOne(setup.cache), setup.layers.loose.descriptor.digest], old);
    const pulled = await pulledAfter(setup, { since: new Date('2021-01-01') });
    expect(pulled.names).to.deep.equal(['registry.test/two:1']);
    expect(pulled.layers).to.deep.equal(['base', 'two']);
  });

  it('takes what was used last as far as it fits, images as a whole and before loose layers', async () => {
    const setup = await someCache();
    await lastUsed(setup.cache, [await configOfOne(setup.cache)], new Date('2020-01-01'));
    const pulled = await pulledAfter(setup, { maxSize: 50_000 });
    expect(pulled.names).to.deep.equal(['registry.test/two:1']);
    expect(pulled.layers).to.deep.equal(['base', 'two']);
  });

  it('takes uncompressed tars when told to', async () => {
    const setup = await someCache();
    await bytesOf(setup.cache.layer(setup.layers.one.diffID).uncompressed());
    await setup.cache.push(TARGET);
    expect(await setup.registry.blobSize('team/cache', setup.layers.one.diffID)).to.equal(undefined);
    const { cache } = await pulledAfter(setup, { withUncompressed: true, images: ['registry.test/one:1'] });
    expect(
      await cache.blobState({
        ...setup.layers.one.descriptor,
        digest: setup.layers.one.diffID,
        size: setup.layers.one.tar.length,
      }),
    ).to.equal('local');
  });

  it('does nothing in a dry run but say what it would send', async () => {
    const { cache, registry } = await someCache();
    registry.asked.clear();
    const dry = await cache.push(TARGET, { dryRun: true });
    expect([...registry.asked.keys()].sort()).to.deep.equal(['blobSize', 'fetchManifest', 'tags']);
    const real = await cache.push(TARGET);
    expect(dry.digest).to.equal(real.digest);
    expect(dry.sent.blobs).to.equal(real.sent.blobs + real.mounted);
    expect([dry.dryRun, real.dryRun]).to.deep.equal([true, false]);
  });

  it('does not prune a cache there to nothing, as choosing by use on a fresh lazy cache would', async () => {
    const { cache, registry } = await someCache();
    await cache.push(TARGET);
    const lazy = await scratch.cache({ registry: () => registry });
    await lazy.pull(TARGET, { lazy: true });
    const error = await failure('USAGE', () =>
      lazy.push(TARGET, { since: new Date(Date.now() - 60_000), prune: () => true }),
    );
    expect(error.message).to.contain(TARGET);
    const again = await scratch.cache({ registry: () => registry });
    expect((await again.pull(TARGET)).images).to.equal(2);
  });
});

describe('a pruning push', () => {
  const scratch = new Scratch();
  afterEach(() => scratch.clean());

  it('removes what is not pushed, once that was confirmed', async () => {
    const registry = memoryRegistry();
    const [one, two] = [layerOf(tarOf({ one: '1' })), layerOf(tarOf({ two: '2' }))];
    await pushImage(registry, 'one', '1', imageOf([one]));
    await pushImage(registry, 'two', '1', imageOf([two]));
    const [first, second] = [
      await scratch.cache({ registry: () => registry }),
      await scratch.cache({ registry: () => registry }),
    ];
    await first.add('registry.test/one:1');
    await first.push(TARGET);
    await second.add('registry.test/two:1');
    const asked: Removal[] = [];
    const refuse = (removal: Removal): boolean => asked.push(removal) < 0;
    await failure('ABORTED', () => second.push(TARGET, { prune: refuse }));
    expect(asked[0]?.entries.map((entry) => entry.digest)).to.deep.equal([one.descriptor.digest]);
    expect(asked[0]?.images).to.have.length(1);
    await first.pull(TARGET);
    expect(first.has(two.diffID)).to.equal(false);

    expect((await second.push(TARGET, { prune: () => true })).removed).to.equal(2);
    const third = await scratch.cache({ registry: () => registry });
    await third.pull(TARGET);
    expect([third.has(one.diffID), third.has(two.diffID)]).to.deep.equal([false, true]);
    const asks = asked.length;
    expect((await second.push(TARGET, { prune: refuse })).removed).to.equal(0);
    expect(asked).to.have.length(asks);
  });

  it('without being told to prune never removes what is absent here', async () => {
    const registry = memoryRegistry();
    const layer = layerOf(tarOf({ one: '1' }));
    await pushImage(registry, 'one', '1', imageOf([layer]));
    const cache = await scratch.cache({ registry: () => registry });
    await cache.add('registry.test/one:1');
    await cache.push(TARGET);
    const empty = await scratch.cache({ registry: () => registry });
    expect((await empty.push(TARGET)).entries).to.equal(1);
  });
});

describe('a name that two caches have for different images', () => {
  const scratch = new Scratch();
  afterEach(() => scratch.clean());

  it('means what the one that changed it last pushed, whoever pushes afterwards', async () => {
    const registry = memoryRegistry();
    const [old, fresh] = [imageOf([layerOf(tarOf({ v: '1' }))]), imageOf([layerOf(tarOf({ v: '2' }))])];
    await pushImage(registry, 'app', '1', old);
    const [first, second] = [
      await scratch.cache({ registry: () => registry }),
      await scratch.cache({ registry: () => registry }),
    ];
    await first.add('registry.test/app:1');
    await first.push(TARGET);
    await pushImage(registry, 'app', '1', fresh);
    await second.add('registry.test/app:1');
    await second.push(TARGET);
    await first.push(TARGET);
    const third = await scratch.cache({ registry: () => registry });
    await third.pull(TARGET);
    expect(third.image('registry.test/app:1').digest).to.equal(fresh.descriptor.digest);
    expect(third.image(old.descriptor.digest).digest).to.equal(old.descriptor.digest);
  });
});
