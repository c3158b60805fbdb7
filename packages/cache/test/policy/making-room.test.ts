import { randomBytes } from 'node:crypto';
import { existsSync, readdirSync } from 'node:fs';
import { utimes } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import { digestHex, digestOf, type Digest } from '@layercache/oci';
import { nodeFileSystem, OciLayout } from '@layercache/layout';
import type { EvictedItem, LayerCache, LayerCacheOptions } from '../../src/index.js';
import { imageOf, layerOf, pushImage, tarOf, type BuiltImage } from '../image-builder.js';
import { Scratch, failure, memoryRegistry } from '../test-cache.js';

const MB = 1_000_000;
const APP = 'reg.test/r/app';
const SHARED = 'reg.test/team/cache:main';
const WEEK = 7 * 86_400_000;

const incompressible = (size: number): BuiltImage => imageOf([layerOf(tarOf({ data: randomBytes(size) }))]);
const names = (cache: LayerCache): string[] => [...cache.images()].map(({ name }) => name);
const blobFile = (cache: LayerCache, digest: Digest): string =>
  join(cache.dir, 'blobs', 'sha256', digestHex(digest));

async function makeOld(cache: LayerCache, digests?: readonly Digest[]): Promise<void> {
  const dir = join(cache.dir, 'blobs', 'sha256');
  const old = new Date('2020-09-13');
  const files =
    digests?.map((digest) => blobFile(cache, digest)) ?? readdirSync(dir).map((hex) => join(dir, hex));
  for (const file of files) await utimes(file, old, old);
}

