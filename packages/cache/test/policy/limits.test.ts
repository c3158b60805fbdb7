import { randomBytes } from 'node:crypto';
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { digestHex, parseImageIndex } from '@layercache/oci';
import { readFile, writeFile } from 'node:fs/promises';
import type { LayerCache } from '../../src/index.js';
import { imageOf, layerOf, pushImage, tarOf, type BuiltImage } from '../image-builder.js';
import { Scratch, bytesOf, failure, memoryRegistry } from '../test-cache.js';

const MiB = 1024 * 1024;

function diskUse(dir: string): number {
  const seen = new Map<number, number>();
  for (const entry of readdirSync(dir, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const facts = statSync(join(entry.parentPath, entry.name), { throwIfNoEntry: false });
    if (facts !== undefined) seen.set(facts.ino, facts.size);
  }
  return [...seen.values()].reduce((sum, size) => sum + size, 0);
}

/** An image of layers that do not compress. */
function incompressible(...sizes: number[]): BuiltImage {
  return imageOf(sizes.map((size) => layerOf(tarOf({ data: randomBytes(size) }))));
}

describe('a cache with limits', function () {
  this.timeout(60_000);
  const scratch = new Scratch();
  const registry = memoryRegistry();
  afterEach(() => scratch.clean());

  const open = (maxSize: number, dir?: string): Promise<LayerCache> =>
    scratch.cache({ limits: { maxSize }, registry: () => registry, ...(dir === undefined ? {} : { dir }) });

  const add = async (cache: LayerCache, name: string, image: BuiltImage): Promise<void> => {
    await pushImage(registry, 'r/app', name, image);
    await cache.add(`reg.test/r/app:${name}`);
  };

  it('of 4 MiB takes a stream of 20 MiB of images, keeps the last and what is pinned, and stays below', async () => {
    const cache = await open(4 * MiB);
    let most = 0;
    const sampler = setInterval(() => {
      most = Math.max(most, diskUse(cache.dir));
    }, 4);
    try {
      const pinned = incompressible(200_000);
      await add(cache, 'pinned', pinned);
      await cache.pin('reg.test/r/app:pinned');
      for (let n = 0; n < 20; n++) {
        const image = incompressible(600_000, 400_000);
        await add(cache, `v${n}`, image);
        for (const layer of image.layers) {
          const tar = await bytesOf(cache.layer(layer.diffID).uncompressed());
          expect(tar.equals(layer.tar)).to.equal(true);
        }
      }
      const [layer] = pinned.layers;
      expect((await bytesOf(cache.layer(layer!.diffID).uncompressed())).equals(layer!.tar)).to.equal(true);
      expect(cache.image('reg.test/r/app:v19')).to.be.an('object');
      expect([...cache.images()].length).to.be.lessThan(6);
    } finally {
      clearInterval(sampler);
    }
    await cache.close();
    expect(most).to.be.at.most(4 * MiB);
    expect(diskUse(cache.dir)).to.be.greaterThan(2 * MiB);
    const index = parseImageIndex(await readFile(join(cache.dir, 'index.json')));
    for (const { digest } of index.manifests) {
      expect(cacheHas(cache.dir, digest), digest).to.equal(true);
    }
  });

  it('evicts tars that can be made again before anything else, and reads a tar it has no room for', async () => {
    const cache = await open(2 * MiB);
    const first = incompressible(500_000);
    await add(cache, 'first', first);
    const tar = first.layers[0]!;
    await bytesOf(cache.layer(tar.diffID).uncompressed());
    expect(cache.layer(tar.diffID).uncompressedForm).not.to.equal(undefined);
    await add(cache, 'second', incompressible(1_050_000));
    expect(cache.layer(tar.diffID).uncompressedForm, 'the tar went').to.equal(undefined);
    expect([...cache.images()].map(({ name }) => name)).to.have.length(2);
    await add(cache, 'third', incompressible(400_000));
    expect((await bytesOf(cache.layer(tar.diffID).uncompressed())).equals(tar.tar)).to.equal(true);
    expect([...cache.images()], 'no image went for a tar').to.have.length(3);
  });

  it('fails with CACHE_FULL before a byte comes, when a layer can never fit', async () => {
    const cache = await open(MiB);
    const small = incompressible(100_000);
    await add(cache, 'small', small);
    const image = incompressible(2 * MiB);
    await pushImage(registry, 'r/app', 'large', image);
    registry.asked.clear();
    await failure('CACHE_FULL', () => cache.add('reg.test/r/app:large'));
    expect(registry.asked.get('fetchBlob') ?? 0, 'only the config came').to.be.at.most(1);
    expect(cache.image('reg.test/r/app:small')).to.be.an('object');
  });

  it('fails with CACHE_FULL when all that could go is pinned', async () => {
    const cache = await open(2 * MiB);
    await add(cache, 'pinned', incompressible(MiB));
    await cache.pin('reg.test/r/app:pinned');
    const image = incompressible(MiB);
    await pushImage(registry, 'r/app', 'more', image);
    registry.asked.clear();
    await failure('CACHE_FULL', () => cache.add('reg.test/r/app:more'));
    expect(registry.asked.get('fetchBlob') ?? 0).to.be.at.most(1);
    await cache.unpin('reg.test/r/app:pinned');
    await cache.add('reg.test/r/app:more');
    await failure('NOT_FOUND', () => cache.image('reg.test/r/app:pinned'));
  });

  it('comes below a limit that is lower than what is there when it stores something', async () => {
    const dir = join(await scratch.dir(), 'cache');
    const large = await open(100 * MiB, dir);
    for (let n = 0; n < 5; n++) await add(large, `old${n}`, incompressible(400_000));
    await large.close();
    const cache = await open(MiB, dir);
    await add(cache, 'next', incompressible(1000));
    expect(diskUse(dir)).to.be.at.most(MiB);
    expect([...cache.images()].length).to.be.within(2, 3);
  });

  it('never has more entries than it may have', async () => {
    const cache = await scratch.cache({ limits: { maxEntries: 10 }, registry: () => registry });
    for (let n = 0; n < 8; n++) {
      await add(cache, `few${n}`, incompressible(1000));
      expect([...cache.entries()].filter((entry) => entry.descriptor.size > 0).length).to.be.at.most(11);
    }
    expect(cache.image('reg.test/r/app:few7')).to.be.an('object');
  });

  it('counts what another tool brings, and makes room for it before it takes more', async () => {
    const cache = await open(MiB);
    await add(cache, 'first', incompressible(300_000));
    await cache.sync();
    const { descriptor, bytes, config, layers } = incompressible(500_000);
    for (const blob of [{ descriptor, bytes }, config, ...layers])
      await writeFile(join(cache.dir, 'blobs/sha256', digestHex(blob.descriptor.digest)), blob.bytes);
    const path = join(cache.dir, 'index.json');
    const index = parseImageIndex(await readFile(path));
    const annotations = { 'org.opencontainers.image.ref.name': 'theirs' };
    const manifests = [...index.manifests, { ...descriptor, annotations }];
    await writeFile(path, JSON.stringify({ ...index, manifests }));
    await cache.sync();
    await add(cache, 'second', incompressible(300_000));
    expect(diskUse(cache.dir)).to.be.at.most(MiB);
    expect([...cache.images()].map(({ name }) => name)).to.include('reg.test/r/app:second');
    await cache.prune({ maxSize: 1 });
    await add(cache, 'third', incompressible(700_000));
    expect(diskUse(cache.dir)).to.be.at.most(MiB);
  });

  it('refuses limits that are none', async () => {
    await failure('USAGE', () => open(-1));
    await failure('USAGE', () => open(1.5));
    await failure('USAGE', () => open(20));
  });

  it('evicts by a strategy of one’s own', async () => {
    const asked: string[] = [];
    const cache = await scratch.cache({
      limits: { maxSize: MiB },
      registry: () => registry,
      eviction: {
        name: 'by name',
        *rank(candidates) {
          asked.push('rank');
          yield* [...candidates]
            .filter(({ kind }) => kind === 'image')
            .sort((a, b) => ((a.names[0] ?? '') < (b.names[0] ?? '') ? -1 : 1));
        },
      },
    });
    for (const name of ['z', 'a', 'm']) await add(cache, name, incompressible(400_000));
    expect(asked.length).to.be.greaterThan(0);
    expect([...cache.images()].map(({ name }) => name)).to.deep.equal([
      'reg.test/r/app:m',
      'reg.test/r/app:z',
    ]);
  });
});

function cacheHas(dir: string, digest: string): boolean {
  const [algorithm = '', hex = ''] = digest.split(':');
  return statSync(join(dir, 'blobs', algorithm, hex), { throwIfNoEntry: false }) !== undefined;
}
