import { rm, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import { MediaType, digestHex, digestOf, type Digest } from '@layercache/oci';
import { OciLayout } from '@layercache/layout';
import type { Registry } from '@layercache/registry';
import { imageOf, layerOf, pushImage, tarOf } from '../image-builder.js';
import { Scratch, bytesOf, memoryRegistry } from '../test-cache.js';
import { CACHE_TAG, type LayerCache } from '../../src/index.js';

const scratch = new Scratch();
afterEach(() => scratch.clean());

const layer = layerOf(tarOf({ 'file.txt': 'a file'.repeat(1000) }));
const image = imageOf([layer]);
const NAME = 'registry.example/team/app:1';

async function cacheOfOne(registry: Registry = memoryRegistry()): Promise<LayerCache> {
  await pushImage(registry, 'team/app', '1', image);
  const cache = await scratch.cache({ registry: () => registry });
  await cache.add(NAME);
  return cache;
}

function blobPath(cache: LayerCache, digest: Digest): string {
  return join(cache.dir, 'blobs', 'sha256', digestHex(digest));
}

const nothing = { corrupted: 0, missing: 0, invalid: 0, orphaned: 0, unreadable: 0 };

describe('integrity', () => {
  it('is whole for a cache that nothing happened to, however old its cache index is', async () => {
    const cache = await cacheOfOne();
    const report = await cache.verify({ grace: 0 });
    expect(report.found).to.deep.equal(nothing);
    expect(report.ok).to.equal(true);
  });

  it('names a corrupted blob, and fetches it again', async () => {
    const cache = await cacheOfOne();
    const { digest, size } = layer.descriptor;
    await writeFile(blobPath(cache, digest), Buffer.alloc(size, 1));
    const report = await cache.verify();
    expect(report.found).to.deep.equal({ ...nothing, corrupted: 1 });
    expect(report.problems[0]).to.include({ kind: 'corrupted', digest, repaired: false });
    expect((await cache.verify({ repair: true })).ok).to.equal(true);
    expect(await bytesOf(cache.blob(digest))).to.deep.equal(Buffer.from(layer.bytes));
  });

  it('names a blob that is missing here and elsewhere, and drops its entry', async () => {
    const cache = await cacheOfOne();
    const blob = Buffer.from('was never written');
    const digest = digestOf(blob);
    const layout = await OciLayout.open(cache.dir);
    await layout.put({ mediaType: MediaType.layerGzip, digest, size: blob.length });
    await layout.close();
    const report = await cache.verify();
    expect(report.found).to.deep.equal({ ...nothing, missing: 1 });
    expect(report.problems[0]).to.include({ kind: 'missing', digest, repaired: false });
    expect((await cache.verify({ repair: true })).ok).to.equal(true);
    expect(cache.has(digest)).to.equal(false);
  });

  it('does not miss what a registry has', async () => {
    const registry = memoryRegistry();
    const cache = await cacheOfOne(registry);
    await cache.push('registry.example/team/cache:main');
    const lazy = await scratch.cache({ registry: () => registry });
    await lazy.pull('registry.example/team/cache:main', { lazy: true });
    const report = await lazy.verify();
    expect(report.absent).to.be.greaterThan(0);
    expect(report.found).to.deep.equal(nothing);
  });

  it('does not miss a tar that can be derived', async () => {
    const cache = await cacheOfOne();
    await bytesOf(cache.layer(layer.diffID).uncompressed());
    await rm(blobPath(cache, layer.diffID));
    const report = await cache.verify();
    expect(report.absent).to.equal(1);
    expect(report.found).to.deep.equal(nothing);
  });

  it('names an entry that is invalid, and corrects it', async () => {
    const cache = await cacheOfOne();
    const wrong = imageOf([layer], { diffIDs: [digestOf('another tar')] });
    const registry = memoryRegistry();
    await pushImage(registry, 'team/wrong', '1', wrong);
    const other = await scratch.cache({ registry: () => registry });
    await other.add('registry.example/team/wrong:1');
    const report = await other.verify();
    expect(report.found).to.deep.equal({ ...nothing, invalid: 1 });
    const repaired = await other.verify({ repair: true });
    expect(other.layer(layer.descriptor.digest).diffID).to.equal(layer.diffID);
    expect(repaired.problems.map(({ step, repaired: done }) => [step, done])).to.deep.equal([
      ['pairs', true],
      ['images', false],
    ]);
    const [left, ...others] = (await other.verify()).problems;
    expect(others, 'the image stays unusable').to.deep.equal([]);
    expect(left).to.include({ step: 'images', kind: 'invalid', digest: wrong.descriptor.digest });
    await other.remove('registry.example/team/wrong:1');
    expect((await other.verify()).ok).to.equal(true);
    expect((await cache.verify()).ok).to.equal(true);
  });

  it('names an orphaned blob, and adopts it', async () => {
    const cache = await cacheOfOne();
    const layout = await OciLayout.open(cache.dir);
    const { digest } = await layout.write(layerOf(tarOf({ orphan: 'nobody knows me' })).bytes);
    await layout.close();
    const report = await cache.verify({ grace: 0 });
    expect(report.found).to.deep.equal({ ...nothing, orphaned: 1 });
    expect(report.problems[0]).to.include({ kind: 'orphaned', digest });
    expect((await cache.verify({ repair: true, grace: 0 })).ok).to.equal(true);
    expect(cache.has(digest)).to.equal(true);
  });

  it('hashes blobs without an entry as well: a corrupt orphan is dropped, not adopted', async () => {
    const cache = await cacheOfOne();
    const digest = digestOf('what it should be');
    await writeFile(blobPath(cache, digest), 'what it is');
    const report = await cache.verify({ grace: 0 });
    expect(report.found).to.deep.equal({ ...nothing, corrupted: 1 });
    expect((await cache.verify({ repair: true, grace: 0 })).ok).to.equal(true);
    expect(cache.has(digest)).to.equal(false);
    expect((await cache.verify({ grace: 0 })).found).to.deep.equal(nothing);
  });

  it('makes a corrupt part of the cache index again', async () => {
    const cache = await cacheOfOne();
    const index = JSON.parse(String(await bytesOf(cache.blob(cache.image(CACHE_TAG).digest)))) as {
      manifests: { digest: Digest; size: number }[];
    };
    const shard = index.manifests[0]!;
    await writeFile(blobPath(cache, shard.digest), Buffer.alloc(shard.size, '{'));
    const report = await cache.verify();
    expect(report.found).to.deep.equal({ ...nothing, corrupted: 1 });
    expect((await cache.verify({ repair: true })).ok).to.equal(true);
    expect((await cache.verify({ grace: 0 })).found).to.deep.equal(nothing);
    expect(cache.image(CACHE_TAG).digest).to.be.a('string');
  });

  it('does not count as a use of what it reads', async () => {
    const cache = await cacheOfOne();
    const old = new Date('2024-05-01T00:00:00Z');
    const layout = await OciLayout.open(cache.dir);
    for await (const { digest } of layout.storedBlobs()) await utimes(blobPath(cache, digest), old, old);
    await cache.verify();
    for await (const { digest, usedAt } of layout.storedBlobs())
      expect(usedAt.getTime(), digest).to.equal(old.getTime());
    await layout.close();
  });
});
