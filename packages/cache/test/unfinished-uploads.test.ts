import { randomBytes } from 'node:crypto';
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { MediaType, digestOf } from '@layercache/oci';
import { createRegistryServer, type RegistryServer, type RegistryServerOptions } from '@layercache/registry';
import { expect } from 'chai';
import fc from 'fast-check';
import type { LayerCache } from '../src/index.js';
import { Scratch, bytesOf } from './test-cache.js';

const MB = 1_000_000;

function bytesBelow(dir: string): number {
  let sum = 0;
  for (const entry of readdirSync(dir, { recursive: true, withFileTypes: true })) {
    if (entry.isFile()) sum += statSync(join(entry.parentPath, entry.name)).size;
  }
  return sum;
}

describe('uploads that a server of a cache has not finished', function () {
  this.timeout(60_000);
  const scratch = new Scratch();
  const servers: RegistryServer[] = [];
  afterEach(async () => {
    for (const server of servers.splice(0)) await server.close();
    await scratch.clean();
  });

  async function serve(
    maxSize: number | undefined,
    options: RegistryServerOptions = {},
  ): Promise<{ cache: LayerCache; url: string; ingest: () => string[] }> {
    const cache = await scratch.cache(maxSize === undefined ? {} : { limits: { maxSize } });
    const server = createRegistryServer(cache.registry(), options);
    servers.push(server);
    await server.listen({ host: '127.0.0.1', port: 0 });
    const ingest = join(cache.dir, '.layercache', 'ingest');
    return { cache, url: server.url, ingest: () => readdirSync(ingest) };
  }

  async function begin(url: string): Promise<URL> {
    const begun = await fetch(`${url}/v2/app/blobs/uploads/`, { method: 'POST' });
    expect(begun.status).to.equal(202);
    return new URL(begun.headers.get('location')!, url);
  }

  const patch = (location: URL, body: Uint8Array<ArrayBuffer>): Promise<Response> =>
    fetch(location, { method: 'PATCH', body });

  function finish(location: URL, bytes: Uint8Array, rest?: Uint8Array<ArrayBuffer>): Promise<Response> {
    const closing = new URL(location);
    closing.searchParams.set('digest', digestOf(bytes));
    return fetch(closing, { method: 'PUT', ...(rest === undefined ? {} : { body: rest }) });
  }

  const reason = async (response: Response): Promise<string> => {
    const { errors } = (await response.json()) as { errors: { code: string; message: string }[] };
    return errors[0]?.message ?? '';
  };

  it('are files of the cache, and become blobs without a copy', async () => {
    const { cache, url, ingest } = await serve(undefined);
    const bytes = randomBytes(200_000);
    const location = await begin(url);
    await patch(location, bytes.subarray(0, 150_000));
    expect(ingest()).to.have.length(1);
    expect((await finish(location, bytes, bytes.subarray(150_000))).status).to.equal(201);
    expect(ingest()).to.deep.equal([]);
    expect((await bytesOf(cache.blob(digestOf(bytes)))).equals(bytes)).to.equal(true);
  });

  it('are refused while they arrive when they go past the limit, with the reason', async () => {
    const { cache, url, ingest } = await serve(MB);
    const body = Buffer.alloc(20 * MB);
    const known = await patch(await begin(url), body);
    expect([known.status, await reason(known)]).to.satisfy(
      ([status, message]: [number, string]) => status === 413 && message.includes('limit'),
    );
    const location = await begin(url);
    const unknown = await fetch(location, {
      method: 'PATCH',
      body: ReadableStream.from([body.subarray(0, 5 * MB), body.subarray(5 * MB)]),
      duplex: 'half',
    });
    expect(unknown.status).to.be.oneOf([413, 507]);
    expect(await reason(unknown)).to.match(/limit|full/);
    expect((await fetch(location)).status).to.equal(404);
    expect(ingest()).to.deep.equal([]);
    expect(bytesBelow(cache.dir)).to.be.below(MB);
  });

  it('may be as large as the limit allows for one blob, in chunks as in one piece', async () => {
    const { url } = await serve(2 * MB);
    const bytes = randomBytes(1.4 * MB);
    const location = await begin(url);
    for (let at = 0; at < bytes.length; at += 400_000) {
      expect((await patch(location, bytes.subarray(at, at + 400_000))).status).to.equal(202);
    }
    expect((await finish(location, bytes)).status).to.equal(201);
  });

  it('make room for others when they are idle and there is no other room', async () => {
    const { cache, url } = await serve(MB);
    const abandoned = await begin(url);
    expect((await patch(abandoned, randomBytes(500_000))).status).to.equal(202);
    const bytes = randomBytes(500_000);
    const location = await begin(url);
    expect((await patch(location, bytes)).status).to.equal(202);
    expect((await finish(location, bytes)).status).to.equal(201);
    const lost = await patch(abandoned, randomBytes(10));
    expect(lost.status).to.equal(404);
    const { errors } = (await lost.json()) as { errors: { code: string }[] };
    expect(errors[0]?.code).to.equal('BLOB_UPLOAD_UNKNOWN');
    expect(bytesBelow(cache.dir)).to.be.below(MB);
  });

  it('are removed when they expire, and when the server ends', async () => {
    const { url, ingest } = await serve(MB, { uploadIdle: 50 });
    await patch(await begin(url), randomBytes(1000));
    expect(ingest().length).to.be.at.most(1);
    for (let tries = 0; tries < 100 && ingest().length > 0; tries++) {
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    expect(ingest()).to.deep.equal([]);
    const patient = await serve(MB);
    await patch(await begin(patient.url), randomBytes(1000));
    expect(patient.ingest()).to.have.length(1);
    await servers.pop()?.close();
    expect(patient.ingest()).to.deep.equal([]);
  });

  it('leave no client without an answer when the cache is full', async () => {
    const { cache, url } = await serve(MB);
    const never = await fetch(`${url}/v2/app/blobs/uploads/?digest=${digestOf('x')}`, {
      method: 'POST',
      body: randomBytes(3 * MB),
    });
    expect(never.status).to.equal(413);
    const manifest = await fetch(`${url}/v2/app/manifests/v1`, {
      method: 'PUT',
      headers: { 'Content-Type': MediaType.manifest },
      body: Buffer.alloc(3 * MB, ' '),
    });
    expect(manifest.status).to.be.oneOf([400, 413]);
    for (let count = 0; count < 10; count++) {
      const bytes = randomBytes(200_000);
      const pushed = await fetch(`${url}/v2/app/blobs/uploads/?digest=${digestOf(bytes)}`, {
        method: 'POST',
        body: bytes,
      });
      expect(pushed.status).to.be.oneOf([201, 507]);
      if (pushed.status === 507) {
        const said = await reason(pushed);
        expect(said).to.include('full').and.not.to.include(cache.dir);
      }
    }
  });

  it('stay within the limit whatever clients do, and leave nothing behind', async () => {
    const step = fc.record({
      what: fc.constantFrom('begin', 'patch', 'stream', 'break', 'finish', 'cancel', 'whole'),
      upload: fc.nat(3),
      size: fc.constantFrom(0, 1, 70_000, 300_000, 600_000, 1_500_000),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 4, maxLength: 12 }), async (steps) => {
        const { cache, url, ingest } = await serve(MB, { uploadLimit: 4 });
        const uploads: { location: URL; bytes: Buffer }[] = [];
        for (const { what, upload, size } of steps) {
          const body = randomBytes(size);
          const at = uploads[upload];
          let status = 0;
          if (what === 'begin' || at === undefined)
            uploads[upload] = { location: await begin(url), bytes: body };
          else if (what === 'patch') ({ status } = await patch(at.location, body));
          else if (what === 'stream') {
            const pieces = ReadableStream.from([body.subarray(0, size / 2), body.subarray(size / 2)]);
            ({ status } = await fetch(at.location, { method: 'PATCH', body: pieces, duplex: 'half' }));
          } else if (what === 'break') {
            await fetch(at.location, {
              method: 'PATCH',
              body: body.subarray(0, 100_000),
              signal: AbortSignal.timeout(1),
            }).catch(() => undefined);
          } else if (what === 'cancel') ({ status } = await fetch(at.location, { method: 'DELETE' }));
          else if (what === 'finish') ({ status } = await finish(at.location, at.bytes));
          else ({ status } = await finish(await begin(url), body, body));
          expect(status < 500 || status === 507, `${what}: ${status}`).to.equal(true);
          expect(bytesBelow(cache.dir)).to.be.at.most(MB);
        }
        await servers.pop()?.close();
        expect(ingest()).to.deep.equal([]);
        expect(bytesBelow(cache.dir)).to.be.at.most(MB);
        await cache.close();
      }),
      { numRuns: 5 },
    );
  });
});
