import { randomBytes } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { digestOf } from '@layercache/oci';
import { expect } from 'chai';
import type { RequestHandler } from '../../src/server/registry-handler.js';
import { failureOf, fronted } from './scripted.js';

const MIB = 1024 * 1024;
const LARGE = randomBytes(9 * MIB);
const SMALL = randomBytes(1000);
const of = (bytes: Buffer): { digest: ReturnType<typeof digestOf>; size: number } => ({
  digest: digestOf(bytes),
  size: bytes.length,
});

/** Counts methods on their way to the registry. */
function counting(counts: Record<string, number>, inner: Wrap = (handler) => handler): Wrap {
  return (handler) => {
    const next = inner(handler);
    return (request, response) => {
      counts[request.method!] = (counts[request.method!] ?? 0) + 1;
      next(request, response);
    };
  };
}
type Wrap = (handler: RequestHandler) => RequestHandler;

const bodyLength = (request: IncomingMessage): number => Number(request.headers['content-length'] ?? 0);

/** A registry, or a proxy before it, that takes no request beyond a size. */
const capped =
  (limit: number, refuse: 'status' | 'connection'): Wrap =>
  (handler) =>
  (request, response) => {
    if (bodyLength(request) <= limit) handler(request, response);
    else if (refuse === 'connection') request.socket.destroy();
    else {
      request.resume();
      response.writeHead(413).end();
    }
  };

