import { randomBytes } from 'node:crypto';
import { MediaType, digestOf, isLayercacheError } from '@layercache/oci';
import { expect } from 'chai';
import type { Credentials } from '../../src/client/credentials.js';
import { RegistryClient } from '../../src/client/registry-client.js';
import { MemoryRegistry } from '../../src/memory-registry.js';
import {
  chunkMinimum,
  createdForChunks,
  droppingConnections,
  rateLimited,
  requestLimit,
  slow,
  strictIndexes,
  tokenAuth,
  withoutRanges,
  withoutReferrers,
} from '../../src/quirks/index.js';
import { imageIndex, pushBytes, pushImage } from '../images.js';
import { bytesOf, errorCode, serving } from '../server/serving.js';

describe('a registry with a quirk', () => {
  it('without referrers does not know the endpoint, nor a subject', () =>
    serving(
      async (url, registry) => {
        const subject = await pushImage(registry, 'app', 'subject');
        expect((await fetch(`${url}/v2/app/referrers/${subject.digest}`)).status).to.equal(404);
        const pushed = await fetch(`${url}/v2/app/manifests/1`, {
          method: 'PUT',
          headers: { 'Content-Type': MediaType.index },
          body: imageIndex([], { subject }),
        });
        expect(pushed.status).to.equal(201);
        expect(pushed.headers.get('oci-subject')).to.equal(null);
      },
      { wrap: withoutReferrers },
    ));

  it('without ranges sends the whole blob', () =>
    serving(
      async (url, registry) => {
        const { digest } = await pushBytes(registry, 'app', Buffer.from('0123456789'));
        const response = await fetch(`${url}/v2/app/blobs/${digest}`, { headers: { Range: 'bytes=2-3' } });
        expect(response.status).to.equal(200);
        expect(response.headers.get('accept-ranges')).to.equal(null);
        expect(await response.text()).to.equal('0123456789');
      },
      { wrap: withoutRanges },
    ));

  it('that answers 201 to a chunk does so', () =>
    serving(
      async (url) => {
        const opened = await fetch(`${url}/v2/app/blobs/uploads/`, { method: 'POST' });
        expect(opened.status).to.equal(202);
        const location = new URL(opened.headers.get('location')!, url);
        expect((await fetch(location, { method: 'PATCH', body: 'x' })).status).to.equal(201);
      },
      { wrap: createdForChunks },
    ));

  it('that limits requests takes the limit and not a byte more', () =>
    serving(
      async (url) => {
        for (const [size, status] of [
          [100, 201],
          [101, 413],
        ] as const) {
          const body = randomBytes(size);
          const where = `${url}/v2/app/blobs/uploads/?digest=${digestOf(body)}`;
          expect((await fetch(where, { method: 'POST', body })).status).to.equal(status);
        }
      },
      { wrap: requestLimit(100) },
    ));

  it('that wants long chunks refuses one after a short one', () =>
    serving(
      async (url) => {
        const opened = await fetch(`${url}/v2/app/blobs/uploads/`, { method: 'POST' });
        expect(opened.headers.get('oci-chunk-min-length')).to.equal('10');
        const location = new URL(opened.headers.get('location')!, url);
        for (const [body, status] of [
          ['0123456789', 202],
          ['short', 202],
          ['another', 416],
        ] as const) {
          expect((await fetch(location, { method: 'PATCH', body })).status).to.equal(status);
        }
      },
      { wrap: chunkMinimum(10) },
    ));

  it('that limits the rate says how long to wait', async () => {
    const date = new Date('2030-01-01T00:00:00Z');
    for (const [retryAfter, header] of [
      [7, '7'],
      [date, 'Tue, 01 Jan 2030 00:00:00 GMT'],
    ] as const) {
      await serving(
        async (url) => {
          const refused = await fetch(`${url}/v2/app/tags/list`);
          expect(refused.status).to.equal(429);
          expect(refused.headers.get('retry-after')).to.equal(header);
          expect(await errorCode(refused)).to.equal('TOOMANYREQUESTS');
          expect((await fetch(`${url}/v2/app/tags/list`)).status).to.equal(404);
        },
        { wrap: rateLimited({ times: 1, retryAfter }) },
      );
    }
  });

  it('with strict indexes refuses one that lists layers', async () => {
    const registry = strictIndexes(new MemoryRegistry());
    const layer = await pushBytes(registry, 'app', Buffer.from('layer'));
    const image = await pushImage(registry, 'app', 'image');
    let caught: unknown;
    try {
      await registry.pushManifest('app', MediaType.index, imageIndex([layer]));
    } catch (error) {
      caught = error;
    }
    expect(isLayercacheError(caught, 'REGISTRY'), String(caught)).to.equal(true);
    expect(String(caught)).to.include('no manifest');
    await registry.pushManifest('app', MediaType.index, imageIndex([image]), { tag: 'fine' });
    expect((await registry.resolve('app', 'fine')).mediaType).to.equal(MediaType.index);
  });

  it('with tokens lets nobody push without an account, and nobody in with a wrong password', async () => {
    const account = { username: 'someone', password: 'a secret' };
    const wrong: Credentials = { kind: 'password', username: 'someone', password: 'wrong' };
    for (const credentials of [undefined, wrong]) {
      await serving(
        async (url) => {
          const client = new RegistryClient(new URL(url).host, {
            credentials: { get: () => Promise.resolve(credentials) },
          });
          let caught: unknown;
          try {
            await pushBytes(client, 'app', Buffer.from('x'));
          } catch (error) {
            caught = error;
          }
          expect(isLayercacheError(caught, 'UNAUTHORIZED'), String(caught)).to.equal(true);
        },
        { wrap: tokenAuth({ account }) },
      );
    }
  });

  it('that drops connections sends the first bytes, and everything once it is done with that', () =>
    serving(
      async (url, registry) => {
        const bytes = randomBytes(300_000);
        const { digest } = await pushBytes(registry, 'app', bytes);
        const chunks: Uint8Array[] = [];
        let broke = false;
        try {
          const response = await fetch(`${url}/v2/app/blobs/${digest}`);
          for await (const chunk of response.body!) chunks.push(chunk as Uint8Array);
        } catch {
          broke = true;
        }
        expect(broke).to.equal(true);
        expect(Buffer.concat(chunks).equals(bytes.subarray(0, 100_000))).to.equal(true);
        expect((await bytesOf(await fetch(`${url}/v2/app/blobs/${digest}`))).equals(bytes)).to.equal(true);
      },
      { wrap: droppingConnections({ times: 1, after: 100_000 }) },
    ));

  it('that is slow sends everything in the end', () =>
    serving(
      async (url, registry) => {
        const bytes = randomBytes(300_000);
        const { digest } = await pushBytes(registry, 'app', bytes);
        const start = performance.now();
        expect((await bytesOf(await fetch(`${url}/v2/app/blobs/${digest}`))).equals(bytes)).to.equal(true);
        expect(performance.now() - start).to.be.above(50);
      },
      { wrap: slow(30) },
    ));
});
