import { readFile, rm } from 'node:fs/promises';
import { gzipSync } from 'node:zlib';
import { expect } from 'chai';
import { encodeZtoc, type Ztoc } from '@layercache/layer';
import { OciLayout } from '@layercache/layout';
import { Annotation, MediaType, digestHex, digestOf, type Descriptor, type Digest } from '@layercache/oci';
import { join } from 'node:path';
import { LayerCache, encodeCacheIndex } from '../../src/index.js';
import { imageOf, layerOf, packedLayer, pushCacheIndex, pushImage, tarOf } from '../image-builder.js';
import { Scratch, bytesOf, failure, filesBelow, memoryRegistry } from '../test-cache.js';
import { textBytes } from './text-bytes.js';

const blobFile = (dir: string, digest: Digest): string => join(dir, 'blobs/sha256', digestHex(digest));

describe('a layer index that came from elsewhere', () => {
  const scratch = new Scratch();
  afterEach(() => scratch.clean());
  const data = textBytes(300_000);
  const tar = tarOf({ 'bin/data': data, 'etc/name': 'right' });
  const layer = packedLayer(tar, gzipSync(tar));
  const image = imageOf([layer]);
  const SPAN = 50_000;

  const REMOTE = 'registry.test/team/cache:main';

  /** A cache that pulled a shared one: the image, and what somebody made of the index of its layer. */
  async function cacheWith(
    index: Uint8Array,
    options: { keepUncompressed?: boolean; lazy?: boolean } = {},
  ): Promise<LayerCache> {
    const { lazy = true, ...rest } = options;
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
    await (await scratch.cache({ dir, registry: () => registry })).push(REMOTE);
    const second = await scratch.cache({ registry: () => registry, ...rest });
    await second.pull(REMOTE, { lazy });
    return second;
  }

  async function goodIndex(): Promise<Ztoc> {
    const registry = memoryRegistry();
    await pushImage(registry, 'app', '1', image);
    const cache = await scratch.cache({ registry: () => registry });
    await cache.add('registry.test/app:1');
    return (await cache.layerIndex(layer.diffID, { spanSize: SPAN })).ztoc;
  }

  /** Whether a blob still counts as the index of the layer. */
  const isBelieved = (cache: LayerCache, bytes: Uint8Array): boolean =>
    cache
      .lookup(digestOf(bytes))
      .some(
        ({ descriptor }) => descriptor.annotations?.[Annotation.sociLayerDigest] === layer.descriptor.digest,
      );

  it('is used while the layer is not here, and what it says is called a claim', async () => {
    const bytes = encodeZtoc(await goodIndex());
    const cache = await cacheWith(bytes);
    const report = await cache.index('registry.test/app:1');
    expect(report).to.include({ hits: 1, bytesRead: 0 });
    expect(report.layers[0]).to.include({ indexDigest: digestOf(bytes), claimed: true });
    expect((await cache.view('registry.test/app:1')).claimed).to.equal(true);
    expect((await cache.layerIndex(layer.diffID)).proven).to.equal(false);
    expect(await bytesOf(cache.openFile('registry.test/app:1', 'bin/data'))).to.deep.equal(data);
    expect(await cache.blobs.has(layer.descriptor.digest)).to.equal(false);
  });

  it('is not used where the layer is here: it is made anew, and proven', async () => {
    const good = await goodIndex();
    const cache = await cacheWith(encodeZtoc({ ...good, entries: [] }), { lazy: false });
    const report = await cache.index('registry.test/app:1');
    expect(report).to.include({ hits: 0, bytesRead: layer.bytes.length, files: 2 });
    expect(report.layers[0]).to.include({ claimed: false });
    const view = await cache.view('registry.test/app:1');
    expect(view.claimed).to.equal(false);
    expect(await bytesOf(view.open('bin/data'))).to.deep.equal(data);
  });

  it('has no say in what is extracted: the layer is fetched, read and verified', async () => {
    const good = await goodIndex();
    const lies = good.entries.map((entry) => ({ ...entry, name: entry.name.replace('data', 'evil') }));
    const cache = await cacheWith(encodeZtoc({ ...good, entries: lies }));
    const view = await cache.view('registry.test/app:1');
    expect(view.merged.find('bin/evil')).not.to.equal(undefined);
    const dir = join(await scratch.dir(), 'out');
    await view.extract(dir);
    expect(await filesBelow(dir)).to.deep.equal(['bin/data', 'etc/name']);
    expect(await readFile(join(dir, 'bin/data'))).to.deep.equal(data);
    expect((await cache.view('registry.test/app:1')).claimed).to.equal(false);
  });

  it('travels with a cache that is pushed, and is used by the one that pulls lazily', async () => {
    const registry = memoryRegistry();
    await pushImage(registry, 'app', '1', image);
    const first = await scratch.cache({ registry: () => registry });
    await first.add('registry.test/app:1');
    const { layers } = await first.index('registry.test/app:1');
    await first.push(REMOTE, { images: ['registry.test/app:1'] });
    const second = await scratch.cache({ registry: () => registry });
    await second.pull(REMOTE, { lazy: true });
    const report = await second.index('registry.test/app:1');
    expect(report).to.include({ hits: 1, bytesRead: 0 });
    expect(report.layers[0]?.indexDigest).to.equal(layers[0]?.indexDigest);
    const third = await scratch.cache({ registry: () => registry, remote: REMOTE });
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

  it('that came with the SOCI index of one image serves that image, and no other with the same layer', async () => {
    const registry = memoryRegistry();
    await pushImage(registry, 'app', '1', image);
    const other = imageOf([layer], { platform: { os: 'linux', architecture: 'amd64', variant: 'v2' } });
    await pushImage(registry, 'app', '2', other);
    const first = await scratch.cache({ registry: () => registry });
    await first.add('registry.test/app:1');
    await first.add('registry.test/app:2');
    const dir = join(await scratch.dir(), 'layout');
    await first.export('registry.test/app:1', `oci:${dir}`, { soci: true });
    await first.export('registry.test/app:2', `oci:${dir}`);
    const second = await LayerCache.open(dir, { registry: () => registry });
    await second.close();
    await rm(blobFile(dir, layer.descriptor.digest));
    const third = await scratch.cache({ dir, registry: () => registry });
    expect(await third.index('registry.test/app:1')).to.include({ hits: 1, bytesRead: 0 });
    expect((await third.view('registry.test/app:1')).claimed).to.equal(true);
    await failure('NOT_FOUND', () => third.index('registry.test/app:2'));
  });

  it('is rejected when it is no zTOC, or of another layer; its blob stays', async () => {
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
      expect(isBelieved(cache, bytes)).to.equal(false);
      expect(await bytesOf(cache.blob(digestOf(bytes)))).to.deep.equal(Buffer.from(bytes));
      expect((await cache.layerIndex(layer.diffID)).proven).to.equal(true);
      await cache.pull(REMOTE, { lazy: true });
      expect(isBelieved(cache, bytes)).to.equal(false);
    }
  });

  it('is rejected when a span is not what it says, and the layer is read without it', async () => {
    const good = await goodIndex();
    const spanDigests = good.spanDigests.map((): Digest => digestOf('other bytes'));
    const bytes = encodeZtoc({ ...good, spanDigests });
    const cache = await cacheWith(bytes);
    expect(await bytesOf(cache.openFile('registry.test/app:1', 'bin/data'))).to.deep.equal(data);
    expect(isBelieved(cache, bytes)).to.equal(false);
    const again = await cacheWith(bytes);
    expect(await bytesOf(again.readRange(layer.diffID, 600, 200_000))).to.deep.equal(
      Buffer.from(tar.subarray(600, 200_000)),
    );
    expect(isBelieved(again, bytes)).to.equal(false);
  });

  it('has no say in how a layer is decompressed, right or wrong', async () => {
    const good = await goodIndex();
    const [first, second, ...rest] = good.checkpoints;
    if (first === undefined || second === undefined) throw new Error('a layer of many spans');
    const others = [
      // The window of one checkpoint is another's.
      { ...good, checkpoints: [first, { ...second, window: Buffer.alloc(32768, 1) }, ...rest] },
      { ...good, checkpoints: [first, { ...second, input: second.input + 1 }, ...rest] },
      { ...good, checkpoints: [first, ...rest], spanDigests: good.spanDigests.slice(1) },
    ];
    for (const [at, ztoc] of others.entries()) {
      const key = at === 1 ? layer.diffID : layer.descriptor.digest;
      const cache = await cacheWith(encodeZtoc(ztoc), { keepUncompressed: at === 0 });
      expect(await bytesOf(cache.layer(key).uncompressed())).to.deep.equal(tar);
      expect(cache.layer(key).diffID).to.equal(layer.diffID);
    }
  });

  it('does not make an index of a blob that is known to be something else', async () => {
    const bytes = encodeZtoc(await goodIndex());
    const registry = memoryRegistry();
    await pushImage(registry, 'app', '1', image);
    const cache = await cacheWith(bytes);
    const claims = (claimed: Descriptor): Descriptor => ({
      ...claimed,
      mediaType: MediaType.octetStream,
      annotations: {
        [Annotation.sociLayerDigest]: layer.descriptor.digest,
        [Annotation.diffID]: layer.diffID,
      },
    });
    const shared = encodeCacheIndex([claims(image.config.descriptor), claims(layer.descriptor)], []);
    await pushCacheIndex(registry, 'team/evil', 'main', shared, image);
    const victim = await scratch.cache({ registry: () => registry });
    await victim.add('registry.test/app:1');
    await victim.pull('registry.test/team/evil:main');
    expect(await victim.index('registry.test/app:1')).to.include({ hits: 0, files: 2 });
    expect(await bytesOf(victim.blob(image.config.descriptor.digest))).to.deep.equal(image.config.bytes);
    expect(isBelieved(cache, bytes)).to.equal(true);
  });
});
