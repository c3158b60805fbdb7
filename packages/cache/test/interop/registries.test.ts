import { randomBytes } from 'node:crypto';
import { expect } from 'chai';
import { RegistryClient } from '@layercache/registry';
import type { LayerCache } from '../../src/index.js';
import { imageOf, layerOf, pushImage, tarOf, type BuiltLayer } from '../image-builder.js';
import { Scratch, bytesOf } from '../test-cache.js';
import { REAL_REGISTRIES, itWith, startRegistry, type RunningRegistry } from './tools.js';

for (const { name, program } of REAL_REGISTRIES) {
  describe(`a whole cache in ${name}`, () => {
    const scratch = new Scratch();
    let running: RunningRegistry | undefined;
    afterEach(async () => {
      await scratch.clean();
      await running?.stop();
      running = undefined;
    });

    const someLayer = (): BuiltLayer => layerOf(tarOf({ data: randomBytes(50_000) }));
    const start = async (): Promise<{ host: string; target: string }> => {
      running = await startRegistry(program);
      return { host: running.host, target: `${running.host}/team/cache:main` };
    };
    const cacheWith = async (
      host: string,
      repository: string,
      layers: readonly BuiltLayer[],
    ): Promise<LayerCache> => {
      await pushImage(new RegistryClient(host), repository, '1', imageOf(layers));
      const cache = await scratch.cache();
      await cache.add(`${host}/${repository}:1`);
      return cache;
    };

    itWith([program], 'is pushed, mounts what the registry has, and comes back with both names', async () => {
      const { host, target } = await start();
      const layers = [someLayer(), someLayer()];
      const cache = await cacheWith(host, 'app', layers);
      const pushed = await cache.push(target);
      expect(pushed.mounted).to.be.at.least(2);
      const other = await scratch.cache();
      await other.pull(target);
      for (const layer of layers) {
        expect(await bytesOf(other.layer(layer.diffID).uncompressed())).to.deep.equal(layer.tar);
        expect(await bytesOf(other.blob(layer.descriptor.digest))).to.deep.equal(layer.bytes);
      }
      expect([...other.images()].map((image) => image.name)).to.deep.equal([`${host}/app:1`]);
      expect((await cache.push(target)).digest).to.equal(pushed.digest);
      expect((await other.pull(target)).received).to.deep.equal({ blobs: 0, bytes: 0 });
    });

    itWith([program], 'is pulled lazily, every blob when it is asked for by either name', async () => {
      const { host, target } = await start();
      const [one, two] = [someLayer(), someLayer()];
      await (await cacheWith(host, 'app', [one, two])).push(target);
      const lazy = await scratch.cache();
      expect((await lazy.pull(target, { lazy: true })).received.blobs).to.equal(0);
      expect(await bytesOf(lazy.layer(one.diffID).uncompressed())).to.deep.equal(one.tar);
      expect(await bytesOf(lazy.layer(two.descriptor.digest).compressed())).to.deep.equal(two.bytes);
    });

    itWith([program], 'answers a cache that reads through to it, and is written back to', async () => {
      const { host, target } = await start();
      const [one, two] = [someLayer(), someLayer()];
      await (await cacheWith(host, 'app', [one])).push(target);
      await pushImage(new RegistryClient(host), 'other', '1', imageOf([two]));
      const near = await scratch.cache({ remote: target, writeBack: true });
      expect(await bytesOf((await near.find(one.diffID)).uncompressed())).to.deep.equal(one.tar);
      await near.add(`${host}/other:1`);
      await near.close();
      const far = await scratch.cache({ remote: target });
      expect(await bytesOf((await far.find(two.diffID)).uncompressed())).to.deep.equal(two.tar);
    });

    itWith([program], 'forgets what a pruning push does not have', async () => {
      const { host, target } = await start();
      const [one, two] = [someLayer(), someLayer()];
      await (await cacheWith(host, 'one', [one])).push(target);
      await (await cacheWith(host, 'two', [two])).push(target, { prune: () => true });
      const other = await scratch.cache();
      await other.pull(target);
      expect([other.has(one.diffID), other.has(two.diffID)]).to.deep.equal([false, true]);
    });

    itWith([program], 'loses nothing when three push at the same time', async () => {
      const { host, target } = await start();
      const layers = Array.from({ length: 3 }, someLayer);
      const caches = await Promise.all(layers.map((layer, n) => cacheWith(host, `app${n}`, [layer])));
      await Promise.all(caches.map((cache) => cache.push(target)));
      const all = await scratch.cache();
      await all.pull(target);
      for (const layer of layers)
        expect(await bytesOf(all.layer(layer.diffID).uncompressed())).to.deep.equal(layer.tar);
    });
  });
}
