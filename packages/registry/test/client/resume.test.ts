import { randomBytes } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { digestOf } from '@layercache/oci';
import { expect } from 'chai';
import { RegistryClient } from '../../src/client/registry-client.js';
import { bytesOf, failureOf, impatient, scripted } from './scripted.js';

const BYTES = randomBytes(500_000);
const DIGEST = digestOf(BYTES);

/** Sends `bytes` from where the request asks, and breaks the connection after `length` of them. */
function sendPart(
  request: IncomingMessage,
  response: ServerResponse,
  length: number,
  { ranges = true, total = BYTES.length }: { readonly ranges?: boolean; readonly total?: number } = {},
): void {
  const match = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '');
  const ranged = match !== null && ranges;
  const first = ranged ? Number(match[1]) : 0;
  const last = ranged && match[2] !== '' ? Number(match[2]) : BYTES.length - 1;
  response.writeHead(ranged ? 206 : 200, {
    'content-length': last + 1 - first,
    ...(ranged ? { 'content-range': `bytes ${first}-${last}/${total}` } : {}),
  });
  const part = BYTES.subarray(first, Math.min(first + length, last + 1));
  if (first + part.length > last) response.end(part);
  else response.write(part, () => setTimeout(() => response.destroy(), 5));
}

describe('a download whose connection breaks', () => {
  it('goes on from the byte where it stopped', () =>
    scripted(
      (request, response) => {
        sendPart(request, response, 120_000);
      },
      async (host, seen) => {
        const client = new RegistryClient(host, impatient);
        const { body, size } = await client.fetchBlob('app', DIGEST);
        expect(size).to.equal(BYTES.length);
        expect((await bytesOf(body)).equals(BYTES)).to.equal(true);
        expect(seen.length).to.be.greaterThan(4);
        expect(client.traffic.bytesReceived).to.equal(BYTES.length);
      },
    ));

  it('goes on within the range that was asked for', () =>
    scripted(
      (request, response) => {
        sendPart(request, response, 50_000);
      },
      async (host) => {
        const range = { first: 100_000, last: 299_999 };
        const blob = await new RegistryClient(host, impatient).fetchBlob('app', DIGEST, { range });
        expect(blob.offset).to.equal(100_000);
        expect((await bytesOf(blob.body)).equals(BYTES.subarray(100_000, 300_000))).to.equal(true);
      },
    ));

  it('skips what it has when the registry knows no ranges', () => {
    let length = 120_000;
    return scripted(
      (request, response) => {
        sendPart(request, response, length, { ranges: false });
        length += 150_000;
      },
      async (host) => {
        const { body } = await new RegistryClient(host, impatient).fetchBlob('app', DIGEST);
        expect((await bytesOf(body)).equals(BYTES)).to.equal(true);
      },
    );
  });

  it('is given up when the registry never gets further', () =>
    scripted(
      (request, response) => {
        sendPart(request, response, 120_000, { ranges: false });
      },
      async (host, seen) => {
        const { body } = await new RegistryClient(host, impatient).fetchBlob('app', DIGEST);
        expect((await failureOf(bytesOf(body))).code).to.equal('NETWORK');
        expect(seen).to.have.length(3);
      },
    ));

  it('fails when the blob has another size afterwards', () => {
    let total = BYTES.length;
    return scripted(
      (request, response) => {
        sendPart(request, response, 120_000, { total });
        total += 1;
      },
      async (host) => {
        const range = { first: 1 };
        const { body } = await new RegistryClient(host, impatient).fetchBlob('app', DIGEST, { range });
        const failure = await failureOf(bytesOf(body));
        expect(failure.code).to.equal('REGISTRY');
        expect(failure.message).to.include('and now has 500001');
      },
    );
  });

  it('fails when another range comes than was asked for', () =>
    scripted(
      (_, response) => response.writeHead(206, { 'content-range': 'bytes 0-9/500000' }).end('0123456789'),
      async (host) => {
        const range = { first: 10, last: 19 };
        const failure = await failureOf(
          new RegistryClient(host, impatient).fetchBlob('app', DIGEST, { range }),
        );
        expect(failure.message).to.include('asked for bytes from 10').and.to.include('bytes 0-9/500000');
      },
    ));
});

