import { randomBytes } from 'node:crypto';
import { readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { expect } from 'chai';
import { Annotation, MediaType, digestHex, digestOf, type Descriptor, type Digest } from '@layercache/oci';
import { OciLayout } from '@layercache/layout';
import type { Registry } from '@layercache/registry';
import type { LayerCache } from '../src/index.js';
import {
  imageOf,
  layerOf,
  packedLayer,
  pushImage,
  tarOf,
  type BuiltLayer,
  zstdStored,
  type ImageChoices,
} from './image-builder.js';
import { Scratch, bytesOf, failure, filesBelow, memoryRegistry } from './test-cache.js';

describe('a layer of the cache', () => {
  const scratch = new Scratch();
  const tar = tarOf({ 'etc/os-release': 'ID=test\n', 'bin/data': randomBytes(300_000) });
  const gzip = layerOf(tar);
  afterEach(() => scratch.clean());

  async function cacheWith(
    layers: readonly BuiltLayer[],
    choices: ImageChoices & { keep?: boolean } = {},
    registry: Registry = memoryRegistry(),
  ): Promise<LayerCache> {
    await pushImage(registry, 'app', '1', imageOf(layers, choices));
    const cache = await scratch.cache({ registry: () => registry, keepUncompressed: choices.keep ?? true });
    await cache.add('registry.test/app:1');
    return cache;
  }

  const blobFile = (cache: LayerCache, digest: Digest): string =>
    join(cache.dir, 'blobs', 'sha256', digestHex(digest));

  it('is one layer under its digest and under its diffID', async () => {
    const cache = await cacheWith([gzip]);
    for (const key of [gzip.descriptor.digest, gzip.diffID]) {
      const layer = cache.layer(key);
      expect(layer.diffID).to.equal(gzip.diffID);
      expect(layer.digests).to.deep.equal([gzip.descriptor.digest]);
      expect(await bytesOf(layer.compressed())).to.deep.equal(gzip.bytes);
      expect(await bytesOf(layer.uncompressed())).to.deep.equal(tar);
    }
  });

  it('is claimed until its bytes were decompressed here, then proven', async () => {
    const cache = await cacheWith([gzip]);
    expect(cache.layer(gzip.diffID).proven).to.equal(false);
    expect(cache.layer(gzip.descriptor.digest).proven).to.equal(false);
    await bytesOf(cache.layer(gzip.diffID).uncompressed());
    expect(cache.layer(gzip.diffID).proven).to.equal(true);
    expect(cache.layer(gzip.descriptor.digest).proven).to.equal(true);
  });

  it('is not proven by what another tool lists as its compressed forms', async () => {
    const other = layerOf(tarOf({ other: 'content' }));
    const dir = await scratch.dir();
    const layout = await OciLayout.open(dir);
    for (const bytes of [tar, gzip.bytes, other.bytes]) await layout.write(bytes);
    const listing = (digests: readonly Digest[]): Descriptor => ({
      mediaType: MediaType.layer,
      digest: gzip.diffID,
      size: tar.length,
      annotations: { [Annotation.digest]: digests.join(',') },
    });
    await layout.put(listing([other.descriptor.digest]));
    await layout.close();
    const cache = await scratch.cache({ dir });
    expect(cache.layer(gzip.diffID).proven).to.equal(false);
    await cache.close();
    const again = await OciLayout.open(dir);
    await again.put(
      { ...gzip.descriptor, annotations: { [Annotation.diffID]: gzip.diffID } },
      { proven: true },
    );
    await again.put(listing([other.descriptor.digest, gzip.descriptor.digest]));
    await again.close();
    const both = await scratch.cache({ dir });
    expect(both.layer(gzip.descriptor.digest).proven).to.equal(true);
    expect(both.layer(gzip.diffID).proven, 'one of two is proven').to.equal(false);
  });

  it('keeps the tar it was decompressed to, and serves it from disk then', async () => {
    const cache = await cacheWith([gzip]);
    await bytesOf(cache.layer(gzip.diffID).uncompressed());
    expect(await readFile(blobFile(cache, gzip.diffID))).to.deep.equal(tar);
    await rm(blobFile(cache, gzip.descriptor.digest));
    expect(await bytesOf(cache.layer(gzip.diffID).uncompressed())).to.deep.equal(tar);
  });

  it('leaves no tar behind when told not to keep it', async () => {
    const cache = await cacheWith([gzip], { keep: false });
    expect(await bytesOf(cache.layer(gzip.diffID).uncompressed())).to.deep.equal(tar);
    expect(await bytesOf(cache.layer(gzip.descriptor.digest).uncompressed())).to.deep.equal(tar);
    expect(await filesBelow(join(cache.dir, 'blobs'))).not.to.include(`sha256/${digestHex(gzip.diffID)}`);
    expect(await bytesOf(cache.layer(gzip.diffID).uncompressed({ keep: true }))).to.deep.equal(tar);
    expect(await readFile(blobFile(cache, gzip.diffID))).to.deep.equal(tar);
  });

  it('is decompressed once for callers who ask at the same time', async () => {
    const cache = await cacheWith([gzip]);
    const all = await Promise.all([1, 2, 3, 4].map(() => bytesOf(cache.layer(gzip.diffID).uncompressed())));
    for (const each of all) expect(each).to.deep.equal(tar);
  });

  it('is a miss by digest when only its tar is here: it is never compressed again', async () => {
    const registry = memoryRegistry();
    const cache = await cacheWith([gzip], {}, registry);
    await bytesOf(cache.layer(gzip.diffID).uncompressed());
    await rm(blobFile(cache, gzip.descriptor.digest));
    await registry.deleteBlob('app', gzip.descriptor.digest);
    const error = await failure('NOT_FOUND', () => cache.layer(gzip.descriptor.digest).compressed());
    expect(error.message).to.contain(gzip.descriptor.digest);
    await failure('NOT_FOUND', () => cache.blob(gzip.descriptor.digest));
    expect(await bytesOf(cache.layer(gzip.diffID).uncompressed())).to.deep.equal(tar);
  });

  it('that lost its blob is fetched again from where it came from', async () => {
    const cache = await cacheWith([gzip]);
    await rm(blobFile(cache, gzip.descriptor.digest));
    expect(await bytesOf(cache.layer(gzip.descriptor.digest).compressed())).to.deep.equal(gzip.bytes);
    expect(await readFile(blobFile(cache, gzip.descriptor.digest))).to.deep.equal(gzip.bytes);
  });

  it('has many compressed counterparts and one diffID', async () => {
    const other = packedLayer(tar, gzipSync(tar, { level: 1 }));
    const zstd = layerOf(tar, MediaType.layerZstd);
    const cache = await cacheWith([gzip, other, zstd]);
    const digests = [gzip, other, zstd].map((layer) => layer.descriptor.digest).sort();
    expect(cache.layer(gzip.diffID).digests).to.deep.equal(digests);
    for (const layer of [gzip, other, zstd]) {
      expect(await bytesOf(cache.layer(layer.descriptor.digest).compressed())).to.deep.equal(layer.bytes);
      expect(await bytesOf(cache.layer(layer.descriptor.digest).uncompressed())).to.deep.equal(tar);
    }
    expect([...cache.layers()].map((layer) => layer.key)).to.deep.equal([gzip.diffID]);
  });

  for (const mediaType of [MediaType.layer, MediaType.dockerLayer]) {
    it(`of the media type ${mediaType} is its own diffID`, async () => {
      const plain = layerOf(tar, mediaType);
      const cache = await cacheWith([plain]);
      expect(await bytesOf(cache.layer(plain.diffID).uncompressed())).to.deep.equal(tar);
      expect(cache.layer(plain.diffID).diffID).to.equal(plain.descriptor.digest);
    });
  }

  it('of several gzip members is decompressed to the end', async () => {
    const parts = [tar.subarray(0, 1000), tar.subarray(1000, 200_000), tar.subarray(200_000)];
    const members = packedLayer(tar, Buffer.concat(parts.map((part) => gzipSync(part))));
    const cache = await cacheWith([members]);
    expect(await bytesOf(cache.layer(members.diffID).uncompressed())).to.deep.equal(tar);
  });

  it('of several zstd frames is decompressed to the end', async () => {
    const parts = [tar.subarray(0, 1000), tar.subarray(1000, 200_000), tar.subarray(200_000)];
    const frames = packedLayer(tar, Buffer.concat(parts.map(zstdStored)), MediaType.layerZstd);
    const cache = await cacheWith([frames]);
    expect(await bytesOf(cache.layer(frames.diffID).uncompressed())).to.deep.equal(tar);
  });

  it('whose diffID was claimed wrongly is refused, by both names, and nothing is left behind', async () => {
    const lie = digestOf('not the tar');
    for (const key of [gzip.descriptor.digest, lie]) {
      const cache = await cacheWith([gzip], { diffIDs: [lie] });
      const error = await failure('DIFFID_MISMATCH', async () => bytesOf(cache.layer(key).uncompressed()));
      expect(error.message)
        .to.contain(lie)
        .and.to.contain(gzip.diffID)
        .and.to.contain(gzip.descriptor.digest);
      const blobs = await filesBelow(join(cache.dir, 'blobs'));
      expect(blobs).not.to.include(`sha256/${digestHex(lie)}`);
      expect((await filesBelow(cache.dir)).filter((file) => file.includes('ingest'))).to.deep.equal([]);
      await failure('NOT_FOUND', () => cache.layer(lie));
      expect(await bytesOf(cache.layer(gzip.diffID).uncompressed())).to.deep.equal(tar);
    }
  });

  it('whose diffID was claimed wrongly is not handed out compressed for that diffID either', async () => {
    const lie = digestOf('not the tar');
    const cache = await cacheWith([gzip], { diffIDs: [lie] });
    await failure('DIFFID_MISMATCH', () => cache.layer(lie).compressed());
  });

  it('whose claim is wrong fails before its end when it is streamed without being kept', async () => {
    const lie = digestOf('not the tar');
    const cache = await cacheWith([gzip], { diffIDs: [lie], keep: false });
    const received: Uint8Array[] = [];
    await failure('DIFFID_MISMATCH', async () => {
      for await (const chunk of await cache.layer(lie).uncompressed()) received.push(chunk as Uint8Array);
    });
    expect(Buffer.concat(received).length).to.be.lessThan(tar.length);
  });

  it('that is truncated gzip is an error that says so', async () => {
    const broken = packedLayer(tar, gzip.bytes.subarray(0, gzip.bytes.length - 100));
    const cache = await cacheWith([broken]);
    const error = await failure('COMPRESSION_INVALID', async () =>
      bytesOf(cache.layer(broken.diffID).uncompressed()),
    );
    expect(error.message).to.contain(broken.descriptor.digest);
  });

  it('that is corrupt gzip or zstd, or neither, is an error that says so', async () => {
    const corrupt = Buffer.from(gzip.bytes);
    corrupt.fill(0xa5, 5000, 5200);
    const rubbish = randomBytes(5000);
    for (const layer of [
      packedLayer(tar, corrupt),
      packedLayer(tar, rubbish),
      packedLayer(tar, rubbish, MediaType.layerZstd),
      packedLayer(tar, layerOf(tar, MediaType.layerZstd).bytes.subarray(0, 9000), MediaType.layerZstd),
    ]) {
      const cache = await cacheWith([layer]);
      const error = await failure('COMPRESSION_INVALID', async () =>
        bytesOf(cache.layer(layer.diffID).uncompressed()),
      );
      expect(error.message).to.contain(layer.descriptor.digest);
      expect(await filesBelow(join(cache.dir, 'blobs'))).not.to.include(`sha256/${digestHex(layer.diffID)}`);
    }
  });

  it('whose bytes on disk are not its digest is not served, and can be fetched again', async () => {
    const registry = memoryRegistry();
    await pushImage(registry, 'app', '1', imageOf([gzip]));
    const cache = await scratch.cache({ registry: () => registry });
    await cache.add('registry.test/app:1');
    const flipped = Buffer.from(gzip.bytes);
    flipped[2000] = (flipped[2000] ?? 0) ^ 1;
    await writeFile(blobFile(cache, gzip.descriptor.digest), flipped);
    await failure('DIGEST_MISMATCH', async () => bytesOf(cache.layer(gzip.descriptor.digest).compressed()));
    await cache.add('registry.test/app:1');
    expect(await bytesOf(cache.layer(gzip.descriptor.digest).compressed())).to.deep.equal(gzip.bytes);
  });

  it('whose bytes on disk are corrupt is told from one that was built corrupt', async () => {
    const cache = await cacheWith([gzip]);
    const flipped = Buffer.from(gzip.bytes);
    flipped.fill(0, 2000, 2100);
    await writeFile(blobFile(cache, gzip.descriptor.digest), flipped);
    await failure('DIGEST_MISMATCH', async () => bytesOf(cache.layer(gzip.diffID).uncompressed()));
  });

  it('that another program cut short on disk is noticed by its size, and fetched again', async () => {
    const registry = memoryRegistry();
    await pushImage(registry, 'app', '1', imageOf([gzip]));
    const cache = await scratch.cache({ registry: () => registry });
    await cache.add('registry.test/app:1');
    await truncate(blobFile(cache, gzip.descriptor.digest), 1000);
    await cache.add('registry.test/app:1');
    expect(await bytesOf(cache.layer(gzip.descriptor.digest).compressed())).to.deep.equal(gzip.bytes);
  });

  it('keeps its proof when the cache is closed and opened again', async () => {
    const cache = await cacheWith([gzip]);
    await bytesOf(cache.layer(gzip.diffID).uncompressed());
    await cache.close();
    const again = await scratch.cache({ dir: cache.dir });
    expect(again.layer(gzip.diffID).proven).to.equal(true);
    expect(await bytesOf(again.layer(gzip.descriptor.digest).uncompressed())).to.deep.equal(tar);
  });

  it('is not found under a name that nobody gave it, and a name that is none is refused', async () => {
    const cache = await cacheWith([gzip]);
    await failure('NOT_FOUND', () => cache.layer(digestOf('nobody')));
    for (const key of ['sha256:../../x', 'md5:d41d8cd98f00b204e9800998ecf8427e', 'latest']) {
      await failure('DIGEST_INVALID', () => cache.layer(key));
    }
  });

  it('stops being decompressed when the reader gives up', async () => {
    const cache = await cacheWith([gzip]);
    await failure('ABORTED', () => cache.layer(gzip.diffID).uncompressed({ signal: AbortSignal.abort() }));
  });
});
