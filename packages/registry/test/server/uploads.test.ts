import { randomBytes } from 'node:crypto';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CacheFullError, digestOf } from '@layercache/oci';
import { expect } from 'chai';
import { MemoryRegistry } from '../../src/memory-registry.js';
import { fileSpools, memorySpools, type OpenSpool } from '../../src/server/upload-spool.js';
import { pushBytes } from '../images.js';
import { bytesOf, errorCode, serving } from './serving.js';

const BYTES = randomBytes(100_000);
const DIGEST = digestOf(BYTES);

async function open(url: string, repository = 'app', query = ''): Promise<URL> {
  const response = await fetch(`${url}/v2/${repository}/blobs/uploads/${query}`, { method: 'POST' });
  expect(response.status).to.equal(202);
  return locationOf(response, url);
}

function locationOf(response: Response, url: string): URL {
  return new URL(response.headers.get('location')!, url);
}

function patch(location: URL, bytes: Uint8Array<ArrayBuffer>, first?: number): Promise<Response> {
  return fetch(location, {
    method: 'PATCH',
    body: bytes,
    headers: first === undefined ? {} : { 'Content-Range': `${first}-${first + bytes.length - 1}` },
  });
}

function close(location: URL, digest: string, body?: Uint8Array<ArrayBuffer>): Promise<Response> {
  const closing = new URL(location);
  closing.searchParams.set('digest', digest);
  return fetch(closing, { method: 'PUT', ...(body === undefined ? {} : { body }) });
}

async function stored(url: string): Promise<Buffer> {
  return bytesOf(await fetch(`${url}/v2/app/blobs/${DIGEST}`));
}

function uploadsOn(openSpool: () => OpenSpool): void {
  it('puts chunks together in order', () =>
    serving(
      async (url) => {
        let location = await open(url);
        for (let first = 0; first < 90_000; first += 30_000) {
          const response = await patch(location, BYTES.subarray(first, first + 30_000), first);
          expect(response.status).to.equal(202);
          expect(response.headers.get('range')).to.equal(`0-${first + 29_999}`);
          location = locationOf(response, url);
        }
        const closed = await close(location, DIGEST, BYTES.subarray(90_000));
        expect(closed.status).to.equal(201);
        expect((await stored(url)).equals(BYTES)).to.equal(true);
      },
      { openSpool: openSpool() },
    ));

  it('takes one chunk of unknown length, as Docker sends it', () =>
    serving(
      async (url) => {
        const location = await open(url);
        const body = ReadableStream.from([BYTES.subarray(0, 40_000), BYTES.subarray(40_000)]);
        const response = await fetch(location, { method: 'PATCH', body, duplex: 'half' });
        expect(response.status).to.equal(202);
        expect((await close(locationOf(response, url), DIGEST)).status).to.equal(201);
        expect((await stored(url)).equals(BYTES)).to.equal(true);
      },
      { openSpool: openSpool() },
    ));

  it('refuses a chunk out of order and says where to go on', () =>
    serving(
      async (url) => {
        const location = await open(url);
        await patch(location, BYTES.subarray(0, 100), 0);
        for (const first of [0, 99, 101, 5000]) {
          const response = await patch(location, BYTES.subarray(first, first + 10), first);
          expect(response.status).to.equal(416);
          expect(response.headers.get('range')).to.equal('0-99');
        }
        const status = await fetch(location);
        expect(status.status).to.equal(204);
        expect(status.headers.get('range')).to.equal('0-99');
        const response = await patch(locationOf(status, url), BYTES.subarray(100), 100);
        expect((await close(locationOf(response, url), DIGEST)).status).to.equal(201);
      },
      { openSpool: openSpool() },
    ));

  it('ends an upload whose bytes do not hash to the digest', () =>
    serving(
      async (url) => {
        const location = await open(url);
        await patch(location, BYTES.subarray(1), 0);
        const closed = await close(location, DIGEST);
        expect(closed.status).to.equal(400);
        expect(await errorCode(closed)).to.equal('DIGEST_INVALID');
        expect((await fetch(location)).status).to.equal(404);
      },
      { openSpool: openSpool() },
    ));

  it('forgets an upload that is cancelled', () =>
    serving(
      async (url) => {
        const location = await open(url);
        await patch(location, BYTES, 0);
        expect((await fetch(location, { method: 'DELETE' })).status).to.equal(204);
        expect((await fetch(location)).status).to.equal(404);
        expect((await patch(location, BYTES, 0)).status).to.equal(404);
      },
      { openSpool: openSpool() },
    ));

  it('keeps what came before the connection broke', () =>
    serving(
      async (url) => {
        const location = await open(url);
        await new Promise<void>((resolve) => {
          const broken = request(location, { method: 'PATCH', headers: { 'Content-Length': BYTES.length } });
          broken.on('error', () => {
            resolve();
          });
          broken.write(BYTES.subarray(0, 50_000), () => {
            setTimeout(() => broken.destroy(), 50);
          });
        });
        const status = await fetch(location);
        expect(status.headers.get('range')).to.equal('0-49999');
        await patch(location, BYTES.subarray(50_000), 50_000);
        expect((await close(location, DIGEST)).status).to.equal(201);
        expect((await stored(url)).equals(BYTES)).to.equal(true);
      },
      { openSpool: openSpool() },
    ));
}

