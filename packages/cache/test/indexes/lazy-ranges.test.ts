import { Readable } from 'node:stream';
import { gzipSync } from 'node:zlib';
import { expect } from 'chai';
import fc from 'fast-check';
import type { FetchBlobOptions } from '@layercache/registry';
import { withoutRanges } from '@layercache/registry/quirks';
import { MediaType, type Digest } from '@layercache/oci';
import type { LayerCache, StoredLayerIndex } from '../../src/index.js';
import { imageOf, layerOf, packedLayer, pushImage, tarOf, type BuiltLayer } from '../image-builder.js';
import { Scratch, bytesOf, failure } from '../test-cache.js';
import { CountingRegistry } from './counting-registry.js';
import { textBytes } from './text-bytes.js';

const SPAN = 128 * 1024;
/** Bytes of the head of an answer, generously. */
const HEAD = 2048;

/** Compressed bytes of the largest span. */
function largestSpan({ ztoc }: StoredLayerIndex): number {
  const ends = [...ztoc.checkpoints.slice(1).map(({ input }) => input), ztoc.compressedSize];
  return Math.max(...ztoc.checkpoints.map(({ input }, at) => (ends[at] ?? 0) - input + 1));
}

describe('a lazily pulled cache with indexes', () => {
  const scratch = new Scratch();
  const registries: CountingRegistry[] = [];
  afterEach(async () => {
    await scratch.clean();
    for (const registry of registries.splice(0)) await registry.stop();
  });

  const small = Buffer.from('a small file');
  const tar = tarOf({
    'data/first': textBytes(700_000),
    'etc/small': small,
    'data/last': textBytes(700_000, 2),
  });
  const gzip = packedLayer(tar, gzipSync(tar, { level: 1 }));

  async function registry(
    ...wrap: ConstructorParameters<typeof CountingRegistry>
  ): Promise<CountingRegistry> {
    const made = new CountingRegistry(...wrap);
    await made.start();
    registries.push(made);
    return made;
  }

  async function lazyCache(at: CountingRegistry, layers: readonly BuiltLayer[]): Promise<LayerCache> {
    await pushImage(at.memory, 'app', '1', imageOf(layers));
    const first = await scratch.cache({ registry: () => at.memory });
    await first.add('registry.test/app:1');
    await first.index('registry.test/app:1', { spanSize: SPAN });
    await first.push('registry.test/team/cache:main');
    const cache = await scratch.cache({ registry: () => at.client });
    await cache.pull('registry.test/team/cache:main', { lazy: true });
    at.answers.splice(0);
    return cache;
  }

  it('has the view of an image without a byte of its layers', async () => {
    const at = await registry();
    const layers = Array.from({ length: 10 }, (_, n) =>
      layerOf(tarOf({ [`file-${n}`]: textBytes(5000, n + 1) })),
    );
    const cache = await lazyCache(at, layers);
    const view = await cache.view('registry.test/app:1');
    expect([...view.merged.nodes()]).to.have.lengthOf(11);
    for (const { descriptor } of layers)
      expect(at.answers.filter(({ digest }) => digest === descriptor.digest)).to.deep.equal([]);
    expect(at.answers).to.have.lengthOf(11);
    at.answers.splice(0);
    const warm = await cache.index('registry.test/app:1');
    expect(warm).to.include({ hits: 10, bytesRead: 0 });
    await cache.view('registry.test/app:1');
    expect(at.answers).to.deep.equal([]);
  });

  it('fetches the spans that a small file is in, two at most, and nothing else of the layer', async () => {
    const at = await registry();
    const cache = await lazyCache(at, [gzip]);
    const view = await cache.view('registry.test/app:1');
    const [index] = view.layers as [StoredLayerIndex];
    expect(index.ztoc.checkpoints.length).to.be.greaterThan(8);
    expect(await bytesOf(view.open('etc/small'))).to.deep.equal(small);
    const { requests, bytes } = at.sent(gzip.descriptor.digest);
    expect(requests).to.be.within(1, 2);
    expect(bytes).to.be.lessThan(requests * (largestSpan(index) + HEAD));
    expect(bytes).to.be.lessThan(gzip.bytes.length / 3);
    expect(await cache.blobState(gzip.descriptor)).to.equal('remote');
  });

  it('reads any range of the tar by the spans it is in', async () => {
    const at = await registry();
    const cache = await lazyCache(at, [gzip]);
    await fc.assert(
      fc.asyncProperty(fc.nat(tar.length), fc.nat(300_000), async (start, size) => {
        const end = Math.min(tar.length, start + size);
        const read = await bytesOf(cache.readRange(gzip.diffID, start, end));
        expect(read.equals(tar.subarray(start, end))).to.equal(true);
      }),
      { numRuns: 30 },
    );
    expect(await cache.blobState(gzip.descriptor)).to.equal('remote');
  });

  it('fetches a layer once, and whole, from a registry that sends no parts', async () => {
    const at = await registry(withoutRanges);
    const cache = await lazyCache(at, [gzip]);
    const view = await cache.view('registry.test/app:1');
    expect(await bytesOf(view.open('data/last'))).to.deep.equal(textBytes(700_000, 2));
    expect(await cache.blobState(gzip.descriptor)).to.equal('local');
    const { requests } = at.sent(gzip.descriptor.digest);
    expect(await bytesOf(view.open('data/first'))).to.deep.equal(textBytes(700_000));
    expect(at.sent(gzip.descriptor.digest).requests).to.equal(requests);
  });

  it('takes the beginning of a plain tar from such a registry without the rest', async () => {
    const at = await registry(withoutRanges);
    const plain = layerOf(tar, MediaType.layer);
    const cache = await lazyCache(at, [plain]);
    expect(await bytesOf(cache.readRange(gzip.diffID, 0, 100))).to.deep.equal(
      Buffer.from(tar.subarray(0, 100)),
    );
    expect(await cache.blobState(plain.descriptor)).to.equal('remote');
  });

  it('makes the tar of a zstd layer when a file of it is read', async () => {
    const at = await registry();
    const zstd = layerOf(tar, MediaType.layerZstd);
    const cache = await lazyCache(at, [zstd]);
    const view = await cache.view('registry.test/app:1');
    expect(at.sent(zstd.descriptor.digest).requests).to.equal(0);
    expect(await bytesOf(view.open('etc/small'))).to.deep.equal(small);
    expect(at.sent(zstd.descriptor.digest).requests).to.equal(1);
    expect(cache.layer(zstd.diffID).uncompressedForm?.digest).to.equal(zstd.diffID);
  });

  it('reads a plain tar by ranges, too, and it travels with its index', async () => {
    const at = await registry();
    const plain = layerOf(tar, MediaType.layer);
    const cache = await lazyCache(at, [plain]);
    expect(await bytesOf(cache.openFile('registry.test/app:1', 'etc/small'))).to.deep.equal(small);
    expect(at.sent(plain.diffID).bytes).to.be.lessThan(2 * (SPAN + HEAD));
  });

  it('refuses bytes of a layer that are not those of the index, and keeps none', async () => {
    const at = await registry();
    const cache = await lazyCache(at, [gzip]);
    const other = Buffer.from(gzip.bytes);
    other.fill(0x55, other.length / 2);
    const real = at.memory.fetchBlob.bind(at.memory);
    at.memory.fetchBlob = async (repository, digest: Digest, options?: FetchBlobOptions) => {
      const fetched = await real(repository, digest, options);
      if (digest !== gzip.descriptor.digest) return fetched;
      const { first = 0, last = other.length - 1 } = options?.range ?? {};
      fetched.body.destroy();
      return { ...fetched, body: Readable.from([other.subarray(first, last + 1)]) };
    };
    await failure('DIGEST_MISMATCH', () => bytesOf(cache.openFile('registry.test/app:1', 'data/last')));
    expect(await cache.blobState(gzip.descriptor)).to.equal('remote');
  });
});
