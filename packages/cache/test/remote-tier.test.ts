import { randomBytes } from 'node:crypto';
import { expect } from 'chai';
import { LayercacheError, digestOf } from '@layercache/oci';
import type { Registry } from '@layercache/registry';
import { imageOf, layerOf, pushImage, tarOf, type BuiltLayer } from './image-builder.js';
import { Scratch, bytesOf, failure, memoryRegistry } from './test-cache.js';

const TARGET = 'registry.test/team/cache:main';

describe('a cache with a remote', () => {
  const scratch = new Scratch();
  afterEach(() => scratch.clean());

  const someLayer = (): BuiltLayer => layerOf(tarOf({ data: randomBytes(20_000) }));

  async function pushed(registry: Registry, name: string, layers: readonly BuiltLayer[]): Promise<void> {
    await pushImage(registry, name, '1', imageOf(layers));
    const cache = await scratch.cache({ registry: () => registry });
    await cache.add(`registry.test/${name}:1`);
    await cache.push(TARGET);
  }

  it('finds there what is not here, by digest and by diffID, and keeps it', async () => {
    const registry = memoryRegistry();
    const [one, two] = [someLayer(), someLayer()];
    await pushed(registry, 'app', [one, two]);
    const cache = await scratch.cache({ remote: TARGET, registry: () => registry });
    await failure('NOT_FOUND', () => cache.layer(one.diffID));
    const layer = await cache.find(one.diffID);
    expect(layer.proven).to.equal(false);
    expect(await bytesOf(layer.uncompressed())).to.deep.equal(one.tar);
    expect(cache.layer(one.diffID).proven).to.equal(true);
    expect(await bytesOf((await cache.find(two.descriptor.digest)).compressed())).to.deep.equal(two.bytes);
    expect(await bytesOf(cache.blob(two.descriptor.digest))).to.deep.equal(two.bytes);
    registry.asked.clear();
    expect(await bytesOf((await cache.find(one.diffID)).uncompressed())).to.deep.equal(one.tar);
    expect(registry.asked.size).to.equal(0);
  });

  it('asks the remote once for all who miss, and not again for every miss', async () => {
    const registry = memoryRegistry();
    await pushed(registry, 'app', [someLayer()]);
    const cache = await scratch.cache({ remote: TARGET, registry: () => registry });
    registry.asked.clear();
    const missing = Array.from({ length: 20 }, (_, n) => digestOf(`nobody has ${n}`));
    await Promise.all(missing.map((digest) => failure('NOT_FOUND', () => cache.find(digest))));
    for (const digest of missing) await failure('NOT_FOUND', () => cache.blob(digest));
    expect(Object.fromEntries(registry.asked)).to.deep.equal({ fetchManifest: 2, tags: 1 });
  });

  it('serves, as a registry, a layer by a diffID that only the remote knows', async () => {
    const registry = memoryRegistry();
    const layer = someLayer();
    await pushed(registry, 'app', [layer]);
    const cache = await scratch.cache({ remote: TARGET, registry: () => registry });
    const served = cache.registry();
    expect(await served.blobSize('any', layer.diffID)).to.equal(layer.tar.length);
    const { body } = await served.fetchBlob('any', layer.diffID);
    expect(await bytesOf(body)).to.deep.equal(layer.tar);
    expect(await served.blobSize('any', digestOf('nobody has this'))).to.equal(undefined);
  });

  it('does without a remote that is empty or cannot be reached', async () => {
    const registry = memoryRegistry();
    const cache = await scratch.cache({ remote: TARGET, registry: () => registry });
    await failure('NOT_FOUND', () => cache.find(digestOf('x')));
    registry.fetchManifest = () => Promise.reject(new LayercacheError('NETWORK', 'the line is cut'));
    const offline = await scratch.cache({ remote: TARGET, registry: () => registry });
    await failure('NOT_FOUND', () => offline.find(digestOf('x')));
    const layer = someLayer();
    await pushImage(registry, 'app', '1', imageOf([layer]));
  });

  it('writes back what was added, all of it by the time it is closed', async () => {
    const registry = memoryRegistry();
    const layers = [someLayer(), someLayer()];
    const cache = await scratch.cache({ remote: TARGET, writeBack: true, registry: () => registry });
    for (const [n, layer] of layers.entries()) {
      await pushImage(registry, `app${n}`, '1', imageOf([layer]));
      await cache.add(`registry.test/app${n}:1`);
    }
    await cache.close();
    const other = await scratch.cache({ registry: () => registry });
    await other.pull(TARGET);
    for (const layer of layers) expect(other.has(layer.diffID)).to.equal(true);
  });

  it('closes all the same when nothing can be written back', async () => {
    const registry = memoryRegistry();
    const layer = someLayer();
    await pushImage(registry, 'app', '1', imageOf([layer]));
    const cache = await scratch.cache({ remote: TARGET, writeBack: true, registry: () => registry });
    registry.pushManifest = () => Promise.reject(new LayercacheError('UNAUTHORIZED', 'read only'));
    await cache.add('registry.test/app:1');
    await cache.close();
    const again = await scratch.cache({ dir: cache.dir, registry: () => registry });
    expect(again.has(layer.diffID)).to.equal(true);
  });

  it('cannot be written back to without being named', async () => {
    await failure('USAGE', () => scratch.cache({ writeBack: true }));
    await failure('REFERENCE_INVALID', () => scratch.cache({ remote: 'Not A Reference' }));
  });
});
