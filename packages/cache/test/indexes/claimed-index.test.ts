import { gzipSync } from 'node:zlib';
import { expect } from 'chai';
import { encodeZtoc, type Ztoc } from '@layercache/layer';
import { OciLayout } from '@layercache/layout';
import { Annotation, MediaType, digestOf, type Digest } from '@layercache/oci';
import { join } from 'node:path';
import { LayerCache } from '../../src/index.js';
import { imageOf, layerOf, packedLayer, pushImage, tarOf } from '../image-builder.js';
import { Scratch, bytesOf, memoryRegistry } from '../test-cache.js';
import { textBytes } from './text-bytes.js';

describe('a layer index that came from elsewhere', () => {
  const scratch = new Scratch();
  afterEach(() => scratch.clean());
  const data = textBytes(300_000);
  const tar = tarOf({ 'bin/data': data, 'etc/name': 'right' });
  const layer = packedLayer(tar, gzipSync(tar));
  const image = imageOf([layer]);
  const SPAN = 50_000;

  /** A cache with the image, and what another made of its index. */
  async function cacheWith(
    index: Uint8Array,
    options: { keepUncompressed?: boolean } = {},
  ): Promise<LayerCache> {
    const registry = memoryRegistry();
    await pushImage(registry, 'app', '1', image);
    const dir = join(await scratch.dir(), 'cache');
    const first = await LayerCache.open(dir, { registry: () => registry });
    await first.add('registry.test/app:1');
    await first.close();
    const layout = await OciLayout.open(dir);
    const { digest, size } = await layout.write(index);
    const annotations = {
      [Annotation.sociLayerDigest]: layer.descriptor.digest,
      [Annotation.diffID]: layer.diffID,
    };
    await layout.put({ mediaType: MediaType.octetStream, digest, size, annotations });
    await layout.close();
    return scratch.cache({ dir, registry: () => registry, ...options });
  }

  async function goodIndex(): Promise<Ztoc> {
    const registry = memoryRegistry();
    await pushImage(registry, 'app', '1', image);
    const cache = await scratch.cache({ registry: () => registry });
    await cache.add('registry.test/app:1');
    return (await cache.layerIndex(layer.diffID, { spanSize: SPAN })).ztoc;
  }

  const knows = (cache: LayerCache, bytes: Uint8Array): boolean => cache.has(digestOf(bytes));

  it('is used as if it had been made here', async () => {
    const bytes = encodeZtoc(await goodIndex());
    const cache = await cacheWith(bytes);
    const report = await cache.index('registry.test/app:1');
    expect(report).to.include({ hits: 1, bytesRead: 0 });
    expect(report.layers[0]?.indexDigest).to.equal(digestOf(bytes));
    expect(cache.layer(layer.diffID).proven).to.equal(false);
    expect((await cache.layerIndex(layer.diffID)).proven).to.equal(false);
  });

  it('travels with a cache that is pushed, and is used by the one that pulls', async () => {
    const registry = memoryRegistry();
    await pushImage(registry, 'app', '1', image);
    const first = await scratch.cache({ registry: () => registry });
    await first.add('registry.test/app:1');
    const { layers } = await first.index('registry.test/app:1');
    await first.push('registry.test/team/cache:main', { images: ['registry.test/app:1'] });
    const second = await scratch.cache({ registry: () => registry });
    await second.pull('registry.test/team/cache:main');
    const report = await second.index('registry.test/app:1');
    expect(report).to.include({ hits: 1, bytesRead: 0 });
    expect(report.layers[0]?.indexDigest).to.equal(layers[0]?.indexDigest);
    const third = await scratch.cache({ registry: () => registry, remote: 'registry.test/team/cache:main' });
    expect((await third.index(layer.descriptor.digest)).hits).to.equal(1);
  });

  it('of a zstd layer travels with an image that is selected, though its tar does not', async () => {
    const registry = memoryRegistry();
    const zstd = layerOf(tar, MediaType.layerZstd);
    await pushImage(registry, 'app', '2', imageOf([zstd]));
    const first = await scratch.cache({ registry: () => registry });
    await first.add('registry.test/app:2');
    await first.index('registry.test/app:2');
    await first.push('registry.test/team/cache:main', { images: ['registry.test/app:2'] });
    const second = await scratch.cache({ registry: () => registry });
    await second.pull('registry.test/team/cache:main', { lazy: true });
    expect(await second.index('registry.test/app:2')).to.include({ hits: 1, bytesRead: 0 });
    expect(second.layer(zstd.diffID).uncompressedForm).to.equal(undefined);
  });

  it('comes with the SOCI index of an image that another tool put into the folder', async () => {
    const registry = memoryRegistry();
    await pushImage(registry, 'app', '1', image);
    const first = await scratch.cache({ registry: () => registry });
    await first.add('registry.test/app:1');
    const dir = join(await scratch.dir(), 'layout');
    await first.export('registry.test/app:1', `oci:${dir}`, { soci: true });
    const second = await scratch.cache({ dir, registry: () => registry });
    expect(await second.index('registry.test/app:1')).to.include({ hits: 1, bytesRead: 0 });
  });

  it('is dropped and made anew when it is no zTOC, or of another layer', async () => {
    const good = await goodIndex();
    const others = [
      Buffer.from('no zTOC at all'),
      encodeZtoc({ ...good, compressedSize: good.compressedSize + 1 }),
      encodeZtoc({
        ...good,
        compression: 'uncompressed',
        checkpoints: [],
        compressedSize: layer.bytes.length,
      }),
    ];
    for (const bytes of others) {
      const cache = await cacheWith(bytes);
      const report = await cache.index('registry.test/app:1');
      expect(report).to.include({ hits: 0, bytesRead: layer.bytes.length });
      expect(knows(cache, bytes)).to.equal(false);
      expect((await cache.layerIndex(layer.diffID)).proven).to.equal(true);
    }
  });

  it('is dropped and made anew when a span is not what it says', async () => {
    const good = await goodIndex();
    const spanDigests = good.spanDigests.map((): Digest => digestOf('other bytes'));
    const bytes = encodeZtoc({ ...good, spanDigests });
    const cache = await cacheWith(bytes);
    expect(await bytesOf(cache.openFile('registry.test/app:1', 'bin/data'))).to.deep.equal(data);
    expect(knows(cache, bytes)).to.equal(false);
    const again = await cacheWith(bytes);
    expect(await bytesOf(again.readRange(layer.diffID, 600, 200_000))).to.deep.equal(
      Buffer.from(tar.subarray(600, 200_000)),
    );
    expect(knows(again, bytes)).to.equal(false);
  });

  it('lets a layer be decompressed by its diffID in parallel, which proves the tar and not the pair', async () => {
    const cache = await cacheWith(encodeZtoc(await goodIndex()));
    expect(await bytesOf(cache.layer(layer.diffID).uncompressed())).to.deep.equal(tar);
    expect(cache.layer(layer.descriptor.digest).proven).to.equal(false);
    expect(await bytesOf(cache.layer(layer.descriptor.digest).uncompressed())).to.deep.equal(tar);
    expect(cache.layer(layer.descriptor.digest).proven).to.equal(true);
  });

  it('that leads astray is dropped, and the layer decompressed without it', async () => {
    const good = await goodIndex();
    const [first, second, ...rest] = good.checkpoints;
    if (first === undefined || second === undefined) throw new Error('a layer of many spans');
    const wrong = [
      // The window of one checkpoint is another's.
      { ...good, checkpoints: [first, { ...second, window: Buffer.alloc(32768, 1) }, ...rest] },
      { ...good, checkpoints: [first, { ...second, input: second.input + 1 }, ...rest] },
      { ...good, checkpoints: [first, ...rest], spanDigests: good.spanDigests.slice(1) },
    ];
    for (const ztoc of wrong) {
      for (const key of [layer.diffID, layer.descriptor.digest]) {
        for (const keepUncompressed of [true, false]) {
          const bytes = encodeZtoc(ztoc);
          const cache = await cacheWith(bytes, { keepUncompressed });
          expect(await bytesOf(cache.layer(key).uncompressed())).to.deep.equal(tar);
          expect(cache.layer(key).diffID).to.equal(layer.diffID);
        }
      }
    }
    const bytes = encodeZtoc(wrong[0] ?? good);
    const cache = await cacheWith(bytes);
    await bytesOf(cache.layer(layer.diffID).uncompressed());
    expect(knows(cache, bytes)).to.equal(false);
  });
});
