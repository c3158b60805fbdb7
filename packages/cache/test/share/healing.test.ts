import { randomBytes } from 'node:crypto';
import { expect } from 'chai';
import { MediaType, digestOf } from '@layercache/oci';
import { OciLayout } from '@layercache/layout';
import { MemoryRegistry, type Registry } from '@layercache/registry';
import { decodeCacheIndex, type LayerCache } from '../../src/index.js';
import { imageOf, layerOf, pushImage, tarOf, type BuiltLayer } from '../image-builder.js';
import { Scratch, bytesOf, counted, memoryRegistry } from '../test-cache.js';

const REPOSITORY = 'team/cache';
const TARGET = `registry.test/${REPOSITORY}:main`;

describe('a shared cache of which the registry has lost a part', () => {
  const scratch = new Scratch();
  afterEach(() => scratch.clean());

  const someLayer = (): BuiltLayer => layerOf(tarOf({ data: randomBytes(20_000) }));
  const names = (cache: LayerCache): string[] => [...cache.images()].map((image) => image.name).sort();
  const opened = (registry: Registry): Promise<LayerCache> => scratch.cache({ registry: () => registry });

  /** A cache with an image of one layer, pushed. The image comes from a registry of its own. */
  async function pushed(registry: Registry, name = 'app'): Promise<{ cache: LayerCache; layer: BuiltLayer }> {
    const layer = someLayer();
    const source = new MemoryRegistry();
    await pushImage(source, name, '1', imageOf([layer]));
    const cache = await scratch.cache({
      registry: (host) => (host === 'registry.test' ? registry : source),
    });
    await cache.add(`source.test/${name}:1`);
    await cache.push(TARGET);
    return { cache, layer };
  }

  async function shardsOf(registry: Registry): Promise<string[]> {
    const { bytes } = await registry.fetchManifest(REPOSITORY, 'main');
    return (decodeCacheIndex(bytes, 'index')?.shards ?? []).map((shard) => shard.digest);
  }

  it('gets a blob again from a push that checks, by who has it', async () => {
    const registry = memoryRegistry();
    const { cache, layer } = await pushed(registry);
    await registry.deleteBlob(REPOSITORY, layer.descriptor.digest);
    expect((await cache.push(TARGET)).sent.blobs).to.equal(0);
    const healed = await cache.push(TARGET, { check: true });
    expect(healed.sent.blobs).to.equal(1);
    expect(healed.skipped).to.deep.equal([]);
    const other = await opened(registry);
    expect((await other.pull(TARGET)).skipped).to.deep.equal([]);
    expect(await bytesOf(other.blob(layer.descriptor.digest))).to.deep.equal(layer.bytes);
  });

  it('gets the manifest and the config of an image again', async () => {
    const registry = memoryRegistry();
    const { cache } = await pushed(registry);
    const image = cache.image('source.test/app:1');
    const manifest = JSON.parse((await bytesOf(cache.blob(image.digest))).toString()) as {
      config: { digest: string };
    };
    await registry.deleteManifest(REPOSITORY, image.digest);
    await registry.deleteBlob(REPOSITORY, digestOf(await bytesOf(cache.blob(manifest.config.digest))));
    const broken = await opened(registry);
    const skipped = (await broken.pull(TARGET)).skipped;
    expect(skipped.map(({ digest, name }) => [digest, name])).to.deep.equal([
      [image.digest, 'source.test/app:1'],
    ]);
    expect((await cache.push(TARGET, { check: true })).skipped).to.deep.equal([]);
    expect((await broken.pull(TARGET)).skipped).to.deep.equal([]);
    expect(names(broken)).to.deep.equal(['source.test/app:1']);
  });

  it('gets a shard again from the next push, and pulls of everything else go on until then', async () => {
    const registry = memoryRegistry();
    const { cache, layer } = await pushed(registry);
    const [shard = ''] = await shardsOf(registry);
    await registry.deleteManifest(REPOSITORY, shard);
    const other = await opened(registry);
    const pulled = await other.pull(TARGET);
    expect(pulled.skipped.map(({ digest }) => digest)).to.deep.equal([shard]);
    expect(names(other)).to.deep.equal(['source.test/app:1']);
    // What the puller has of it stands there again, whoever has lost it.
    const repaired = await other.push(TARGET);
    expect(repaired.skipped.map(({ digest }) => digest)).to.deep.equal([shard]);
    expect((await other.push(TARGET)).skipped).to.deep.equal([]);
    expect((await cache.push(TARGET)).skipped).to.deep.equal([]);
    const third = await opened(registry);
    expect((await third.pull(TARGET)).skipped).to.deep.equal([]);
    expect(third.has(layer.diffID)).to.equal(true);
  });

  it('says what nobody here has, lists it no longer, and takes it back from who has it', async () => {
    const registry = memoryRegistry();
    const { cache, layer } = await pushed(registry);
    await registry.deleteBlob(REPOSITORY, layer.descriptor.digest);
    const other = await opened(registry);
    const loose = someLayer();
    const layout = await OciLayout.open(other.dir);
    await layout.write(loose.bytes);
    await layout.put(loose.descriptor);
    await layout.close();
    const result = await other.push(TARGET, { check: true });
    expect(result.skipped.map(({ digest, code }) => [digest, code])).to.deep.equal([
      [layer.descriptor.digest, 'NOT_FOUND'],
    ]);
    expect(result.entries).to.equal(1);
    expect((await other.push(TARGET, { check: true })).skipped).to.deep.equal([]);
    const back = await cache.push(TARGET);
    expect([back.sent.blobs, back.entries]).to.deep.equal([1, 2]);
  });

  it('is sent again, without being told to, what a pull from here did not find', async () => {
    const registry = memoryRegistry();
    const { layer } = await pushed(registry);
    await registry.deleteBlob(REPOSITORY, layer.descriptor.digest);
    const other = await opened(registry);
    expect((await other.pull(TARGET)).skipped).to.have.length(1);
    const layout = await OciLayout.open(other.dir);
    await layout.write(layer.bytes);
    await layout.close();
    const result = await other.push(TARGET);
    expect([result.sent.blobs, result.skipped.length]).to.deep.equal([1, 0]);
    expect(await registry.blobSize(REPOSITORY, layer.descriptor.digest)).to.equal(layer.bytes.length);
  });

  it('is looked through when it refuses an image because of a part that is listed there', async () => {
    const registry = memoryRegistry();
    const { cache, layer } = await pushed(registry);
    await registry.deleteBlob(REPOSITORY, layer.descriptor.digest);
    const source = new MemoryRegistry();
    await pushImage(source, 'second', '1', imageOf([layer, someLayer()]));
    const adding = await scratch.cache({
      dir: cache.dir,
      registry: (host) => (host === 'registry.test' ? registry : source),
    });
    await adding.add('source.test/second:1');
    const result = await adding.push(TARGET);
    expect(result.skipped).to.deep.equal([]);
    expect(result.images).to.equal(2);
    expect(await registry.blobSize(REPOSITORY, layer.descriptor.digest)).to.equal(layer.bytes.length);
  });

  it('does not have an image by a digest that no registry stores manifests by', async () => {
    const registry = memoryRegistry();
    const { cache } = await pushed(registry);
    const image = imageOf([someLayer()]);
    const layout = await OciLayout.open(cache.dir);
    for (const bytes of [image.config.bytes, ...image.layers.map((each) => each.bytes)])
      await layout.write(bytes);
    const digest = digestOf(image.bytes, 'sha512');
    await layout.write(image.bytes, { digest, size: image.bytes.length });
    await layout.put({
      mediaType: MediaType.manifest,
      digest,
      size: image.bytes.length,
      annotations: { 'org.opencontainers.image.ref.name': 'odd:1' },
    });
    await layout.close();
    const result = await cache.push(TARGET);
    expect(result.skipped.map((part) => [part.digest, part.code])).to.deep.equal([[digest, 'UNSUPPORTED']]);
    const other = await opened(counted(registry));
    expect((await other.pull(TARGET)).skipped).to.deep.equal([]);
    expect(names(other)).to.deep.equal(['source.test/app:1']);
  });
});