describe('a registry that does not send the rest of a blob', () => {
  const refusals: Readonly<Record<string, (response: ServerResponse) => void>> = {
    'refuses the range': (response) => response.writeHead(416, { 'content-range': 'bytes */500000' }).end(),
    'sends another range': (response) =>
      response.writeHead(206, { 'content-range': 'bytes 0-9/500000' }).end('0123456789'),
    'names no range': (response) => response.writeHead(206).end('0123456789'),
  };
  for (const [what, refuse] of Object.entries(refusals)) {
    it(`and ${what} is asked for the whole, once, by a caller who wants all of the rest`, () =>
      scripted(
        (request, response) => {
          if (request.headers.range === undefined) sendPart(request, response, Infinity);
          else refuse(response);
        },
        async (host, seen) => {
          const client = new RegistryClient(host, impatient);
          const blob = await client.fetchBlob('app', DIGEST, { range: { first: 400_000 } });
          expect([blob.offset, blob.size]).to.deep.equal([0, BYTES.length]);
          expect((await bytesOf(blob.body)).equals(BYTES)).to.equal(true);
          expect(seen).to.have.length(2);
          await failureOf(client.fetchBlob('app', DIGEST, { range: { first: 400_000, last: 400_009 } }));
          expect(seen, 'a part is no use to a caller who gets the whole').to.have.length(3);
        },
      ));
  }
});

describe('a registry without ranges', () => {
  it('sends the whole blob, and that is said', () =>
    scripted(
      (request, response) => {
        sendPart(request, response, Infinity, { ranges: false });
      },
      async (host) => {
        const range = { first: 400_000, last: 400_009 };
        const blob = await new RegistryClient(host, impatient).fetchBlob('app', DIGEST, { range });
        expect([blob.offset, blob.size]).to.deep.equal([0, BYTES.length]);
        expect((await bytesOf(blob.body)).equals(BYTES)).to.equal(true);
      },
    ));
});

describe('a caller who gives up', () => {
  it('before the answer gets ABORTED', () =>
    scripted(
      () => undefined,
      async (host) => {
        const signal = AbortSignal.timeout(20);
        const failure = await failureOf(
          new RegistryClient(host, impatient).fetchBlob('app', DIGEST, { signal }),
        );
        expect(failure.code).to.equal('ABORTED');
      },
    ));

  it('in the middle of a blob gets ABORTED', () =>
    scripted(
      (_, response) => {
        response.writeHead(200, { 'content-length': BYTES.length });
        response.write(BYTES.subarray(0, 100));
      },
      async (host) => {
        const signal = AbortSignal.timeout(30);
        const { body } = await new RegistryClient(host, impatient).fetchBlob('app', DIGEST, { signal });
        expect((await failureOf(bytesOf(body))).code).to.equal('ABORTED');
      },
    ));

  it('without reading the body frees the connection', () => {
    let closed: () => void = () => undefined;
    const free = new Promise<void>((resolve) => (closed = resolve));
    return scripted(
      (_, response) => {
        response.once('close', closed);
        response.writeHead(200, { 'content-length': BYTES.length });
        response.write(BYTES.subarray(0, 100));
      },
      async (host) => {
        const { body } = await new RegistryClient(host, impatient).fetchBlob('app', DIGEST);
        body.destroy();
        await free;
      },
    );
  });

  it('during a pause between two tries gets ABORTED', () =>
    scripted(
      (_, response) => response.writeHead(503).end(),
      async (host) => {
        const client = new RegistryClient(host, { ...impatient, retry: { delay: 60_000 } });
        const failure = await failureOf(client.resolve('app', 'v1', { signal: AbortSignal.timeout(30) }));
        expect(failure.code).to.equal('ABORTED');
      },
    ));
});

describe('the time in which nothing moves', () => {
  it('does not run while the reader takes its own', () =>
    scripted(
      (request, response) => {
        sendPart(request, response, Infinity);
      },
      async (host, seen) => {
        const client = new RegistryClient(host, { ...impatient, timeout: 50 });
        const { body } = await client.fetchBlob('app', DIGEST);
        const chunks: Uint8Array[] = [];
        for await (const chunk of body as AsyncIterable<Uint8Array>) {
          if (chunks.length === 0) await new Promise((resolve) => setTimeout(resolve, 200));
          chunks.push(chunk);
        }
        expect(Buffer.concat(chunks).equals(BYTES)).to.equal(true);
        expect(seen).to.have.length(1);
      },
    ));

  it('does not run while the source takes its own', () =>
    scripted(
      (request, response) => {
        request.resume();
        request.once('end', () => {
          response.writeHead(request.method === 'POST' ? 202 : 201, { location: '/v2/app/upload' }).end();
        });
      },
      async (host, seen) => {
        const client = new RegistryClient(host, { ...impatient, timeout: 50 });
        await client.pushBlob('app', { digest: DIGEST, size: BYTES.length }, async function* () {
          yield BYTES.subarray(0, 1000);
          await new Promise((resolve) => setTimeout(resolve, 200));
          yield BYTES.subarray(1000);
        });
        expect(seen.map(({ line }) => line.split(' ')[0])).to.deep.equal(['POST', 'PUT']);
      },
    ));
});
