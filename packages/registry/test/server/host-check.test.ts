import { request as httpRequest } from 'node:http';
import { hostname, networkInterfaces } from 'node:os';
import { isLayercacheError } from '@layercache/oci';
import { expect } from 'chai';
import fc from 'fast-check';
import { MemoryRegistry } from '../../src/memory-registry.js';
import { hostName } from '../../src/server/host-check.js';
import { createRegistryServer } from '../../src/server/registry-server.js';
import { pushImage } from '../images.js';
import { ask, codeOf } from './raw.js';
import { serving } from './serving.js';

/** Runs `use` against a server on an address, by the URL of that address. */
async function servingOn(
  host: string,
  use: (port: string) => Promise<void>,
  hostnames?: readonly string[],
): Promise<void> {
  const server = createRegistryServer(new MemoryRegistry(), hostnames === undefined ? {} : { hostnames });
  await server.listen({ host, port: 0 });
  try {
    await use(new URL(server.url).port);
  } finally {
    await server.close();
  }
}

describe('the name that a request is for', () => {
  it('is refused with 421 when the server does not go by it, whatever is asked for', () =>
    serving(async (url, registry) => {
      const { digest } = await pushImage(registry, 'app', 'one', { tag: 'v1' });
      const requests = [
        'GET /v2/',
        'HEAD /v2/',
        'GET /v2/_catalog',
        'GET /v2/app/tags/list',
        'GET /v2/app/manifests/v1',
        `GET /v2/app/blobs/${digest}`,
        'POST /v2/app/blobs/uploads/',
        'PUT /v2/app/manifests/v1',
        'DELETE /v2/app/manifests/v1',
        'OPTIONS /v2/',
        'GET /',
        'GET /nowhere',
        'PROPFIND /v2/',
      ];
      for (const line of requests) {
        const answer = await ask(url, `${line} HTTP/1.1`, 'Host: evil.example');
        expect(answer.status, line).to.equal(421);
        if (!line.startsWith('HEAD')) {
          expect(codeOf(answer), line).to.equal('DENIED');
          expect(answer.body, line).to.include('--hostname evil.example');
        }
      }
      expect((await registry.resolve('app', 'v1')).digest).to.equal(digest);
    }));

  it('is refused before the handler that wraps the registry sees the request', () =>
    serving(
      async (url) => {
        expect((await ask(url, 'GET /v2/ HTTP/1.1', 'Host: evil.example')).status).to.equal(421);
        expect((await ask(url, 'GET /v2/ HTTP/1.1', 'Host: 127.0.0.1')).status).to.equal(503);
      },
      {
        wrap: () => (_request, response) => {
          response.writeHead(503).end();
        },
      },
    ));

  it('can be any IP address, which nobody can make mean another one', () =>
    serving(async (url) => {
      for (const host of [
        '127.0.0.1',
        '10.1.2.3:5000',
        '[::1]',
        '[::1]:5000',
        '[fe80::1%25eth0]:80',
        '127.0.0.1.',
      ]) {
        expect((await ask(url, 'GET /v2/ HTTP/1.1', `Host: ${host}`)).status, host).to.equal(200);
      }
    }));

  it('cannot be what only looks like an IP address', () =>
    serving(async (url) => {
      for (const host of [
        '127.1',
        '2130706433',
        '0x7f.0.0.1',
        '127.0.0.1.evil.example',
        '127.0.0.1.nip.io',
        '256.1.1.1',
      ]) {
        expect((await ask(url, 'GET /v2/ HTTP/1.1', `Host: ${host}`)).status, host).to.equal(421);
      }
    }));

  it('can be localhost over loopback, in any case, with a dot at its end, with any port', () =>
    serving(async (url) => {
      for (const host of [
        'localhost',
        'LocalHost',
        'localhost.',
        'localhost:5000',
        'LOCALHOST.:1',
        'localhost:',
      ]) {
        expect((await ask(url, 'GET /v2/ HTTP/1.1', `Host: ${host}`)).status, host).to.equal(200);
      }
      for (const host of ['evil.localhost', 'localhost.evil.example', 'localhost..']) {
        expect((await ask(url, 'GET /v2/ HTTP/1.1', `Host: ${host}`)).status, host).to.equal(421);
      }
    }));

  it('cannot be localhost where the connection comes from elsewhere', async function () {
    const external = Object.values(networkInterfaces())
      .flat()
      .find((each) => each?.family === 'IPv4' && !each.internal)?.address;
    if (external === undefined) this.skip();
    await servingOn('0.0.0.0', async (port) => {
      const url = `http://${external}:${port}`;
      expect((await ask(url, 'GET /v2/ HTTP/1.1', 'Host: localhost')).status).to.equal(421);
      expect((await ask(url, 'GET /v2/ HTTP/1.1', `Host: ${external}:${port}`)).status).to.equal(200);
    });
  });

  it('can be one that the server was given, in any case', () =>
    servingOn(
      '127.0.0.1',
      async (port) => {
        const url = `http://127.0.0.1:${port}`;
        for (const host of ['registry.example', 'Registry.Example.:5000', 'xn--bcher-kva.example', 'b_c']) {
          expect((await ask(url, 'GET /v2/ HTTP/1.1', `Host: ${host}`)).status, host).to.equal(200);
        }
        for (const host of ['a.registry.example', 'registry.example.com', 'example']) {
          expect((await ask(url, 'GET /v2/ HTTP/1.1', `Host: ${host}`)).status, host).to.equal(421);
        }
      },
      ['REGISTRY.example:443', 'xn--bcher-kva.example.', 'b_c'],
    ));

  it('can be the name of the machine only where others than the machine are served', async () => {
    const own = hostName(hostname());
    const status = async (port: string): Promise<number> =>
      (await ask(`http://127.0.0.1:${port}`, 'GET /v2/ HTTP/1.1', `Host: ${hostname()}:${port}`)).status;
    await servingOn('0.0.0.0', async (port) => {
      expect(await status(port)).to.equal(200);
    });
    await servingOn('', async (port) => {
      expect(await status(port)).to.equal(200);
      const local = await ask(`http://127.0.0.1:${port}`, 'GET /v2/ HTTP/1.1', 'Host: localhost');
      expect(local.status).to.equal(200);
    });
    await servingOn('127.0.0.1', async (port) => {
      expect(await status(port)).to.equal(own === 'localhost' ? 200 : 421);
    });
  });

  it('can be the name that the server listens on', () =>
    servingOn('localhost', async (port) => {
      const status = await new Promise<number | undefined>((resolve, reject) => {
        const options = { host: 'localhost', port, path: '/v2/' };
        httpRequest(options, (response) => {
          response.resume();
          resolve(response.statusCode);
        })
          .on('error', reject)
          .end();
      });
      expect(status).to.equal(200);
    }));

  it('counts in a target in absolute form as it does in the header', () =>
    serving(async (url) => {
      const { host } = new URL(url);
      const good = await ask(url, `GET http://${host}/v2/ HTTP/1.1`, `Host: ${host}`);
      expect([good.status, good.body]).to.deep.equal([200, '{}\n']);
      for (const [target, header] of [
        ['http://evil.example/v2/', host],
        ['HTTPS://evil.example:5000/v2/', host],
        [`http://${host}/v2/`, 'evil.example'],
      ] as const) {
        const answer = await ask(url, `GET ${target} HTTP/1.1`, `Host: ${header}`);
        expect(answer.status, target).to.equal(421);
      }
      const user = await ask(url, `GET http://evil.example@${host}/v2/ HTTP/1.1`, `Host: ${host}`);
      expect(user.status).to.equal(400);
    }));

  it('stands in exactly one header, which HTTP/1.0 does without', () =>
    serving(async (url) => {
      const { host } = new URL(url);
      expect((await ask(url, 'GET /v2/ HTTP/1.0')).status).to.equal(200);
      expect((await ask(url, 'GET /v2/ HTTP/1.0', 'Host: evil.example')).status).to.equal(421);
      for (const headers of [
        [],
        [`Host: ${host}`, `Host: ${host}`],
        [`Host: ${host}`, 'HOST: evil.example'],
        ['Host: evil.example', `Host: ${host}`],
      ]) {
        const answer = await ask(url, 'GET /v2/ HTTP/1.1', ...headers);
        expect([answer.status, codeOf(answer)], headers.join()).to.deep.equal([400, 'UNSUPPORTED']);
      }
    }));

  it('is refused with 400 when it is no name', () =>
    serving(async (url) => {
      for (const host of [
        '',
        'a b',
        '[::1',
        '::1',
        '[127.0.0.1]',
        'a:b',
        'user@127.0.0.1',
        '127.0.0.1/x',
        '.',
        '[]',
        'a'.repeat(300),
      ]) {
        const answer = await ask(url, 'GET /v2/ HTTP/1.1', `Host: ${host}`);
        expect([answer.status, codeOf(answer)], host).to.deep.equal([400, 'UNSUPPORTED']);
      }
    }));

  it('that is given to a server must be one', () => {
    for (const name of ['', 'a b', 'http://registry.example', '*.example', 'a/b']) {
      try {
        createRegistryServer(new MemoryRegistry(), { hostnames: [name] });
        expect.fail(`${name} was taken`);
      } catch (error) {
        expect(isLayercacheError(error, 'USAGE'), name).to.equal(true);
      }
    }
  });

  it('is the same for a name however it is written', () => {
    const label = fc.stringMatching(/^[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?$/);
    const name = fc.array(label, { minLength: 1, maxLength: 4 }).map((labels) => labels.join('.'));
    fc.assert(
      fc.property(name, fc.boolean(), fc.boolean(), fc.option(fc.nat(65535)), (plain, upper, dot, port) => {
        const written = `${upper ? plain.toUpperCase() : plain}${dot ? '.' : ''}${port === null ? '' : `:${port}`}`;
        expect(hostName(written)).to.equal(plain);
      }),
    );
  });
});
