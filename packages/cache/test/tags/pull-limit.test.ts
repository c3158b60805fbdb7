import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { promisify } from 'node:util';
import { expect } from 'chai';
import { MemoryRegistry, RegistryClient, createRegistryServer, noCredentials } from '@layercache/registry';
import { imageOf, layerOf, pushImage, tarOf } from '../image-builder.js';
import { Scratch } from '../test-cache.js';

/** Docker Hub counts a GET of a manifest as a pull, and a HEAD not. */
describe('resolving a tag over HTTP', () => {
  const scratch = new Scratch();
  const servers: { close(): Promise<void> }[] = [];
  afterEach(async () => {
    await scratch.clean();
    for (const server of servers.splice(0)) await server.close();
  });
  const image = imageOf([layerOf(tarOf({ data: 'some data' }))]);

  async function serve(
    change: (response: ServerResponse) => void,
  ): Promise<{ host: string; seen: string[]; registry: MemoryRegistry }> {
    const registry = new MemoryRegistry();
    await pushImage(registry, 'library/app', '1', image);
    const seen: string[] = [];
    const server = createRegistryServer(registry, {
      wrap: (handler) => (request, response) => {
        if (request.url?.includes('/manifests/') === true) seen.push(request.method ?? '');
        change(response);
        handler(request, response);
      },
    });
    servers.push(server);
    await server.listen({ host: '127.0.0.1', port: 0 });
    return { host: new URL(server.url).host, seen, registry };
  }

  it('takes one HEAD, whoever asks, until the TTL is over; a pull counts when the tag has moved', async () => {
    const { host, seen, registry } = await serve((response) => {
      response.setHeader('RateLimit-Limit', '100;w=21600');
      response.setHeader('RateLimit-Remaining', '76;w=21600');
    });
    const client = new RegistryClient(host, { credentials: noCredentials });
    const cache = await scratch.cache({ registry: () => client });
    const name = `${host}/library/app:1`;
    await Promise.all([1, 2, 3].map(() => cache.tags.resolve(name)));
    await cache.tags.resolve(name);
    expect(seen.splice(0)).to.deep.equal(['HEAD']);
    expect(client.rateLimit).to.deep.equal({ limit: 100, remaining: 76, window: 21600 });
    await cache.add(name);
    expect(seen.splice(0)).to.deep.equal(['HEAD', 'GET']);
    await cache.add(name);
    await cache.tags.resolve(name, { maxAge: 0 });
    expect(seen.splice(0)).to.deep.equal(['HEAD', 'HEAD']);
    await pushImage(registry, 'library/app', '1', imageOf([layerOf(tarOf({ data: 'other data' }))]));
    await cache.add(name);
    expect(seen).to.deep.equal(['HEAD', 'GET']);
  });

  it('takes a GET where a HEAD does not tell the digest', async () => {
    const seen: string[] = [];
    const server = createServer((request, response) => {
      seen.push(request.method ?? '');
      response.writeHead(200, {
        'content-type': image.descriptor.mediaType,
        'content-length': image.bytes.length,
      });
      response.end(request.method === 'HEAD' ? undefined : image.bytes);
    });
    servers.push({ close: promisify(server.close.bind(server)) });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const host = `127.0.0.1:${(server.address() as AddressInfo).port}`;
    const cache = await scratch.cache({
      registry: () => new RegistryClient(host, { credentials: noCredentials }),
    });
    const found = await cache.tags.resolve(`${host}/library/app:1`);
    expect(found.digest).to.equal(image.descriptor.digest);
    expect(seen).to.deep.equal(['HEAD', 'GET']);
  });
});
