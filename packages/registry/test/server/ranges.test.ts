import { randomBytes } from 'node:crypto';
import { Readable } from 'node:stream';
import { expect } from 'chai';
import fc from 'fast-check';
import { MemoryRegistry } from '../../src/memory-registry.js';
import type { FetchBlobOptions, FetchedBlob } from '../../src/registry.js';
import { parseChunkRange, parseRange } from '../../src/server/byte-range-header.js';
import { pushBytes } from '../images.js';
import { bytesOf, serving } from './serving.js';

const BYTES = randomBytes(300_000);

/** Has no ranges: sends every blob whole. */
class WholeBlobs extends MemoryRegistry {
  override fetchBlob(
    repository: string,
    digest: `sha256:${string}`,
    options: FetchBlobOptions = {},
  ): Promise<FetchedBlob> {
    return super.fetchBlob(repository, digest, { signal: options.signal });
  }
}

describe('ranges of a blob', () => {
  for (const [what, registry] of [
    ['a registry that has them', new MemoryRegistry()],
    ['a registry that sends every blob whole', new WholeBlobs()],
  ] as const) {
    it(`are the same bytes as the slice, from ${what}`, () =>
      serving(
        async (url) => {
          const { digest } = await pushBytes(registry, 'app', BYTES);
          const ranges = [
            ['bytes=0-0', 0, 1],
            ['bytes=5-', 5, BYTES.length],
            ['bytes=-7', BYTES.length - 7, BYTES.length],
            ['bytes=100000-199999', 100_000, 200_000],
            ['bytes=299990-999999999', 299_990, BYTES.length],
          ] as const;
          for (const [range, start, end] of ranges) {
            const response = await fetch(`${url}/v2/app/blobs/${digest}`, { headers: { Range: range } });
            expect(response.status, range).to.equal(206);
            expect(response.headers.get('content-range')).to.equal(
              `bytes ${start}-${end - 1}/${BYTES.length}`,
            );
            expect(response.headers.get('content-length')).to.equal(String(end - start));
            expect((await bytesOf(response)).equals(BYTES.subarray(start, end)), range).to.equal(true);
          }
        },
        { registry },
      ));
  }

  it('beyond the end are not satisfiable', () =>
    serving(async (url, registry) => {
      const { digest } = await pushBytes(registry, 'app', BYTES);
      const response = await fetch(`${url}/v2/app/blobs/${digest}`, {
        headers: { Range: `bytes=${BYTES.length}-` },
      });
      expect(response.status).to.equal(416);
      expect(response.headers.get('content-range')).to.equal(`bytes */${BYTES.length}`);
    }));

  it('that the server does not understand are answered with the whole blob', () =>
    serving(async (url, registry) => {
      const { digest } = await pushBytes(registry, 'app', BYTES);
      for (const headers of [
        { Range: 'bytes=0-1,5-6' },
        { Range: 'lines=1-2' },
        { Range: 'bytes=9-3' },
        { Range: 'bytes=0-1', 'If-Range': '"something"' },
      ]) {
        const response = await fetch(`${url}/v2/app/blobs/${digest}`, { headers });
        expect(response.status).to.equal(200);
        expect((await bytesOf(response)).length).to.equal(BYTES.length);
      }
    }));

  it('of a blob that is missing are 404', () =>
    serving(async (url) => {
      const response = await fetch(`${url}/v2/app/blobs/sha256:${'0'.repeat(64)}`, {
        headers: { Range: 'bytes=0-1' },
      });
      expect(response.status).to.equal(404);
    }));
});

describe('parseRange', () => {
  it('never leaves the blob', () => {
    fc.assert(
      fc.property(fc.nat(50), fc.option(fc.nat(60)), fc.option(fc.nat(60)), (size, from, to) => {
        const range = parseRange(`bytes=${from ?? ''}-${to ?? ''}`, size);
        if (range === undefined || range === 'unsatisfiable') return;
        expect(range.first).to.be.within(0, range.last);
        expect(range.last).to.be.below(size);
      }),
    );
  });
});

describe('parseChunkRange', () => {
  it('reads the specification’s own form and nothing else', () => {
    expect(parseChunkRange('0-9')).to.deep.equal({ first: 0, last: 9 });
    for (const text of ['', '5', 'bytes 0-9/10', '-9', '0-', '0-9/*', 'a-b']) {
      expect(parseChunkRange(text), text).to.equal(undefined);
    }
  });
});

describe('a blob that is not as long as the registry says', () => {
  for (const [what, given] of [
    ['shorter', 10],
    ['longer', 30],
  ] as const) {
    it(`breaks the connection when it is ${what}`, async () => {
      const registry = new MemoryRegistry();
      const { digest } = await pushBytes(registry, 'app', Buffer.alloc(20));
      registry.fetchBlob = () =>
        Promise.resolve({
          size: 20,
          offset: 0,
          body: Readable.from([Buffer.alloc(given)], { objectMode: false }),
        });
      await serving(
        async (url) => {
          let failure: unknown;
          try {
            const got = await bytesOf(await fetch(`${url}/v2/app/blobs/${digest}`));
            expect.fail(`${got.length} bytes passed as whole`);
          } catch (error) {
            failure = error;
          }
          expect(failure).to.be.instanceOf(TypeError);
        },
        { registry },
      );
    });
  }
});