describe('uploads in chunks', () => {
  describe('kept in memory', () => {
    uploadsOn(memorySpools);
  });

  describe('kept in temporary files', () => {
    let directory: string;
    before(async () => {
      directory = await mkdtemp(join(tmpdir(), 'layercache-spools-'));
    });
    after(async () => {
      await rm(directory, { recursive: true });
    });
    uploadsOn(() => fileSpools(directory));

    it('leave no file behind', async () => {
      expect(await readdir(directory)).to.deep.equal([]);
    });
  });

  it('are given up when nobody touches them', () =>
    serving(
      async (url) => {
        const location = await open(url);
        await new Promise((resolve) => setTimeout(resolve, 100));
        expect((await fetch(location)).status).to.equal(404);
      },
      { uploadIdle: 20, openSpool: memorySpools() },
    ));

  it('are limited in number, and the one idle for longest is given up for a new one', () =>
    serving(
      async (url) => {
        const [oldest, used, newest] = [await open(url), await open(url), await open(url)];
        expect((await fetch(oldest)).status).to.equal(204);
        await open(url);
        expect((await fetch(used)).status).to.equal(404);
        expect((await fetch(oldest)).status).to.equal(204);
        expect((await fetch(newest)).status).to.equal(204);
      },
      { uploadLimit: 3 },
    ));

  it('that have bytes are given up after those that have none', () =>
    serving(
      async (url) => {
        const first = await open(url);
        await patch(first, BYTES, 0);
        for (let count = 0; count < 20; count++) await open(url);
        expect((await close(first, DIGEST)).status).to.equal(201);
        const second = await open(url);
        await patch(second, BYTES, 0);
        for (let count = 0; count < 20; count++) await patch(await open(url), BYTES.subarray(0, 1), 0);
        expect((await patch(second, BYTES, 0)).status).to.equal(404);
      },
      { uploadLimitPerClient: 5, openSpool: memorySpools() },
    ));

  it('are refused with 429 only while requests are at work on all there may be', async () => {
    let enter = (): void => undefined;
    let leave = (): void => undefined;
    const entered = new Promise<void>((resolve) => (enter = resolve));
    const left = new Promise<void>((resolve) => (leave = resolve));
    await serving(
      async (url) => {
        const location = await open(url);
        const slow = patch(location, BYTES, 0);
        await entered;
        const refused = await fetch(`${url}/v2/app/blobs/uploads/`, { method: 'POST' });
        expect([refused.status, await errorCode(refused)]).to.deep.equal([429, 'TOOMANYREQUESTS']);
        expect(Number(refused.headers.get('retry-after'))).to.be.above(0);
        leave();
        expect((await slow).status).to.equal(202);
        await open(url);
        expect((await fetch(location)).status).to.equal(404);
      },
      {
        uploadLimit: 1,
        openSpool: async () => {
          const spool = await memorySpools()();
          return {
            size: 1,
            source: spool.source,
            append: async (...all) => {
              enter();
              await left;
              await spool.append(...all);
            },
            discard: () => spool.discard(),
          };
        },
      },
    );
  });

  it('end when their bytes find no room, and say why', () =>
    serving(
      async (url) => {
        const location = await open(url);
        const full = await patch(location, BYTES, 0);
        expect(full.status).to.equal(413);
        expect(await errorCode(full)).to.equal('SIZE_INVALID');
        expect((await fetch(location)).status).to.equal(404);
      },
      {
        openSpool: async () => {
          const spool = await memorySpools()();
          const append = (): Promise<never> =>
            Promise.reject(new CacheFullError('no', { bytes: 3, neverFits: true }));
          return { size: 0, source: spool.source, append, discard: () => spool.discard() };
        },
      },
    ));

  it('belong to the repository they were opened in', () =>
    serving(async (url) => {
      const location = await open(url, 'app');
      const elsewhere = new URL(location.pathname.replace('/app/', '/other/'), url);
      expect((await fetch(elsewhere)).status).to.equal(404);
    }));

  it('refuse a digest that is none, and one of an unknown algorithm', () =>
    serving(async (url) => {
      const location = await open(url);
      for (const digest of ['', 'sha256:../../x', `md5:${'0'.repeat(32)}`]) {
        const response = await close(location, digest, BYTES);
        expect(response.status).to.equal(400);
        expect(await errorCode(response)).to.equal('DIGEST_INVALID');
      }
      const algorithm = await fetch(`${url}/v2/app/blobs/uploads/?digest-algorithm=md5`, { method: 'POST' });
      expect(algorithm.status).to.equal(400);
    }));

  it('take sha512', () =>
    serving(async (url) => {
      const location = await open(url, 'app', '?digest-algorithm=sha512');
      const digest = digestOf(BYTES, 'sha512');
      await patch(location, BYTES, 0);
      expect((await close(location, digest)).status).to.equal(201);
      expect(await bytesOf(await fetch(`${url}/v2/app/blobs/${digest}`))).to.deep.equal(BYTES);
    }));

  it('are of use again when the one PUT of a blob broke', () =>
    serving(async (url) => {
      const location = await open(url);
      const closing = new URL(location);
      closing.searchParams.set('digest', DIGEST);
      await new Promise<void>((resolve) => {
        const broken = request(closing, { method: 'PUT', headers: { 'Content-Length': BYTES.length } });
        broken.on('error', () => {
          resolve();
        });
        broken.write(BYTES.subarray(0, 50_000), () => {
          setTimeout(() => broken.destroy(), 20);
        });
      });
      expect((await close(location, DIGEST, BYTES)).status).to.equal(201);
      expect((await stored(url)).equals(BYTES)).to.equal(true);
    }));
});

