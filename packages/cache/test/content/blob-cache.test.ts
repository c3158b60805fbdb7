import { randomBytes } from 'node:crypto';
import { Readable } from 'node:stream';
import { expect } from 'chai';
import { digestOf } from '@layercache/oci';
import { layerOf, tarOf } from '../image-builder.js';
import { Scratch, bytesOf, failure } from '../test-cache.js';

describe('the blobs of a cache', () => {
  const scratch = new Scratch();
  afterEach(() => scratch.clean());
  const bytes = randomBytes(300_000);
  const digest = digestOf(bytes);

  it('go in as a stream and come out as one, whole or in part', async () => {
    const cache = await scratch.cache();
    const chunks = Array.from({ length: 30 }, (_, part) =>
      bytes.subarray(part * 10_000, (part + 1) * 10_000),
    );
    const put = await cache.blobs.put(Readable.from(chunks), { digest, size: bytes.length });
    expect(put).to.deep.equal({ mediaType: 'application/octet-stream', digest, size: bytes.length });
    expect(await bytesOf(cache.blobs.get(digest))).to.deep.equal(bytes);
    expect(await bytesOf(cache.blobs.get(digest, { start: 10, end: 20 }))).to.deep.equal(
      bytes.subarray(10, 20),
    );
    expect((await cache.blobs.put(bytes)).digest).to.equal(digest);
    await failure('NOT_FOUND', () => cache.blobs.get(digestOf('nothing')));
  });

  it('are had in one size', async () => {
    const cache = await scratch.cache();
    expect(await cache.blobs.has(digest)).to.equal(false);
    expect(await cache.blobs.size(digest)).to.equal(undefined);
    await cache.blobs.put(bytes);
    expect(await cache.blobs.has(digest)).to.equal(true);
    expect(await cache.blobs.has(digest, bytes.length)).to.equal(true);
    expect(await cache.blobs.has(digest, bytes.length - 1)).to.equal(false);
    expect(await cache.blobs.size(digest)).to.equal(bytes.length);
  });

  it('are what they are said to be, or are not taken', async () => {
    const cache = await scratch.cache();
    await failure('DIGEST_MISMATCH', () => cache.blobs.put(bytes, { digest: digestOf('other') }));
    await failure('DIGEST_MISMATCH', () => cache.blobs.put(bytes, { digest, size: 1 }));
    await failure('DIGEST_INVALID', () => cache.blobs.put(bytes, { digest: 'sha256:../../x' }));
    const broken = Readable.from(
      (function* (): Generator<Buffer> {
        yield bytes.subarray(0, 1000);
        throw new Error('the source broke');
      })(),
    );
    const error: unknown = await cache.blobs.put(broken, { digest }).catch((reason: unknown) => reason);
    expect(error).to.have.property('message', 'the source broke');
    expect(await cache.blobs.has(digest)).to.equal(false);
    expect([...cache.entries((entry) => entry.descriptor.digest === digest)]).to.deep.equal([]);
  });

  it('are deleted once, and again without harm', async () => {
    const cache = await scratch.cache();
    await cache.blobs.put(bytes);
    expect(await cache.blobs.delete(digest)).to.equal(true);
    expect(await cache.blobs.delete(digest)).to.equal(false);
    expect(await cache.blobs.has(digest)).to.equal(false);
    expect(cache.has(digest)).to.equal(false);
    await failure('NOT_FOUND', () => cache.blobs.get(digest));
  });

  it('survive in another handle, and are layers when that is what they are', async () => {
    const layer = layerOf(tarOf({ data: 'some data' }));
    const cache = await scratch.cache();
    await cache.blobs.put(layer.bytes, { mediaType: layer.descriptor.mediaType });
    const other = await scratch.cache({ dir: cache.dir });
    expect(await bytesOf(other.layer(layer.descriptor.digest).uncompressed())).to.deep.equal(layer.tar);
  });
});
