import { expect } from 'chai';
import { Annotation, MAX_MANIFEST_SIZE, MediaType, digestOf, type Descriptor } from '@layercache/oci';
import { OciLayout } from '@layercache/layout';
import {
  MemoryRegistry,
  RegistryClient,
  createRegistryServer,
  type RegistryServer,
} from '@layercache/registry';
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { LayerCache, decodeCacheIndex } from '../src/index.js';
import { withOrigin } from '../src/entries/origins.js';
import { imageOf, layerOf, pushImage, tarOf } from './image-builder.js';
import { Scratch, bytesOf } from './test-cache.js';

const COUNT = 20_000;
const REPOSITORY = 'team/cache';

/** Layers of a few bytes each, which stand in the registry, and a cache that knows them and has none. */
describe(`a cache of ${COUNT.toLocaleString('en-US')} layers`, function () {
  this.timeout(60_000);
  const scratch = new Scratch();
  const memory = new MemoryRegistry();
  const layers: Descriptor[] = [];
  const dirs = { first: '', second: '' };
  let server: RegistryServer | undefined;
  let target = '';

  before(async () => {
    for (let n = 0; n < COUNT; n++) {
      const bytes = Buffer.from(`layer ${n}`);
      const descriptor = { mediaType: MediaType.layerGzip, digest: digestOf(bytes), size: bytes.length };
      layers.push({ ...descriptor, annotations: { [Annotation.diffID]: digestOf(`tar ${n}`) } });
      await memory.pushBlob(REPOSITORY, descriptor, () => [bytes]);
    }
    server = createRegistryServer(memory);
    await server.listen({ host: '127.0.0.1', port: 0 });
    const { host } = new URL(server.url);
    target = `${host}/${REPOSITORY}:main`;
    const dir = await scratch.dir();
    dirs.first = join(dir, 'first');
    dirs.second = join(dir, 'second');
    const layout = await OciLayout.open(dirs.first);
    await layout.put(layers.map((layer) => withOrigin(layer, { registry: host, repository: 'elsewhere' })));
    await layout.close();
  });
  after(async () => {
    await scratch.clean();
    await server?.close();
  });

  /** A cache, and a client of its own that counts its requests. */
  async function opened(dir: string): Promise<{ cache: LayerCache; client: RegistryClient }> {
    const client = new RegistryClient(target.slice(0, target.indexOf('/')));
    return { cache: await scratch.cache({ dir, registry: () => client }), client };
  }

  it('is pushed, in manifests that every registry takes', async () => {
    // Without HTTP: to ask for 20,000 blobs that way takes longer than all the rest.
    const cache = await scratch.cache({ dir: dirs.first, registry: () => memory });
    const result = await cache.push(target);
    expect(result.entries).to.equal(COUNT);
    const { bytes } = await memory.fetchManifest(REPOSITORY, 'main');
    const shards = decodeCacheIndex(bytes, 'index')?.shards ?? [];
    expect(shards.length).to.be.at.least(2);
    for (const shard of shards) expect(shard.size).to.be.below(MAX_MANIFEST_SIZE);
    await cache.close();
  });

  it('is pushed again with two requests', async () => {
    const { cache, client } = await opened(dirs.first);
    const result = await cache.push(target);
    expect(result.listed).to.equal(COUNT);
    // The index, and the tags beside it.
    expect(client.traffic.requests).to.equal(2);
    await cache.close();
  });

  it('is pulled lazily with a request for the tags and one for each manifest, and answers by diffID', async () => {
    const { cache, client } = await opened(dirs.second);
    const result = await cache.pull(target, { lazy: true });
    expect(result.entries).to.equal(COUNT);
    expect(client.traffic.requests).to.equal(4);
    const layer = cache.layer(digestOf('tar 12345'));
    expect(layer.digests).to.deep.equal([digestOf('layer 12345')]);
    expect(await bytesOf(cache.blob(digestOf('layer 12345')))).to.deep.equal(Buffer.from('layer 12345'));
    await cache.close();
  });

  it('takes one new layer in eleven requests, those of its upload included', async () => {
    const { cache, client } = await opened(dirs.second);
    const layer = layerOf(tarOf({ data: randomBytes(100_000) }));
    const layout = await OciLayout.open(dirs.second);
    await layout.write(layer.bytes);
    await layout.put(layer.descriptor);
    await layout.close();
    const result = await cache.push(target);
    expect(result.sent).to.deep.equal({ blobs: 1, bytes: layer.bytes.length });
    expect(result.entries).to.equal(COUNT + 1);
    // The index and the tags; is the blob there, upload (2); its shard; its pending tag; the tag; both are as we put
    // them (2); the pending tag before is removed.
    expect(client.traffic.requests).to.equal(11);
    await cache.close();
  });

  it('takes an image with one new layer in three more: its config, and its manifest', async () => {
    const { cache, client } = await opened(dirs.second);
    const other = new MemoryRegistry();
    await pushImage(other, 'app', '1', imageOf([layerOf(tarOf({ data: randomBytes(100_000) }))]));
    const adding = await LayerCache.open(dirs.second, { registry: () => other });
    await adding.add('origin.test/app:1');
    await adding.close();
    const result = await cache.push(target);
    expect(result.sent.blobs).to.equal(2);
    expect(result.entries).to.equal(COUNT + 2);
    expect(client.traffic.requests).to.equal(14);
    await cache.close();
  });

  it('is pushed again with four requests at most when others have pushed since', async () => {
    const { cache, client } = await opened(dirs.first);
    const result = await cache.push(target);
    expect(result.entries).to.equal(COUNT + 2);
    expect(client.traffic.requests).to.be.at.most(4);
    await cache.close();
  });

  it('is pulled again, unchanged, with two requests and not a byte of a blob', async () => {
    const { cache, client } = await opened(dirs.second);
    const result = await cache.pull(target, { lazy: true });
    expect(result.received).to.deep.equal({ blobs: 0, bytes: 0 });
    expect(client.traffic.requests).to.equal(2);
    await cache.close();
  });
});
