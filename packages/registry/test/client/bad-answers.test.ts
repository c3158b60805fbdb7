import { randomBytes } from 'node:crypto';
import { digestOf, MAX_MANIFEST_SIZE, MediaType } from '@layercache/oci';
import { expect } from 'chai';
import { RegistryClient } from '../../src/client/registry-client.js';
import { bytesOf, failureOf, impatient, refusalOf, scripted, sendJson } from './scripted.js';

const BYTES = randomBytes(300_000);
const DIGEST = digestOf(BYTES);
const MANIFEST = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: MediaType.index, manifests: [] }));

async function readBlob(client: RegistryClient): Promise<Buffer> {
  return bytesOf((await client.fetchBlob('app', DIGEST)).body);
}

describe('a registry that answers', () => {
  it('with the wrong manifest for a digest is caught', () =>
    scripted(
      (_, response) =>
        response.writeHead(200, { 'content-type': MediaType.index }).end('{"schemaVersion":2}'),
      async (host) => {
        const failure = await failureOf(
          new RegistryClient(host, impatient).fetchManifest('app', digestOf(MANIFEST)),
        );
        expect(failure.code).to.equal('DIGEST_MISMATCH');
        expect(failure.message).to.include(digestOf(MANIFEST));
      },
    ));

  it('with another digest than the bytes of a tag have is caught', () =>
    scripted(
      (_, response) =>
        response
          .writeHead(200, { 'content-type': MediaType.index, 'docker-content-digest': DIGEST })
          .end(MANIFEST),
      async (host) => {
        const failure = await failureOf(new RegistryClient(host, impatient).fetchManifest('app', 'v1'));
        expect(failure.code).to.equal('DIGEST_MISMATCH');
      },
    ));

  it('with a manifest without end is not read to the end', () =>
    scripted(
      (_, response) => {
        response.writeHead(200, { 'content-type': MediaType.index });
        const more = (): void => {
          while (!response.destroyed && response.write(Buffer.alloc(65536, ' ')));
        };
        response.on('drain', more);
        more();
      },
      async (host) => {
        const client = new RegistryClient(host, impatient);
        const failure = await failureOf(client.fetchManifest('app', 'v1'));
        expect(failure.code).to.equal('REGISTRY');
        expect(client.traffic.bytesReceived).to.be.below(MAX_MANIFEST_SIZE + 200_000);
      },
    ));

  for (const method of ['resolve', 'fetchManifest'] as const) {
    it(`with a web page to ${method} is told from a registry`, () =>
      scripted(
        (_, response) =>
          response
            .writeHead(200, { 'content-type': 'text/html', 'content-length': 20 })
            .end('<html>Hello!!</html>'),
        async (host) => {
          const failure = await failureOf(new RegistryClient(host, impatient)[method]('app', DIGEST));
          expect(failure.code).to.equal('REGISTRY');
          expect(failure.message).to.include('text/html');
        },
      ));
  }

  it('with a web page to a listing is told from a registry', () =>
    scripted(
      (_, response) => response.writeHead(200, { 'content-type': 'text/html' }).end('<html>Hello</html>'),
      async (host) => {
        const tags = new RegistryClient(host, impatient).tags('app');
        const failure = await failureOf(tags[Symbol.asyncIterator]().next());
        expect(failure.message).to.include('the tags of app is not JSON').and.to.include('<html>');
      },
    ));

  it('with fewer bytes than it announced does not pass for complete', () =>
    scripted(
      (_, response) => {
        response.writeHead(200, { 'content-length': BYTES.length });
        response.write(BYTES.subarray(0, 1000), () => response.destroy());
      },
      async (host) => {
        const failure = await failureOf(readBlob(new RegistryClient(host, impatient)));
        expect(failure.code).to.equal('NETWORK');
      },
    ));

  it('with more bytes than it announced yields no more than it announced', () =>
    scripted(
      ({ socket }) => {
        socket.write('HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789and more');
      },
      async (host) => {
        expect((await readBlob(new RegistryClient(host, impatient))).toString()).to.equal('0123456789');
      },
    ));

  it('with its own errors is quoted', () =>
    scripted(
      (_, response) => {
        sendJson(response, 404, { errors: [{ code: 'NAME_UNKNOWN', message: 'no such\nrepository' }] });
      },
      async (host) => {
        const client = new RegistryClient(host, impatient);
        const { code, status, reported, message } = await refusalOf(client.fetchManifest('app', 'v1'));
        expect([code, status]).to.deep.equal(['NOT_FOUND', 404]);
        expect(reported[0]?.code).to.equal('NAME_UNKNOWN');
        expect(message).to.include('NAME_UNKNOWN: no such repository').and.to.include(host);
        expect(message).not.to.include('\n');
      },
    ));

  it('401 without a challenge is not guessed at', () =>
    scripted(
      (_, response) => response.writeHead(401).end(),
      async (host, seen) => {
        const failure = await failureOf(new RegistryClient(host, impatient).resolve('app', 'v1'));
        expect(failure.code).to.equal('UNAUTHORIZED');
        expect(failure.message).to.include('no WWW-Authenticate');
        expect(seen).to.have.length(1);
      },
    ));

  for (const status of [500, 502, 503, 504]) {
    it(`${status} is asked again, and believed in the end`, () =>
      scripted(
        (_, response) => response.writeHead(status).end('<h1>Bad day</h1>'),
        async (host, seen) => {
          const failure = await failureOf(new RegistryClient(host, impatient).fetchManifest('app', 'v1'));
          expect(failure.code).to.equal('REGISTRY');
          expect(failure.message).to.include(`status ${status}`).and.to.include('Bad day');
          expect(seen).to.have.length(3);
        },
      ));
  }

  it('400 is not asked again', () =>
    scripted(
      (_, response) => response.writeHead(400).end(),
      async (host, seen) => {
        await failureOf(new RegistryClient(host, impatient).fetchManifest('app', 'v1'));
        expect(seen).to.have.length(1);
      },
    ));

  it('nothing at all is given up', () =>
    scripted(
      () => undefined,
      async (host, seen) => {
        const client = new RegistryClient(host, { ...impatient, timeout: 50 });
        const failure = await failureOf(client.resolve('app', 'v1'));
        expect(failure.code).to.equal('NETWORK');
        expect(failure.message).to.include('no answer in 0.05 s');
        expect(seen).to.have.length(3);
      },
    ));

  it('and then stops in the middle of a blob is given up', () =>
    scripted(
      (_, response) => {
        response.writeHead(200, { 'content-length': BYTES.length });
        response.write(BYTES.subarray(0, 1000));
      },
      async (host) => {
        const failure = await failureOf(readBlob(new RegistryClient(host, { ...impatient, timeout: 50 })));
        expect(failure.code).to.equal('NETWORK');
      },
    ));
});