describe('mounts', () => {
  it('make a blob of one repository appear in another', () =>
    serving(async (url, registry) => {
      await pushBytes(registry, 'other', BYTES);
      const mounted = await fetch(`${url}/v2/app/blobs/uploads/?mount=${DIGEST}&from=other`, {
        method: 'POST',
      });
      expect(mounted.status).to.equal(201);
      expect(mounted.headers.get('location')).to.equal(`/v2/app/blobs/${DIGEST}`);
      expect((await stored(url)).equals(BYTES)).to.equal(true);
    }));

  it('become an upload where there is nothing to mount', () =>
    serving(async (url) => {
      const location = await open(url, 'app', `?mount=${DIGEST}&from=other`);
      expect((await close(location, DIGEST, BYTES)).status).to.equal(201);
    }));

  it('without a source find what the repository has', () =>
    serving(async (url, registry) => {
      await open(url, 'app', `?mount=${DIGEST}`);
      await pushBytes(registry, 'app', BYTES);
      const again = await fetch(`${url}/v2/app/blobs/uploads/?mount=${DIGEST}`, { method: 'POST' });
      expect(again.status).to.equal(201);
    }));

  it('from a name that is none are refused', () =>
    serving(async (url) => {
      const refused = await fetch(`${url}/v2/app/blobs/uploads/?mount=${DIGEST}&from=../x`, {
        method: 'POST',
      });
      expect(refused.status).to.equal(400);
      expect(await errorCode(refused)).to.equal('NAME_INVALID');
    }));

  it('become an upload where the registry has none', async () => {
    const registry = new MemoryRegistry();
    registry.mountBlob = () => Promise.resolve(false);
    await serving(
      async (url) => {
        await open(url, 'app', `?mount=${DIGEST}&from=other`);
      },
      { registry },
    );
  });
});
