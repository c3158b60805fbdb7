import { utimes, writeFile } from 'node:fs/promises';
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { Annotation, MediaType, digestHex, digestOf, type Digest } from '@layercache/oci';
import { OciLayout } from '@layercache/layout';
import { imageOf, layerOf, pushImage, pushIndex, tarOf } from '../image-builder.js';
import { Scratch, bytesOf, filesBelow, memoryRegistry } from '../test-cache.js';
import type { LayerCache } from '../../src/index.js';

const scratch = new Scratch();
afterEach(() => scratch.clean());

const base = layerOf(tarOf({ 'base.txt': 'what every image is made of'.repeat(500) }));
const first = imageOf([base, layerOf(tarOf({ 'first.txt': 'first' }))]);
const second = imageOf([base, layerOf(tarOf({ 'second.txt': 'second'.repeat(2000) }))]);

async function cacheOfBoth(): Promise<LayerCache> {
  const registry = memoryRegistry();
  await pushImage(registry, 'team/first', '1', first);
  await pushImage(registry, 'team/second', '1', second);
  const cache = await scratch.cache({ registry: () => registry });
  await cache.add('registry.example/team/first:1');
  await cache.add('registry.example/team/second:1');
  return cache;
}

function blobPath(cache: LayerCache, digest: Digest): string {
  return join(cache.dir, 'blobs', 'sha256', digestHex(digest));
}

/** Of an image that was added and never decompressed. */
function sizeOf(image: typeof first): number {
  const layers = image.layers.reduce((sum, layer) => sum + layer.bytes.length, 0);
  return image.bytes.length + image.config.bytes.length + layers;
}