describe('a registry that cannot be reached', () => {
  it('is named', async () => {
    let gone = '';
    await scripted(
      () => undefined,
      (host) => {
        gone = host;
        return Promise.resolve();
      },
    );
    const failure = await failureOf(new RegistryClient(gone, impatient).resolve('app', 'v1'));
    expect(failure.code).to.equal('NETWORK');
    expect(failure.message).to.include(gone).and.to.include('ECONNREFUSED');
  });
});

describe('too many requests', () => {
  it('are answered by waiting as long as asked', () => {
    let asked = 0;
    return scripted(
      (_, response) => {
        asked += 1;
        if (asked < 3) response.writeHead(429, { 'retry-after': '1' }).end();
        else response.writeHead(200, { 'content-length': '5' }).end();
      },
      async (host) => {
        const started = performance.now();
        const client = new RegistryClient(host, {
          ...impatient,
          retry: { attempts: 3, delay: 1, maxDelay: 60 },
        });
        expect(await client.blobSize('app', DIGEST)).to.equal(5);
        // A second was asked for; the client's own limit for a pause cuts it short.
        expect(performance.now() - started).to.be.within(110, 900);
      },
    );
  });

  it('without a time are tried again, and reported in the end', () =>
    scripted(
      (_, response) => {
        sendJson(response, 429, { errors: [{ code: 'TOOMANYREQUESTS', message: 'slow down' }] });
      },
      async (host, seen) => {
        const failure = await refusalOf(new RegistryClient(host, impatient).fetchManifest('app', 'v1'));
        expect(failure.status).to.equal(429);
        expect(failure.message).to.include('slow down').and.to.include('try again later');
        expect(seen).to.have.length(3);
      },
    ));
});

describe('errors of a registry', () => {
  it('that are long are read up to a limit, and quoted in part', async () => {
    const long = 'x'.repeat(60_000);
    const bodies = [
      JSON.stringify({ errors: [{ code: 'DENIED', message: long }] }),
      JSON.stringify({ errors: Array.from({ length: 2000 }, () => ({ code: 'DENIED' })) }),
      long,
      // A search for tags that never end must not take the square of their number.
      '<'.repeat(60_000),
      'x'.repeat(1024 * 1024),
    ];
    for (const body of bodies) {
      await scripted(
        (_, response) => response.writeHead(400, { 'content-type': 'application/json' }).end(body),
        async (host) => {
          const failure = await failureOf(new RegistryClient(host, impatient).fetchManifest('app', 'v1'));
          expect(failure.code).to.equal('REGISTRY');
          expect(failure.message.length).to.be.below(1000);
        },
      );
    }
  });
});