describe('making room', function () {
  this.timeout(60_000);
  const scratch = new Scratch();
  const registry = memoryRegistry();
  afterEach(() => scratch.clean());

  const open = (options: LayerCacheOptions & { readonly dir?: string } = {}): Promise<LayerCache> =>
    scratch.cache({ registry: () => registry, ...options });

  const add = async (cache: LayerCache, tag: string, image: BuiltImage): Promise<void> => {
    await pushImage(registry, 'r/app', tag, image);
    await cache.add(`${APP}:${tag}`);
  };

  describe('where blobs are elsewhere', () => {
    const lazy = [1, 2, 3].map((n) => imageOf([layerOf(tarOf({ data: `lazy ${n}` }))]));

    beforeEach(async () => {
      const other = await open();
      for (const [n, image] of lazy.entries()) await add(other, `lazy${n}`, image);
      await other.push(SHARED);
    });

    it('does not take images that were just pulled lazily for unused ones', async () => {
      const cache = await open();
      await cache.pull(SHARED, { lazy: true });
      const report = await cache.prune({ unusedFor: 4 * WEEK });
      expect(report.items).to.deep.equal([]);
      expect(names(cache)).to.have.length(3);
    });

    it('prunes a lazily pulled image when its manifest was not used for long', async () => {
      const cache = await open();
      await cache.pull(SHARED, { lazy: true });
      await makeOld(cache, [lazy[0]!.descriptor.digest]);
      await cache.prune({ unusedFor: 4 * WEEK });
      expect(names(cache)).to.deep.equal([`${APP}:lazy1`, `${APP}:lazy2`]);
    });

    it('evicts what frees bytes before it forgets what is elsewhere, however long ago that came', async () => {
      const cache = await open({ limits: { maxSize: MB } });
      await cache.pull(SHARED, { lazy: true });
      await makeOld(cache);
      await add(cache, 'a', incompressible(500_000));
      await add(cache, 'b', incompressible(500_000));
      expect(names(cache)).to.deep.equal([`${APP}:b`, `${APP}:lazy0`, `${APP}:lazy1`, `${APP}:lazy2`]);
      const report = await cache.prune({ maxSize: 300_000 });
      expect(report.items.map((item) => item.names)).to.deep.equal([[`${APP}:b`]]);
    });

    it('can evict a blob that was fetched for an entry as soon as it was read', async () => {
      const big = incompressible(400_000);
      const other = await open();
      await add(other, 'big', big);
      await other.push(SHARED);
      const cache = await open({ limits: { maxSize: MB } });
      await cache.pull(SHARED, { lazy: true });
      await cache.fetch(big.layers[0]!.descriptor.digest);
      await add(cache, 'c', incompressible(700_000));
      expect(existsSync(blobFile(cache, big.layers[0]!.descriptor.digest))).to.equal(false);
    });
  });

  describe('where uploads were begun and nobody goes on with them', () => {
    const upload = async (cache: LayerCache, size: number): Promise<Digest> => {
      const bytes = randomBytes(size);
      const digest = digestOf(bytes);
      await cache.registry().pushBlob('x', { digest, size }, () => [bytes]);
      return digest;
    };
    const fill = async (cache: LayerCache): Promise<void> => {
      for (;;) {
        try {
          await upload(cache, 100_000);
        } catch {
          return;
        }
      }
    };

    it('evicts old ones, in another process and in the one that took them', async () => {
      const server = await open({ limits: { maxSize: MB } });
      await fill(server);
      await failure('CACHE_FULL', () => add(server, 'app', incompressible(300_000)));
      await makeOld(server);
      await add(server, 'app', incompressible(300_000));
      expect(names(server)).to.deep.equal([`${APP}:app`]);
    });

    it('evicts old ones before images, young ones never for an image', async () => {
      const evicted: EvictedItem[] = [];
      const cache = await open({ limits: { maxSize: MB }, onEvicted: (item) => evicted.push(item) });
      await add(cache, 'app', incompressible(300_000));
      const [old, young] = [await upload(cache, 200_000), await upload(cache, 200_000)];
      await makeOld(cache, [old]);
      await upload(cache, 300_000);
      expect(evicted.map(({ kind, digest, bytes }) => ({ kind, digest, bytes }))).to.deep.equal([
        { kind: 'orphan', digest: old, bytes: 200_000 },
      ]);
      expect(existsSync(blobFile(cache, young))).to.equal(true);
      expect(names(cache)).to.deep.equal([`${APP}:app`]);
    });

    it('evicts a blob that was sent again for a manifest that never came', async () => {
      const cache = await open({ limits: { maxSize: MB } });
      const image = incompressible(500_000);
      await add(cache, 'again', image);
      const { descriptor, bytes } = image.layers[0]!;
      await cache.registry().pushBlob('x', descriptor, () => [bytes]);
      await makeOld(cache);
      await add(cache, 'next', incompressible(700_000));
      expect(names(cache)).to.deep.equal([`${APP}:next`]);
    });
  });

  it('leaves no superseded cache index behind when two handles commit in turn', async () => {
    const dir = join(await scratch.dir(), 'cache');
    const layout = await OciLayout.open(dir);
    await layout.put(
      Array.from({ length: 800 }, (_, n) => ({
        mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip',
        digest: digestOf(`nowhere ${n}`),
        size: 10,
      })),
    );
    await layout.close();
    const limits = { maxSize: 3 * MB };
    const handles = [await open({ dir, limits }), await open({ dir, limits })];
    for (let n = 0; n < 24; n++) await add(handles[n % 2]!, `small${n}`, incompressible(1000));
    expect(names(handles[0]!)).to.have.length(24);
  });

  it('evicts nothing when it cannot be told what a pinned image needs', async () => {
    const cache = await open({ limits: { maxSize: 2 * MB } });
    const pinned = incompressible(700_000);
    await add(cache, 'pinned', pinned);
    await cache.pin(`${APP}:pinned`);
    await add(cache, 'other', incompressible(500_000));
    await cache.close();
    const openFile = nodeFileSystem.open.bind(nodeFileSystem);
    let fails = false;
    const hex = digestHex(pinned.descriptor.digest);
    nodeFileSystem.open = (path, ...rest) =>
      fails && path.endsWith(hex)
        ? Promise.reject(Object.assign(new Error('too many open files'), { code: 'EMFILE', syscall: 'open' }))
        : openFile(path, ...rest);
    const again = await open({ dir: cache.dir, limits: { maxSize: 2 * MB } });
    try {
      fails = true;
      await failure('STORAGE', () => add(again, 'third', incompressible(900_000)));
      await failure('STORAGE', () => again.prune({ maxSize: 0 }));
    } finally {
      fails = false;
      nodeFileSystem.open = openFile;
    }
    expect(existsSync(blobFile(again, pinned.layers[0]!.descriptor.digest))).to.equal(true);
    expect(names(again)).to.deep.equal([`${APP}:other`, `${APP}:pinned`]);
    await again.add(`${APP}:third`);
    expect(names(again)).to.deep.equal([`${APP}:pinned`, `${APP}:third`]);
  });

  it('evicts nothing for a handle that only looks, however low its limit is', async () => {
    const cache = await open();
    for (const tag of ['one', 'two']) await add(cache, tag, incompressible(300_000));
    await cache.close();
    const before = readdirSync(join(cache.dir, 'blobs', 'sha256'));
    const looking = await open({ dir: cache.dir, limits: { maxSize: 200_000 } });
    expect(names(looking)).to.have.length(2);
    for (const layer of looking.layers()) expect(looking.has(layer.digests[0]!)).to.equal(true);
    await looking.stats();
    await looking.verify();
    await looking.close();
    expect(readdirSync(join(cache.dir, 'blobs', 'sha256'))).to.deep.equal(before);
  });
});