describe('statistics', () => {
  it('count the bytes on disk as an independent walk does, to the byte', async () => {
    const cache = await cacheOfBoth();
    const { disk } = await cache.stats();
    const sizes = (await filesBelow(cache.dir)).map(
      (path) => [path, statSync(join(cache.dir, path)).size] as const,
    );
    const below = (prefix: string): number =>
      sizes.filter(([path]) => path.startsWith(prefix)).reduce((sum, [, size]) => sum + size, 0);
    expect(disk.total).to.equal(below(''));
    expect(disk.blobs).to.equal(below('blobs/'));
    expect(disk.sideState + disk.ingest).to.equal(below('.layercache/'));
    expect(disk.index).to.equal(below('index.json') + below('oci-layout'));
  });

  it('count what is written but not finished', async () => {
    const cache = await cacheOfBoth();
    const before = (await cache.stats()).disk;
    const layout = await OciLayout.open(cache.dir);
    async function* halfway(): AsyncGenerator<Uint8Array> {
      yield Buffer.alloc(9_000_000);
      const { disk } = await cache.stats();
      expect(disk.ingest).to.be.greaterThan(0);
      expect(disk.total - before.total).to.equal(disk.ingest);
      yield Buffer.alloc(10);
    }
    await layout.write(halfway());
    await layout.close();
  });

  it('say of each image what it shares and what is its own', async () => {
    const cache = await cacheOfBoth();
    const { images, deduplication } = await cache.stats();
    const shared = base.bytes.length;
    expect(
      images.map(({ names, size, shared: common, unique, layers }) => ({
        names,
        size,
        common,
        unique,
        layers,
      })),
    ).to.have.deep.members([
      {
        names: ['registry.example/team/first:1'],
        size: sizeOf(first),
        common: shared,
        unique: sizeOf(first) - shared,
        layers: 2,
      },
      {
        names: ['registry.example/team/second:1'],
        size: sizeOf(second),
        common: shared,
        unique: sizeOf(second) - shared,
        layers: 2,
      },
    ]);
    const logical = sizeOf(first) + sizeOf(second);
    expect(deduplication).to.deep.equal({
      logical,
      unique: logical - shared,
      ratio: logical / (logical - shared),
    });
  });

  it('count a tar and a layer index to the image whose layer they are of', async () => {
    const cache = await cacheOfBoth();
    const [, own] = first.layers;
    await bytesOf(cache.layer(own!.descriptor.digest).uncompressed());
    const layout = await OciLayout.open(cache.dir);
    const index = await layout.write(Buffer.from('a table of contents'));
    await layout.put(
      {
        ...index,
        mediaType: MediaType.octetStream,
        annotations: { [Annotation.sociLayerDigest]: own!.descriptor.digest },
      },
      { proven: true },
    );
    await layout.close();
    const { images, kinds } = await cache.stats();
    const image = images.find(({ names }) => names.includes('registry.example/team/first:1'));
    expect(image?.unique).to.equal(sizeOf(first) - base.bytes.length + own!.tar.length + index.size);
    expect(kinds.find(({ kind }) => kind === 'layer index')).to.deep.equal({
      kind: 'layer index',
      entries: 1,
      blobs: 1,
      size: index.size,
      reclaimable: index.size,
    });
    expect(kinds.find(({ kind }) => kind === 'tar')?.size).to.equal(own!.tar.length);
  });

  it('count every blob to one kind', async () => {
    const cache = await cacheOfBoth();
    const { kinds, blobs, disk, entries } = await cache.stats();
    const count = Object.fromEntries(kinds.map((kind) => [kind.kind, kind.blobs]));
    expect(count).to.include({
      manifest: 2,
      config: 2,
      'compressed layer': 3,
      tar: 0,
      'layer index': 0,
      other: 0,
    });
    expect(kinds.reduce((sum, kind) => sum + kind.blobs, 0)).to.equal(blobs);
    expect(kinds.reduce((sum, kind) => sum + kind.size, 0)).to.equal(disk.blobs);
    expect(entries).to.equal([...cache.entries()].length);
  });

  it('tell proven pairs from claimed ones, and both from layers with one name', async () => {
    const cache = await cacheOfBoth();
    await cache.layer(base.diffID).prove();
    const layout = await OciLayout.open(cache.dir);
    await layout.put({ ...(await layout.write(Buffer.from('unpaired'))), mediaType: MediaType.layerGzip });
    await layout.close();
    expect((await cache.stats()).pairs).to.deep.equal({ proven: 1, claimed: 2, unpaired: 1 });
  });

  it('take an index and the images below it for one image, under all of its names', async () => {
    const registry = memoryRegistry();
    await pushIndex(registry, 'team/both', '1', [first, second]);
    await pushIndex(registry, 'team/both', 'latest', [first, second]);
    const cache = await scratch.cache({ registry: () => registry });
    await cache.add('registry.example/team/both:1', { platform: 'all' });
    await cache.add('registry.example/team/both:latest', { platform: 'all' });
    const { images } = await cache.stats();
    expect(images.map(({ names }) => names)).to.deep.equal([
      ['registry.example/team/both:1', 'registry.example/team/both:latest'],
    ]);
    expect(images[0]).to.include({ shared: 0, layers: 3 });
  });

  it('know an image that lost its name, and blobs that no image needs', async () => {
    const cache = await cacheOfBoth();
    await cache.untag('registry.example/team/first:1');
    const layout = await OciLayout.open(cache.dir);
    const orphan = await layout.write(Buffer.from('nobody needs me'));
    await layout.close();
    const { images, unreferenced, kinds } = await cache.stats();
    expect(images.find(({ digest }) => digest === first.descriptor.digest)?.names).to.deep.equal([]);
    expect(unreferenced).to.deep.equal({ blobs: 1, size: orphan.size });
    expect(kinds.find(({ kind }) => kind === 'other')?.blobs).to.equal(1);
  });

  it('say what can be made again, and that a prune takes just that', async () => {
    const cache = await cacheOfBoth();
    await bytesOf(cache.layer(base.diffID).uncompressed());
    const before = await cache.stats();
    expect(before.reclaimable.free).to.equal(base.tar.length);
    expect(before.kinds.find(({ kind }) => kind === 'tar')?.reclaimable).to.equal(base.tar.length);
    expect(before.kinds.find(({ kind }) => kind === 'compressed layer')?.reclaimable).to.equal(0);
    await cache.prune({ maxSize: before.disk.total - base.tar.length });
    const after = await cache.stats();
    expect(after.reclaimable.free).to.equal(0);
    expect(after.kinds.find(({ kind }) => kind === 'tar')?.blobs).to.equal(0);
    expect(after.images).to.have.length(2);
  });

  it('tell pinned images', async () => {
    const cache = await cacheOfBoth();
    await cache.pin('registry.example/team/first:1');
    const { images } = await cache.stats();
    expect(images.filter(({ pinned }) => pinned).map(({ digest }) => digest)).to.deep.equal([
      first.descriptor.digest,
    ]);
  });

  it('list the largest blobs, and as many as are wanted', async () => {
    const cache = await cacheOfBoth();
    const { top } = await cache.stats({ top: 2 });
    const sizes = (await cache.stats({ top: 1000 })).top.map(({ size }) => size);
    expect(top.map(({ size }) => size)).to.deep.equal(sizes.slice(0, 2));
    expect(sizes).to.deep.equal([...sizes].sort((a, b) => b - a));
  });

  it('sort blobs by their last use, and do not use any themselves', async () => {
    const cache = await cacheOfBoth();
    const old = new Date(Math.floor(Date.now() / 1000 - 45 * 86_400) * 1000);
    for (const layer of [first.descriptor, first.layers[1]!.descriptor, first.config.descriptor])
      await utimes(blobPath(cache, layer.digest), old, old);
    const { ages, images } = await cache.stats();
    expect(ages.find(({ until }) => until === 90 * 86_400_000)?.blobs).to.equal(3);
    expect(ages.reduce((sum, band) => sum + band.blobs, 0)).to.equal((await cache.stats()).blobs);
    const image = images.find(({ digest }) => digest === first.descriptor.digest);
    expect(image?.usedAt?.getTime()).to.equal(old.getTime());
    expect(statSync(blobPath(cache, first.descriptor.digest)).mtimeMs).to.equal(old.getTime());
  });

  it('know nothing of an image whose manifest is corrupt', async () => {
    const cache = await cacheOfBoth();
    await writeFile(blobPath(cache, first.descriptor.digest), Buffer.alloc(first.bytes.length, '{'));
    const { images } = await cache.stats();
    expect(images.find(({ digest }) => digest === first.descriptor.digest)?.layers).to.equal(0);
    expect(images.find(({ digest }) => digest === second.descriptor.digest)?.layers).to.equal(2);
  });

  it('count what a remote has apart', async () => {
    const cache = await cacheOfBoth();
    const blob = Buffer.from('not here');
    const layout = await OciLayout.open(cache.dir);
    await layout.put({ mediaType: MediaType.layerGzip, digest: digestOf(blob), size: blob.length });
    await layout.close();
    expect((await cache.stats()).absent).to.equal(1);
  });
});
