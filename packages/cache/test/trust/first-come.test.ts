import { mkdir, readFile, rm, utimes, writeFile } from 'node:fs/promises';
import { randomBytes } from 'node:crypto';
import { dirname, join } from 'node:path';
import { expect } from 'chai';
import { Annotation, MediaType, digestHex, digestOf, type Descriptor } from '@layercache/oci';
import type { Registry } from '@layercache/registry';
import { LayerCache, decodeCacheIndex, decodeShard, encodeCacheIndex } from '../../src/index.js';
import { imageOf, layerOf, pushCacheIndex, pushImage, tarOf, type BuiltImage } from '../image-builder.js';
import { Scratch, bytesOf, failure, memoryRegistry } from '../test-cache.js';

const REMOTE = 'registry.test/team/cache:main';
const NAME = 'docker.io/library/alpine:3.20';

const someImage = (mediaType?: string): BuiltImage =>
  imageOf([layerOf(tarOf({ os: 'good', data: randomBytes(500) }), mediaType)]);

/** A shared cache of these entries and images, with the blobs of an image beside it. */
async function share(
  registry: Registry,
  entries: readonly Descriptor[],
  images: readonly Descriptor[] = [],
  beside?: BuiltImage,
): Promise<void> {
  await pushCacheIndex(registry, 'team/cache', 'main', encodeCacheIndex(entries, images), beside);
}

