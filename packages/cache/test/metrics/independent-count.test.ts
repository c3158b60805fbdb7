import { randomBytes } from 'node:crypto';
import { expect } from 'chai';
import {
  MemoryRegistry,
  RegistryClient,
  createRegistryServer,
  noCredentials,
  type Registry,
  type RegistryServer,
} from '@layercache/registry';
import { imageOf, layerOf, pushImage, tarOf } from '../image-builder.js';
import { Scratch, bytesOf } from '../test-cache.js';

/** The metrics of a cache against what the registry on the other side counted itself. */
describe('metrics and an independent count', () => {
  const scratch = new Scratch();
  const servers: RegistryServer[] = [];
  afterEach(async () => {
    await scratch.clean();
    for (const server of servers.splice(0)) await server.close();
  });

  async function serve(
    registry: Registry,
  ): Promise<{ host: string; client: RegistryClient; server: RegistryServer; lines: string[] }> {
    const lines: string[] = [];
    const server = createRegistryServer(registry, {
      wrap: (handler) => (request, response) => {
        lines.push(`${request.method} ${/manifests|blobs\/uploads|blobs/.exec(request.url ?? '')?.[0]}`);
        handler(request, response);
      },
    });
    servers.push(server);
    await server.listen({ host: '127.0.0.1', port: 0 });
    const { host } = new URL(server.url);
    return { host, client: new RegistryClient(host, { credentials: noCredentials }), server, lines };
  }

  const layers = [150_000, 60_000, 10].map((size) => layerOf(tarOf({ data: randomBytes(size) })));
  const image = imageOf(layers);
  const blobBytes = [image.config.descriptor, ...layers.map(({ descriptor }) => descriptor)].reduce(
    (total, { size }) => total + size,
    0,
  );

  it('agree on every byte and request of adding images, by whatever is fetched', async () => {
    const registry = new MemoryRegistry();
    await pushImage(registry, 'app', '1', image);
    await pushImage(registry, 'app', '2', imageOf([layers[0]!, layerOf(tarOf({ data: 'new' }))]));
    const { host, client, server, lines } = await serve(registry);
    const cache = await scratch.cache({ registry: () => client });
    const first = await cache.add(`${host}/app:1`);
    const { counters } = cache.metrics.snapshot();
    expect(counters.bytesDownloaded).to.equal(server.traffic.bytesSent);
    expect(counters.bytesDownloaded).to.equal(blobBytes + image.bytes.length);
    expect(counters.bytesDownloaded).to.equal(first.fetched);
    expect([counters.misses, counters.hits, counters.bytesSaved]).to.deep.equal([5, 0, 0]);
    await cache.add(`${host}/app:1`);
    const second = await cache.add(`${host}/app:2`);
    const after = cache.metrics.snapshot();
    expect(after.counters.bytesDownloaded).to.equal(server.traffic.bytesSent);
    expect(after.counters.bytesSaved).to.equal(first.fetched + second.reused);
    const count = (line: string): number => lines.filter((each) => each === line).length;
    expect(after.operations.registryResolve.count).to.equal(count('HEAD manifests'));
    expect(after.operations.registryManifest.count).to.equal(count('GET manifests'));
    expect(after.operations.registryBlob.count).to.equal(count('GET blobs'));
    expect(server.traffic.requests).to.equal(lines.length);
    expect(after.operations.add.count).to.equal(3);
  });

  it('agree on every byte of a whole cache that is pushed, pulled, and pulled lazily and read', async () => {
    const source = new MemoryRegistry();
    await pushImage(source, 'app', '1', image);
    const remote = await serve(new MemoryRegistry());
    const registryOf = (host: string): Registry => (host === 'source.test' ? source : remote.client);
    const target = `${remote.host}/team/cache:main`;
    const cache = await scratch.cache({ registry: registryOf });
    await cache.add('source.test/app:1');
    const fromSource = cache.metrics.snapshot().counters.bytesDownloaded;
    await cache.push(target);
    const pushed = cache.metrics.snapshot().counters;
    expect(pushed.bytesUploaded).to.equal(remote.server.traffic.bytesReceived);
    expect(pushed.bytesUploaded).to.be.greaterThan(blobBytes);

    // What is counted is bytes of manifests and blobs; a pull also lists the tags.
    const unlisted = remote.server.traffic.bytesSent;
    for await (const tag of remote.client.tags('team/cache', { after: 'main.' }))
      expect(tag).to.match(/^main/);
    const listBytes = remote.server.traffic.bytesSent - unlisted;
    for (const lazy of [false, true]) {
      const before = remote.server.traffic.bytesSent;
      const other = await scratch.cache({ registry: registryOf });
      await other.pull(target, { lazy });
      const pulled = other.metrics.snapshot().counters;
      expect(pulled.bytesDownloaded).to.equal(remote.server.traffic.bytesSent - before - listBytes);
      if (lazy) expect(pulled.bytesDownloaded).to.be.lessThan(blobBytes);
      for (const layer of layers) {
        expect(await bytesOf(other.layer(layer.diffID).uncompressed())).to.deep.equal(layer.tar);
      }
      const read = other.metrics.snapshot();
      expect(read.counters.bytesDownloaded).to.equal(remote.server.traffic.bytesSent - before - listBytes);
      expect(read.counters.bytesServed).to.equal(layers.reduce((total, { tar }) => total + tar.length, 0));
      expect(read.operations.read.count).to.equal(3);
      const looked = { hits: read.counters.hits - pulled.hits, misses: read.counters.misses - pulled.misses };
      expect(looked).to.deep.equal(lazy ? { hits: 0, misses: 3 } : { hits: 3, misses: 0 });
    }
    expect(fromSource).to.equal(blobBytes + image.bytes.length);
  });

  it('agree on every byte that a cache behind a server hands out: manifests, blobs, ranges, tars', async () => {
    const source = new MemoryRegistry();
    await pushImage(source, 'app', '1', image);
    const cache = await scratch.cache({ registry: () => source });
    await cache.add('registry.test/app:1', { name: 'team/app:1' });
    const { client, server } = await serve(cache.registry());
    await client.fetchManifest('team/app', '1');
    for (const { descriptor, diffID } of layers) {
      await bytesOf((await client.fetchBlob('team/app', descriptor.digest)).body);
      await bytesOf((await client.fetchBlob('team/app', diffID)).body);
    }
    const range = { first: 100, last: 4_999 };
    await bytesOf((await client.fetchBlob('team/app', layers[0]!.descriptor.digest, { range })).body);
    const { counters } = cache.metrics.snapshot();
    expect(counters.bytesServed).to.equal(server.traffic.bytesSent);
    expect(counters.bytesServed).to.equal(client.traffic.bytesReceived);
  });

  it('agree with what went to make room', async () => {
    const source = new MemoryRegistry();
    const images = ['a', 'b', 'c'].map(() => imageOf([layerOf(tarOf({ data: randomBytes(400_000) }))]));
    const cache = await scratch.cache({ registry: () => source, limits: { maxSize: 1024 * 1024 } });
    for (const [position, each] of images.entries()) {
      await pushImage(source, 'app', `${position}`, each);
      await cache.add(`registry.test/app:${position}`);
    }
    const gone = images.filter((each) => !cache.has(each.descriptor.digest));
    const sizes = gone.flatMap((each) => [
      each.descriptor.size,
      each.config.descriptor.size,
      ...each.layers.map(({ descriptor }) => descriptor.size),
    ]);
    const { counters } = cache.metrics.snapshot();
    expect(gone.length).to.be.greaterThan(0);
    expect(counters.evictions).to.equal(gone.length);
    expect(counters.bytesEvicted).to.equal(sizes.reduce((total, size) => total + size, 0));
  });

  it('agree with the disk on what is stored', async () => {
    const source = new MemoryRegistry();
    await pushImage(source, 'app', '1', image);
    const cache = await scratch.cache({ registry: () => source });
    await cache.add('registry.test/app:1');
    const added = cache.metrics.snapshot().counters.bytesStored;
    const before = (await cache.stats()).disk.blobs;
    await bytesOf(cache.layer(layers[0]!.diffID).uncompressed());
    await bytesOf(cache.layer(layers[0]!.diffID).uncompressed());
    const { counters, peaks } = cache.metrics.snapshot();
    expect(counters.bytesStored - added).to.equal(layers[0]!.tar.length);
    expect((await cache.stats()).disk.blobs - before).to.equal(layers[0]!.tar.length);
    expect(peaks.blobSize).to.equal(layers[0]!.tar.length);
    await cache.close();
    const again = await scratch.cache({ dir: cache.dir });
    expect(again.metrics.total().counters.bytesStored).to.be.at.least(counters.bytesStored);
    expect(again.metrics.snapshot().counters.bytesStored).to.equal(0);
  });
});