describe('pushing a blob', () => {
  it('takes two requests, whatever its size', () => {
    const counts: Record<string, number> = {};
    return fronted(counting(counts), async (client, registry) => {
      for (const bytes of [LARGE, SMALL, Buffer.alloc(0)]) {
        await client.pushBlob('app', of(bytes), () => [bytes]);
        expect(await registry.blobSize('app', of(bytes).digest)).to.equal(bytes.length);
      }
      expect(counts).to.deep.equal({ POST: 3, PUT: 3 });
      expect(client.traffic.bytesSent).to.equal(LARGE.length + SMALL.length);
    });
  });

  it('goes over to chunks where requests are limited, and remembers it', () => {
    const counts: Record<string, number> = {};
    return fronted(counting(counts, capped(4 * MIB, 'status')), async (client, registry) => {
      await client.pushBlob('app', of(LARGE), () => [LARGE]);
      expect(await registry.blobSize('app', of(LARGE).digest)).to.equal(LARGE.length);
      expect(counts).to.deep.equal({ POST: 2, PUT: 2, PATCH: 3 });
      await client.pushBlob('again', of(LARGE), () => [LARGE]);
      expect(counts).to.deep.equal({ POST: 3, PUT: 3, PATCH: 6 });
    });
  });

  it('goes over to chunks where a large request breaks the connection', () =>
    fronted(capped(4 * MIB, 'connection'), async (client, registry) => {
      await client.pushBlob('app', of(LARGE), () => [LARGE]);
      expect(await registry.blobSize('app', of(LARGE).digest)).to.equal(LARGE.length);
    }));

  it('draws no conclusion from one broken connection', () => {
    const counts: Record<string, number> = {};
    let broken = false;
    const once: Wrap = (handler) => (request, response) => {
      if (request.method === 'PUT' && !broken) {
        broken = true;
        request.socket.destroy();
      } else handler(request, response);
    };
    return fronted(counting(counts, once), async (client) => {
      await client.pushBlob('app', of(LARGE), () => [LARGE]);
      counts.PATCH = 0;
      await client.pushBlob('again', of(LARGE), () => [LARGE]);
      expect(counts.PATCH).to.equal(0);
    });
  });

  it('sends chunks as large as the registry wants them', () => {
    const sizes: number[] = [];
    const wants: Wrap = (handler) => {
      const next = capped(6 * MIB, 'status')(handler);
      return (request, response) => {
        if (request.method === 'PATCH') sizes.push(bodyLength(request));
        if (request.method === 'POST') response.setHeader('OCI-Chunk-Min-Length', 5 * MIB);
        next(request, response);
      };
    };
    return fronted(wants, async (client) => {
      await client.pushBlob('app', of(LARGE), () => [LARGE]);
      expect(sizes).to.deep.equal([5 * MIB, 4 * MIB]);
    });
  });

  it('accepts 201 for a chunk', () => {
    const created: Wrap = (handler) => {
      const next = capped(4 * MIB, 'status')(handler);
      return (request, response) => {
        if (request.method === 'PATCH') {
          const writeHead = response.writeHead.bind(response);
          response.writeHead = (status: number) => writeHead(status === 202 ? 201 : status);
        }
        next(request, response);
      };
    };
    return fronted(created, async (client, registry) => {
      await client.pushBlob('app', of(LARGE), () => [LARGE]);
      expect(await registry.blobSize('app', of(LARGE).digest)).to.equal(LARGE.length);
    });
  });

  it('follows an absolute Location and keeps its query', () => {
    const seen: string[] = [];
    const absolute: Wrap = (handler) => (request, response) => {
      seen.push(request.url!);
      if (request.method === 'POST') {
        const setHeader = response.setHeader.bind(response);
        response.setHeader = (name, value) =>
          setHeader(
            name,
            name === 'Location' ? `http://${request.headers.host}${String(value)}?_state=a%2Bb%3D` : value,
          );
      }
      handler(request, response);
    };
    return fronted(absolute, async (client) => {
      await client.pushBlob('app', of(SMALL), () => [SMALL]);
      const query = new URL(seen[1]!, 'http://registry').searchParams;
      expect(query.get('_state')).to.equal('a+b=');
      expect(query.get('digest')).to.equal(of(SMALL).digest);
    });
  });

  it('starts again from the first byte when the registry is unavailable', () => {
    let failures = 2;
    const flaky: Wrap = (handler) => (request, response) => {
      if (request.method === 'PUT' && failures > 0) {
        failures -= 1;
        request.resume();
        response.writeHead(503).end();
      } else handler(request, response);
    };
    return fronted(flaky, async (client, registry) => {
      let started = 0;
      await client.pushBlob('app', of(SMALL), () => {
        started += 1;
        return [SMALL];
      });
      expect(started).to.equal(3);
      expect(await registry.blobSize('app', of(SMALL).digest)).to.equal(SMALL.length);
    });
  });

  it('of other bytes than announced is refused by the registry', () =>
    fronted(
      (handler) => handler,
      async (client, registry) => {
        const wrong = { digest: digestOf('something else'), size: SMALL.length };
        const failure = await failureOf(client.pushBlob('app', wrong, () => [SMALL]));
        expect(failure.code).to.equal('DIGEST_MISMATCH');
        expect(await registry.blobSize('app', wrong.digest)).to.equal(undefined);
      },
    ));

  for (const size of [SMALL.length - 1, SMALL.length + 1]) {
    it(`of ${SMALL.length} bytes announced as ${size} fails`, () =>
      fronted(
        (handler) => handler,
        async (client) => {
          const failure = await failureOf(
            client.pushBlob('app', { digest: of(SMALL).digest, size }, () => [SMALL]),
          );
          expect(failure.code).to.equal('DIGEST_MISMATCH');
        },
      ));
  }

  it('whose source fails hands that failure on', () =>
    fronted(
      (handler) => handler,
      async (client) => {
        const reason = new Error('the disk is gone');
        let found: unknown;
        await client
          .pushBlob('app', of(LARGE), function* () {
            yield LARGE.subarray(0, 100);
            throw reason;
          })
          .catch((error: unknown) => (found = error));
        expect(found).to.equal(reason);
      },
    ));

  it('ends when the caller gives up', () =>
    fronted(
      () => (request) => {
        request.resume();
      },
      async (client) => {
        const signal = AbortSignal.timeout(30);
        const failure = await failureOf(client.pushBlob('app', of(SMALL), () => [SMALL], { signal }));
        expect(failure.code).to.equal('ABORTED');
      },
    ));
});

describe('mounting a blob', () => {
  it('cancels the upload that a registry begins instead', () => {
    const counts: Record<string, number> = {};
    return fronted(counting(counts), async (client) => {
      expect(await client.mountBlob('app', of(SMALL).digest, 'base')).to.equal(false);
      expect(counts).to.deep.equal({ POST: 1, DELETE: 1 });
    });
  });

  it('is not possible where it is refused', () =>
    fronted(
      () => (_, response) => {
        response.writeHead(405).end();
      },
      async (client) => {
        expect(await client.mountBlob('app', of(SMALL).digest, 'base')).to.equal(false);
      },
    ));
});