describe('what a stranger says first', () => {
  const scratch = new Scratch();
  afterEach(() => scratch.clean());

  it('of a name in other letters does not stand against the name that is known', async () => {
    const registry = memoryRegistry();
    const [good, evil] = [someImage(), someImage()];
    await pushImage(registry, 'library/alpine', '3.20', good);
    const cache = await scratch.cache({ registry: () => registry });
    await cache.add(NAME);
    const spellings = [
      'alpine:3.20',
      'library/alpine:3.20',
      'docker.io/alpine:3.20',
      'index.docker.io/library/alpine:3.20',
    ];
    const named = spellings.map((name) => ({
      ...evil.descriptor,
      annotations: { [Annotation.refName]: name },
    }));
    await share(registry, [], named, evil);
    const { names } = await cache.pull(REMOTE);
    for (const name of [...spellings, NAME])
      expect(cache.image(name).digest, name).to.equal(good.descriptor.digest);
    expect(names.different.map((each) => each.name)).to.have.members(spellings);
  });

  it('of the size of a layer does not keep it from the mirror, nor from a lazy read', async () => {
    const upstream = memoryRegistry();
    const good = someImage();
    const [layer] = good.layers;
    if (layer === undefined) throw new Error('an image has a layer');
    await pushImage(upstream, 'library/alpine', '3.20', good);
    await share(upstream, [{ ...layer.descriptor, size: 1 }], [], good);
    const cache = await scratch.cache({ registry: () => upstream });
    await cache.pull(REMOTE, { lazy: true });
    const mirror = cache.mirror('docker.io');
    await mirror.fetchManifest('library/alpine', '3.20');
    const { size, body } = await mirror.fetchBlob('library/alpine', layer.descriptor.digest);
    expect(await bytesOf(body)).to.deep.equal(Buffer.from(layer.bytes));
    expect(size).to.equal(layer.bytes.length);

    const other = await scratch.cache({ registry: () => upstream });
    await other.pull(REMOTE, { lazy: true });
    expect(await bytesOf(other.blob(layer.descriptor.digest))).to.deep.equal(Buffer.from(layer.bytes));
    expect(other.lookup(layer.descriptor.digest)[0]?.descriptor.size).to.equal(layer.bytes.length);
  });

  it('of the form of a blob is undone when the bytes come with the image that knows better', async () => {
    const plain = someImage(MediaType.layer);
    const lies = [plain.layers[0]?.descriptor, plain.config.descriptor].flatMap((each) =>
      each === undefined
        ? []
        : [
            {
              ...each,
              mediaType: MediaType.layerGzip,
              annotations: { [Annotation.diffID]: digestOf('lie') },
            },
          ],
    );
    for (const lie of lies) {
      const registry = memoryRegistry();
      await pushImage(registry, 'library/alpine', '3.20', plain);
      await share(registry, [lie], [], plain);
      const cache = await scratch.cache({ registry: () => registry });
      await cache.pull(REMOTE, { lazy: true });
      await cache.add(NAME);
      const view = await cache.view(NAME);
      expect((await bytesOf(view.open('os'))).toString()).to.equal('good');
      expect((await cache.verify()).problems).to.deep.equal([]);
      expect([...cache.layers()].map((layer) => layer.diffID)).to.deep.equal([plain.layers[0]?.diffID]);
    }
  });

  it('of a proven layer in index.json, beside its entry, leaves the proof and the size', async () => {
    const registry = memoryRegistry();
    const good = someImage();
    const [layer] = good.layers;
    if (layer === undefined) throw new Error('an image has a layer');
    await pushImage(registry, 'library/alpine', '3.20', good);
    const dir = join(await scratch.dir(), 'cache');
    const first = await LayerCache.open(dir, { registry: () => registry });
    await first.add(NAME);
    await first.index(NAME);
    await first.close();
    const path = join(dir, 'index.json');
    const index = JSON.parse(await readFile(path, 'utf8')) as { manifests: Descriptor[] };
    const { digest } = layer.descriptor;
    index.manifests.push(
      {
        mediaType: MediaType.layerZstd,
        digest,
        size: 1,
        annotations: { [Annotation.diffID]: digestOf('lie') },
      },
      { mediaType: MediaType.octetStream, digest, size: 2 },
    );
    await writeFile(path, JSON.stringify(index));
    const second = await scratch.cache({ dir, registry: () => registry });
    const known = second.layer(digest);
    expect(known).to.include({ proven: true, diffID: layer.diffID });
    expect(second.lookup(digest).map(({ descriptor }) => descriptor.size)).to.deep.equal([
      layer.bytes.length,
    ]);
    expect((await second.index(NAME)).hits).to.equal(1);
  });

  it('of one entry that is not valid leaves the others of a shared cache as they are', () => {
    const good = someImage();
    const [layer] = good.layers.map(({ descriptor }) => descriptor);
    if (layer === undefined) throw new Error('an image has a layer');
    const { shards } = encodeCacheIndex([layer], []);
    const bad = [
      { ...layer, digest: 'sha256:nothing' },
      { ...layer, size: -1 },
      { ...layer, urls: ['file:///etc/passwd'] },
      { ...layer, artifactType: 'x'.repeat(3_000_000) },
      { ...layer, platform: { os: 'linux\u001b', architecture: 'x' } },
      null,
    ];
    const document = JSON.parse(Buffer.from(shards[0]?.bytes ?? []).toString()) as { layers: unknown[] };
    document.layers.push(...bad);
    const { entries } = decodeShard(Buffer.from(JSON.stringify(document)), 'shard');
    expect(entries).to.deep.equal([layer]);
    const children = {
      schemaVersion: 2,
      artifactType: 'application/vnd.layercache.cache.v1',
      manifests: [...bad, good.descriptor],
    };
    const decoded = decodeCacheIndex(Buffer.from(JSON.stringify(children)), 'index');
    expect(decoded?.images.map((image) => image.digest)).to.deep.equal([good.descriptor.digest]);
  });

  it('in many names for one image is bounded', () => {
    const image = someImage().descriptor;
    const manifests = Array.from({ length: 5000 }, (_, n) => ({
      ...image,
      annotations: { [Annotation.refName]: `a.example/x:${n}` },
    }));
    const index = { schemaVersion: 2, artifactType: 'application/vnd.layercache.cache.v1', manifests };
    const decoded = decodeCacheIndex(Buffer.from(JSON.stringify(index)), 'index');
    const named = decoded?.images.filter((each) => each.annotations?.[Annotation.refName] !== undefined);
    expect(named).to.have.length(256);
  });

  it('in a document that looks like a cache index and belongs to an image is not restored from', async () => {
    const registry = memoryRegistry();
    const [good, evil] = [someImage(), someImage()];
    await pushImage(registry, 'library/alpine', '3.20', good);
    const dir = join(await scratch.dir(), 'cache');
    const first = await LayerCache.open(dir, { registry: () => registry });
    await first.add(NAME);
    await first.close();
    const named = { ...evil.descriptor, annotations: { [Annotation.refName]: NAME } };
    const fake = Buffer.from(encodeCacheIndex([], [named]).bytes);
    const artifact = Buffer.from(
      JSON.stringify({
        schemaVersion: 2,
        mediaType: MediaType.manifest,
        config: evil.config.descriptor,
        layers: [{ mediaType: MediaType.octetStream, digest: digestOf(fake), size: fake.length }],
      }),
    );
    for (const bytes of [evil.bytes, evil.config.bytes, artifact, fake]) {
      const path = join(dir, 'blobs/sha256', digestHex(digestOf(bytes)));
      await mkdir(dirname(path), { recursive: true });
      await writeFile(path, bytes);
    }
    await writeFile(join(dir, 'index.json'), '');
    const past = new Date(Date.now() - 60_000);
    await utimes(join(dir, 'index.json'), past, past);
    await rm(join(dir, '.layercache'), { recursive: true });
    const second = await scratch.cache({ dir, registry: () => registry, repair: true });
    await second.verify({ repair: true, grace: 0 });
    expect(second.image(NAME).digest).to.equal(good.descriptor.digest);
  });
});

describe('a request by digest', () => {
  it('is never answered with a manifest that only calls itself so', async () => {
    const scratch = new Scratch();
    try {
      const registry = memoryRegistry();
      const good = someImage();
      await pushImage(registry, 'library/alpine', '3.20', good);
      const dir = join(await scratch.dir(), 'cache');
      const first = await LayerCache.open(dir, { registry: () => registry });
      await first.add(NAME);
      await first.close();
      const path = join(dir, 'index.json');
      const index = JSON.parse(await readFile(path, 'utf8')) as { manifests: Descriptor[] };
      const other = digestOf('another manifest');
      const entry = index.manifests.find(({ digest }) => digest === good.descriptor.digest);
      if (entry !== undefined)
        Object.assign(entry, { annotations: { ...entry.annotations, [Annotation.diffID]: other } });
      await writeFile(path, JSON.stringify(index));
      const cache = await scratch.cache({ dir, registry: () => registry });
      await failure('NOT_FOUND', () => cache.registry().resolve('library/alpine', other));
    } finally {
      await scratch.clean();
    }
  });
});
