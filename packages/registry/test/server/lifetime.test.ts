import { once } from 'node:events';
import { get, request } from 'node:http';
import { Readable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { digestOf, isLayercacheError } from '@layercache/oci';
import { expect } from 'chai';
import { MemoryRegistry } from '../../src/memory-registry.js';
import { createRegistryServer } from '../../src/server/registry-server.js';
import { pushBytes } from '../images.js';
import { bytesOf, serving } from './serving.js';

const DIGEST = digestOf('x');

describe('the life of a registry server', () => {
  it('has no address before it listens', () => {
    expect(() => createRegistryServer(new MemoryRegistry()).url).to.throw('does not listen yet');
  });

  it('fails to start on a port that is taken', () =>
    serving(async (url) => {
      const second = createRegistryServer(new MemoryRegistry());
      try {
        await second.listen({ host: '127.0.0.1', port: Number(new URL(url).port) });
        expect.fail('two servers on one port');
      } catch (error) {
        expect(isLayercacheError(error, 'NETWORK')).to.equal(true);
      }
    }));

  it('ends when its clients keep their connections open', async () => {
    const server = createRegistryServer(new MemoryRegistry());
    await server.listen({ host: '127.0.0.1', port: 0 });
    await bytesOf(await fetch(`${server.url}/v2/`));
    const start = performance.now();
    await server.close();
    expect(performance.now() - start).to.be.below(1000);
  });

  it('lets a request under way end', async () => {
    const registry = new MemoryRegistry();
    const server = createRegistryServer(registry);
    await server.listen({ host: '127.0.0.1', port: 0 });
    registry.fetchBlob = async () => {
      await delay(100);
      return { size: 4, offset: 0, body: Readable.from([Buffer.from('late')], { objectMode: false }) };
    };
    const answer = fetch(`${server.url}/v2/app/blobs/${DIGEST}`);
    await delay(30);
    const closed = server.close();
    expect((await bytesOf(await answer)).toString()).to.equal('late');
    await closed;
  });

  it('tells the registry when a client has left while it was reading', async () => {
    const registry = new MemoryRegistry();
    let body: Readable | undefined;
    let signal: AbortSignal | undefined;
    registry.fetchBlob = (_repository, _digest, options) => {
      signal = options?.signal;
      body = new Readable({
        read() {
          this.push(Buffer.alloc(65536));
        },
      });
      return Promise.resolve({ size: undefined, offset: 0, body });
    };
    await serving(
      async (url) => {
        const response = await new Promise<Readable>((resolve) =>
          get(`${url}/v2/app/blobs/${DIGEST}`, resolve),
        );
        await once(response, 'readable');
        response.destroy();
        if (body?.destroyed !== true) await new Promise((resolve) => body?.once('close', resolve));
        expect(body?.destroyed).to.equal(true);
        expect(signal?.aborted).to.equal(true);
      },
      { registry },
    );
  });

  it('tells the registry when a client has left while it was writing', async () => {
    const registry = new MemoryRegistry();
    const failed = new Promise<unknown>((resolve) => {
      const pushBlob = registry.pushBlob.bind(registry);
      registry.pushBlob = async (...args) => {
        try {
          await pushBlob(...args);
        } catch (error) {
          resolve(error);
          throw error;
        }
      };
    });
    await serving(
      async (url) => {
        const upload = request(`${url}/v2/app/blobs/uploads/?digest=${DIGEST}`, {
          method: 'POST',
          headers: { 'Content-Length': 1000 },
        });
        upload.on('error', () => undefined);
        upload.write('x', () => setTimeout(() => upload.destroy(), 20));
        expect(await failed).to.be.instanceOf(Error);
        expect(await registry.blobSize('app', DIGEST)).to.equal(undefined);
      },
      { registry },
    );
  });

  it('answers on the same connection after an upload that it refused without reading it', () =>
    serving(async (url, registry) => {
      await pushBytes(registry, 'app', Buffer.from('x'));
      const refused = await fetch(`${url}/v2/app/blobs/uploads/none?digest=${DIGEST}`, {
        method: 'PUT',
        body: Buffer.alloc(3_000_000),
      });
      expect(refused.status).to.equal(404);
      await refused.text();
      expect((await bytesOf(await fetch(`${url}/v2/app/blobs/${DIGEST}`))).toString()).to.equal('x');
    }));

  it('lets who wraps its handler see each request first', () =>
    serving(
      async (url) => {
        expect((await fetch(`${url}/v2/`)).status).to.equal(503);
      },
      {
        wrap: () => (_request, response) => {
          response.writeHead(503).end();
        },
      },
    ));
});
