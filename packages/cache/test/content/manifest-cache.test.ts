import { expect } from 'chai';
import { LayercacheError, MediaType, digestOf } from '@layercache/oci';
import { MemoryRegistry, forward } from '@layercache/registry';
import type { LayerCache } from '../../src/index.js';
import { imageOf, layerOf, pushImage, tarOf, type BuiltImage } from '../image-builder.js';
import { Scratch, counted, failure } from '../test-cache.js';

const [one, two] = ['one', 'two'].map((data) => imageOf([layerOf(tarOf({ data }))])) as [
  BuiltImage,
  BuiltImage,
];
const NAME = 'registry.test/app:1';

describe('the manifests of a cache', () => {
  const scratch = new Scratch();
  afterEach(() => scratch.clean());

  async function cacheOf(): Promise<{
    cache: LayerCache;
    registry: ReturnType<typeof counted>;
    state: { down: boolean };
  }> {
    const registry = counted(new MemoryRegistry());
    const state = { down: false };
    await pushImage(registry, 'app', '1', one);
    const cache = await scratch.cache({
      registry: () => ({
        ...forward(registry),
        resolve: (...all) =>
          state.down ? Promise.reject(new LayercacheError('NETWORK', 'no route')) : registry.resolve(...all),
      }),
      staleIfError: true,
    });
    return { cache, registry, state };
  }

  it('are found by name and by digest, byte for byte', async () => {
    const { cache } = await cacheOf();
    await cache.add(NAME);
    for (const name of [NAME, one.descriptor.digest]) {
      const { bytes, descriptor } = await cache.manifests.get(name);
      expect(Buffer.from(bytes)).to.deep.equal(Buffer.from(one.bytes));
      expect([descriptor.digest, descriptor.mediaType]).to.deep.equal([
        one.descriptor.digest,
        MediaType.manifest,
      ]);
      expect(await cache.manifests.has(name)).to.equal(true);
    }
    expect(await cache.manifests.has('registry.test/app:2')).to.equal(false);
    expect(await cache.manifests.has(two.descriptor.digest)).to.equal(false);
    expect(cache.metrics.snapshot().counters.bytesServed).to.equal(2 * one.bytes.length);
    await failure('NOT_FOUND', () => cache.manifests.get(two.descriptor.digest));
  });

  it('are put when everything that they refer to is here', async () => {
    const { cache } = await cacheOf();
    await failure('NOT_FOUND', () => cache.manifests.put(one.bytes));
    const [layer] = one.layers;
    await cache.blobs.put(layer!.bytes, layer!.descriptor);
    await cache.blobs.put(one.config.bytes, one.config.descriptor);
    expect((await cache.manifests.put(one.bytes)).digest).to.equal(one.descriptor.digest);
    await cache.manifests.put(one.bytes, { name: 'team.test/app' });
    expect([...cache.images()].map(({ name }) => name)).to.deep.equal(['team.test/app:latest']);
    expect(cache.layer(layer!.diffID).digests).to.deep.equal([layer!.descriptor.digest]);
  });

  it('are manifests, and say of which kind', async () => {
    const { cache } = await cacheOf();
    await failure('DOCUMENT_INVALID', () => cache.manifests.put(Buffer.from('{"schemaVersion":2}')));
    await failure('DOCUMENT_INVALID', () => cache.manifests.put(Buffer.from('no JSON')));
    await failure('USAGE', () =>
      cache.manifests.put(Buffer.from('{}'), { mediaType: MediaType.octetStream }),
    );
    await failure('DOCUMENT_INVALID', () =>
      cache.manifests.put(Buffer.from('{}'), { mediaType: MediaType.index }),
    );
  });

  it('are validated by a HEAD each: current, moved or gone', async () => {
    const { cache, registry, state } = await cacheOf();
    await cache.add(NAME);
    registry.asked.clear();
    const current = await cache.manifests.validate(NAME);
    expect([current.state, current.remote?.digest]).to.deep.equal(['current', one.descriptor.digest]);
    await pushImage(registry, 'app', '1', two);
    const moved = await cache.manifests.validate(NAME);
    expect([moved.state, moved.cached.digest, moved.remote?.digest]).to.deep.equal([
      'moved',
      one.descriptor.digest,
      two.descriptor.digest,
    ]);
    expect((await cache.manifests.validate(one.descriptor.digest)).state).to.equal('current');
    expect((await cache.manifests.validate(`registry.test/app@${one.descriptor.digest}`)).state).to.equal(
      'current',
    );
    expect(registry.asked.get('resolve')).to.equal(4);
    expect(registry.asked.get('fetchManifest')).to.equal(undefined);
    await registry.deleteManifest('app', '1');
    await registry.deleteManifest('app', one.descriptor.digest);
    for (const name of [NAME, one.descriptor.digest]) {
      expect(await cache.manifests.validate(name)).to.deep.include({ state: 'gone', remote: undefined });
    }
    // That nobody can say is neither, whatever stale tags are good for elsewhere.
    state.down = true;
    await failure('NETWORK', () => cache.manifests.validate(NAME));
    await failure('NETWORK', () => cache.manifests.validate(one.descriptor.digest));
  });

  it('never expire under their digest', async () => {
    const { cache, registry } = await cacheOf();
    await cache.add(NAME);
    await cache.tags.invalidate(NAME);
    registry.asked.clear();
    expect((await cache.manifests.get(one.descriptor.digest)).descriptor.digest).to.equal(
      one.descriptor.digest,
    );
    expect([...registry.asked.keys()]).to.deep.equal([]);
  });

  it('cannot be validated when they came from nowhere, or are not here', async () => {
    const { cache } = await cacheOf();
    const [layer] = one.layers;
    await cache.blobs.put(layer!.bytes, layer!.descriptor);
    await cache.blobs.put(one.config.bytes, one.config.descriptor);
    await cache.manifests.put(one.bytes);
    const error = await failure('UNSUPPORTED', () => cache.manifests.validate(one.descriptor.digest));
    expect(error.message).to.include(`registry/repository@${one.descriptor.digest}`);
    await failure('NOT_FOUND', () => cache.manifests.validate(digestOf('nothing')));
    await failure('NOT_FOUND', () => cache.manifests.validate(NAME));
  });
});
