import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { digestOf } from '@layercache/oci';
import { RegistryClient, createRegistryServer, noCredentials } from '@layercache/registry';
import { describeRegistry } from '@layercache/registry/conformance';
import { LayerCache } from '../src/index.js';
import { imageOf, layerOf, pushImage, tarOf } from './image-builder.js';
import { Scratch, bytesOf, memoryRegistry } from './test-cache.js';

async function openCache(): Promise<{ cache: LayerCache; clean: () => Promise<void> }> {
  const dir = await mkdtemp(join(tmpdir(), 'layercache-registry-'));
  const cache = await LayerCache.open(dir);
  return {
    cache,
    clean: async () => {
      await cache.close();
      await rm(dir, { recursive: true, force: true });
    },
  };
}

describeRegistry('a cache', async () => {
  const { cache, clean } = await openCache();
  return { registry: cache.registry(), close: clean };
});

describeRegistry('the client over the server over a cache', async () => {
  const { cache, clean } = await openCache();
  const server = createRegistryServer(cache.registry());
  await server.listen({ host: '127.0.0.1', port: 0 });
  return {
    registry: new RegistryClient(new URL(server.url).host, { credentials: noCredentials }),
    close: async () => {
      await server.close();
      await clean();
    },
  };
});

describe('a cache as a registry', () => {
  const scratch = new Scratch();
  afterEach(() => scratch.clean());
  const layer = layerOf(tarOf({ data: randomBytes(50_000) }));

  async function cacheWith(name: string): Promise<LayerCache> {
    const source = memoryRegistry();
    await pushImage(source, 'app', '1', imageOf([layer]));
    const cache = await scratch.cache({ registry: () => source });
    await cache.add('registry.test/app:1', { name });
    return cache;
  }

  it('has an image under its full name, under the short form of Docker Hub, and without its registry', async () => {
    const registry = (await cacheWith('docker.io/library/app:1')).registry();
    for (const repository of ['docker.io/library/app', 'library/app', 'app']) {
      expect((await registry.resolve(repository, '1')).digest).to.equal(imageOf([layer]).descriptor.digest);
    }
    const other = (await cacheWith('127.0.0.1:5000/team/app:1')).registry();
    expect((await other.resolve('team/app', '1')).digest).to.equal(imageOf([layer]).descriptor.digest);
    const names: string[] = [];
    for await (const name of other.repositories()) names.push(name);
    expect(names).to.deep.equal(['layercache', 'team/app']);
  });

  it('serves a layer under its diffID in any repository, whole or in part', async () => {
    const registry = (await cacheWith('app:1')).registry();
    expect(await registry.blobSize('any/where', layer.diffID)).to.equal(layer.tar.length);
    const whole = await registry.fetchBlob('any/where', layer.diffID);
    expect(digestOf(await bytesOf(whole.body))).to.equal(layer.diffID);
    const part = await registry.fetchBlob('any/where', layer.diffID, { range: { first: 600, last: 699 } });
    expect(await bytesOf(part.body)).to.deep.equal(Buffer.from(layer.tar.subarray(600, 700)));
  });

  it('gives the whole cache as one image index, from which another cache pulls', async () => {
    const cache = await cacheWith('app:1');
    const other = await scratch.cache({ registry: () => cache.registry() });
    await other.pull('registry.test/layercache:latest');
    expect(await bytesOf(other.layer(layer.diffID).uncompressed())).to.deep.equal(layer.tar);
  });

  it('pairs the layers of an image that was pushed to it', async () => {
    const cache = await scratch.cache();
    await pushImage(cache.registry(), 'team/app', '1', imageOf([layer]));
    expect(cache.layer(layer.diffID).digests).to.deep.equal([layer.descriptor.digest]);
    expect(await bytesOf(cache.layer(layer.diffID).uncompressed())).to.deep.equal(layer.tar);
    expect([...cache.images()].map((image) => image.name)).to.deep.equal(['team/app:1']);
  });
});
