import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import { OciLayout } from '@layercache/layout';
import {
  Annotation,
  MAX_MANIFEST_SIZE,
  MediaType,
  digestOf,
  parseImageIndex,
  withAnnotations,
  type Descriptor,
} from '@layercache/oci';
import { MemoryRegistry } from '@layercache/registry';
import { decodeCacheIndex, decodeImageShard, encodeCacheIndex } from '../../src/index.js';
import { imageOf, layerOf, tarOf } from '../image-builder.js';
import { Scratch, bytesOf } from '../test-cache.js';

const COUNT = 30_000;
const TARGET = 'registry.test/team/cache:main';

const nameOf = (n: number): string => `registry.example/a/team/of/many/services/service-${n}:1.0`;
const named = (image: Descriptor, name: string): Descriptor =>
  withAnnotations(image, { [Annotation.refName]: name, [Annotation.containerdName]: name });
const someImage = (n: number): Descriptor =>
  named({ mediaType: MediaType.manifest, digest: digestOf(`image ${n}`), size: 500 }, nameOf(n));
const images = (count: number): Descriptor[] => Array.from({ length: count }, (_, n) => someImage(n));

describe('the cache index of many images', () => {
  it('lists them in indexes of their own, none larger than registries take, and gives back each', () => {
    const index = encodeCacheIndex([], images(COUNT));
    expect(index.bytes.length).to.be.below(10_000);
    expect(index.imageShards.length).to.be.at.least(3);
    const decoded = decodeCacheIndex(index.bytes, 'index');
    expect(decoded?.images).to.deep.equal([]);
    expect(decoded?.imageShards).to.deep.equal(index.imageShards.map((shard) => shard.descriptor));
    const listed = new Map<string, string>();
    for (const { bytes } of index.imageShards) {
      expect(bytes.length).to.be.below(MAX_MANIFEST_SIZE);
      // Other tools see an index of images.
      expect(parseImageIndex(bytes, 'shard').manifests.map(({ mediaType }) => mediaType)).to.include(
        MediaType.manifest,
      );
      for (const image of decodeImageShard(bytes, 'shard'))
        listed.set(image.annotations?.[Annotation.refName] ?? '', image.digest);
    }
    expect(listed.size).to.equal(COUNT);
    for (let n = 0; n < COUNT; n += 1000) expect(listed.get(nameOf(n))).to.equal(digestOf(`image ${n}`));
  });

  it('has the same bytes in whatever order they come, and one shard that changes with one more', () => {
    const size = 8 * 1024;
    const before = encodeCacheIndex([], images(300), size);
    expect(before.imageShards.length).to.be.greaterThan(8);
    const reversed = encodeCacheIndex([], images(300).reverse(), size);
    expect(Buffer.compare(before.bytes, reversed.bytes)).to.equal(0);
    const known = new Set(before.imageShards.map(({ descriptor }) => descriptor.digest));
    const after = encodeCacheIndex([], images(301), size);
    const fresh = after.imageShards.filter(({ descriptor }) => !known.has(descriptor.digest));
    expect(fresh.length).to.be.at.most(2);
  });

  it('lists a few beside the shards of entries, as other tools expect', () => {
    const index = encodeCacheIndex([], images(100));
    expect(index.imageShards).to.deep.equal([]);
    expect(decodeCacheIndex(index.bytes, 'index')?.images).to.have.length(100);
  });

  it('splits the many names of one image as well', () => {
    const image = { mediaType: MediaType.manifest, digest: digestOf('image'), size: 500 };
    const all = Array.from({ length: 500 }, (_, n) => named(image, nameOf(n)));
    const index = encodeCacheIndex([], all, 8 * 1024);
    for (const { bytes } of index.imageShards) expect(bytes.length).to.be.at.most(8 * 1024);
    const listed = index.imageShards.flatMap(({ bytes }) => decodeImageShard(bytes, 'shard'));
    expect(listed).to.have.length(500);
  });
});

describe('a cache of many images', () => {
  const scratch = new Scratch();
  afterEach(() => scratch.clean());

  it('is pushed, pulled, and brought here by other tools whole', async () => {
    const registry = new MemoryRegistry();
    const built = Array.from({ length: 30 }, (_, n) => imageOf([layerOf(tarOf({ a: `file ${n}` }))]));
    // Long names fill an index with fewer of them.
    const all = Array.from({ length: 2700 }, (_, n) => ({
      name: `registry.example/${'a/'.repeat(280)}service-${n}:1`,
      image: built[n % 30] ?? imageOf([]),
    }));
    const blobs = built.flatMap((image) => [image.config, ...image.layers]);
    const layout = await OciLayout.open(join(await scratch.dir(), 'cache'));
    for (const { bytes } of [...built, ...blobs]) await layout.write(bytes);
    await layout.put([
      ...blobs.map(({ descriptor }) => descriptor),
      ...all.map(({ name, image }) => named(image.descriptor, name)),
    ]);
    await layout.close();
    const cache = await scratch.cache({ dir: layout.dir, registry: () => registry });
    expect((await cache.push(TARGET)).images).to.equal(all.length);
    const pulling = await scratch.cache({ registry: () => registry });
    expect((await pulling.pull(TARGET, { names: 'trust' })).images).to.equal(all.length);
    for (const { name, image } of all.slice(0, 10))
      expect(pulling.image(name).digest).to.equal(image.descriptor.digest);
    expect((await pulling.push(TARGET)).sent.blobs).to.equal(0);

    // What a copy by another tool has: the blobs, and the cache index under its name.
    const index = pulling.image('layercache');
    const dir = join(await scratch.dir(), 'copied');
    const copied = await OciLayout.open(dir);
    const decoded = decodeCacheIndex(await bytesOf(pulling.blob(index.digest)), 'index');
    expect(decoded?.imageShards.length).to.be.at.least(2);
    const documents = [...(decoded?.shards ?? []), ...(decoded?.imageShards ?? [])];
    for (const { digest } of documents) await copied.write(await bytesOf(pulling.blob(digest)));
    for (const { bytes } of [...built, ...blobs]) await copied.write(bytes);
    await copied.write(await bytesOf(pulling.blob(index.digest)));
    const { mediaType, digest, size } = index;
    await copied.put({ mediaType, digest, size, annotations: { [Annotation.refName]: 'layercache' } });
    await copied.close();
    await rm(join(dir, '.layercache'), { recursive: true });
    const opened = await scratch.cache({ dir });
    expect([...opened.images()]).to.have.length(all.length);
  }).timeout(60_000);
});
