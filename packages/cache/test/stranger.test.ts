import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { randomBytes } from 'node:crypto';
import { expect } from 'chai';
import { isLayercacheError } from '@layercache/oci';
import {
  MemoryRegistry,
  RegistryClient,
  createRegistryServer,
  noCredentials,
  type RegistryServer,
} from '@layercache/registry';
import { imageOf, layerOf, pushImage, tarOf } from './image-builder.js';
import { Scratch, bytesOf } from './test-cache.js';

const BASIC = `Basic ${Buffer.from('alice:the-password').toString('base64')}`;

describe('a registry that redirects to a stranger, who asks for credentials', () => {
  const scratch = new Scratch();
  const layer = layerOf(tarOf({ data: randomBytes(20_000) }));
  const image = imageOf([layer]);
  let registry: RegistryServer;
  let stranger: Server;
  let host: string;
  /** Requests that the registry redirects. */
  let redirected: RegExp | undefined;
  const seen: (string | undefined)[] = [];

  beforeEach(async () => {
    seen.length = 0;
    redirected = undefined;
    stranger = createServer((request, response) => {
      seen.push(request.headers.authorization);
      const realm = `http://${request.headers.host ?? ''}/token`;
      const challenge = [`Bearer realm="${realm}",service="x"`, 'Basic realm="registry"'];
      response.writeHead(401, { 'www-authenticate': challenge }).end();
    });
    await new Promise<void>((resolve) => stranger.listen(0, '127.0.0.1', resolve));
    const elsewhere = `localhost:${(stranger.address() as AddressInfo).port}`;
    const memory = new MemoryRegistry();
    await pushImage(memory, 'app', '1', image);
    registry = createRegistryServer(memory, {
      wrap: (handler) => (request, response) => {
        if (request.headers.authorization !== BASIC) {
          request.resume();
          response.writeHead(401, { 'www-authenticate': 'Basic realm="registry"' }).end();
        } else if (redirected?.test(request.url ?? '') === true) {
          request.resume();
          response.writeHead(307, { location: `http://${elsewhere}${request.url}` }).end();
        } else handler(request, response);
      },
    });
    await registry.listen({ host: '127.0.0.1', port: 0 });
    host = new URL(registry.url).host;
  });
  afterEach(async () => {
    await scratch.clean();
    await registry.close();
    stranger.closeAllConnections();
    await new Promise((resolve) => stranger.close(resolve));
  });

  const client = (name: string): RegistryClient =>
    new RegistryClient(name, {
      retry: { attempts: 1 },
      credentials: {
        get: () => Promise.resolve({ kind: 'password', username: 'alice', password: 'the-password' }),
      },
    });

  /** Runs what cannot succeed: the stranger was there, and got nothing. */
  async function fails(work: () => Promise<unknown>): Promise<void> {
    seen.length = 0;
    try {
      await work();
    } catch (error) {
      if (!isLayercacheError(error)) throw error;
      expect(seen).to.include(undefined);
      expect(seen.filter((each) => each !== undefined)).to.deep.equal([]);
      return;
    }
    expect.fail('it did not fail');
  }

  it('gives them none in add, push, pull and a tag', async () => {
    const cache = await scratch.cache({ registry: client });
    redirected = /\/blobs\//;
    await fails(() => cache.add(`${host}/app:1`));
    redirected = /\/manifests\//;
    // The tag was resolved a moment ago, so another one is asked for.
    await fails(() => cache.add(`${host}/app:2`));
    await fails(() => cache.tags.resolve(`${host}/app:3`));
    await fails(() => cache.pull(`${host}/team/cache:1`));
    redirected = undefined;
    await cache.add(`${host}/app:1`);
    redirected = /\/manifests\//;
    await fails(() => cache.push(`${host}/team/cache:1`));
  });

  it('gives them none in the reads of a lazily pulled cache', async () => {
    const first = await scratch.cache({ registry: client });
    await first.add(`${host}/app:1`);
    await first.push(`${host}/team/cache:1`);
    const lazy = await scratch.cache({ registry: client });
    await lazy.pull(`${host}/team/cache:1`, { lazy: true });
    redirected = /\/blobs\//;
    await fails(() => bytesOf(lazy.blob(layer.descriptor.digest)));
    await fails(() => bytesOf(lazy.layer(layer.diffID).uncompressed()));
  });

  it('gives them none in a mirror', async () => {
    const cache = await scratch.cache({ registry: client });
    const mirror = createRegistryServer(cache.mirror(host));
    await mirror.listen({ host: '127.0.0.1', port: 0 });
    try {
      const reader = new RegistryClient(new URL(mirror.url).host, {
        credentials: noCredentials,
        retry: { attempts: 1 },
      });
      redirected = /\/blobs\//;
      await fails(() => reader.fetchManifest('app', '1'));
      await fails(async () => bytesOf((await reader.fetchBlob('app', layer.descriptor.digest)).body));
      redirected = /\/tags\//;
      await fails(() => reader.tags('app').next());
    } finally {
      await mirror.close();
    }
  });
});
