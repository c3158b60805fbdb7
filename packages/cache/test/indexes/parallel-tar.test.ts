import { open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { expect } from 'chai';
import { digestHex } from '@layercache/oci';
import type { LayerCache, LayerCacheOptions } from '../../src/index.js';
import { imageOf, packedLayer, pushImage, tarOf } from '../image-builder.js';
import { Scratch, bytesOf, failure, memoryRegistry } from '../test-cache.js';
import { textBytes } from './text-bytes.js';

describe('a layer with an index', () => {
  const scratch = new Scratch();
  afterEach(() => scratch.clean());
  const tar = tarOf({ one: textBytes(600_000), two: textBytes(300_000, 9) });
  const layers = [
    packedLayer(tar, gzipSync(tar, { level: 1 })),
    packedLayer(tar, Buffer.concat([gzipSync(tar.subarray(0, 70_001)), gzipSync(tar.subarray(70_001))])),
    packedLayer(tar, gzipSync(tar, { level: 0 })),
  ];

  async function cacheWith(at: number, options: LayerCacheOptions = {}): Promise<LayerCache> {
    const layer = layers[at];
    if (layer === undefined) throw new TypeError('no such layer');
    const registry = memoryRegistry();
    await pushImage(registry, 'app', '1', imageOf([layer]));
    const cache = await scratch.cache({ ...options, registry: () => registry });
    await cache.add('registry.test/app:1');
    return cache;
  }

  it('decompresses in parallel to the bytes it has without, whatever the spans, and keeps them or not', async () => {
    for (const at of layers.keys()) {
      for (const keepUncompressed of [true, false]) {
        for (const spanSize of [20_000, 100_000]) {
          const cache = await cacheWith(at, { keepUncompressed });
          await cache.index('registry.test/app:1', { spanSize });
          for (const key of [layers[at]?.descriptor.digest ?? '', layers[at]?.diffID ?? '']) {
            const bytes = await bytesOf(cache.layer(key).uncompressed());
            expect(bytes.equals(tar), `layer ${at}, spans of ${spanSize}`).to.equal(true);
          }
          expect(cache.layer(layers[at]?.diffID ?? '').uncompressedForm !== undefined).to.equal(
            keepUncompressed,
          );
          await cache.close();
        }
      }
    }
  });

  it('is told from one that went bad, which is dropped', async () => {
    const [layer] = layers as [(typeof layers)[0]];
    const cache = await cacheWith(0);
    await cache.index('registry.test/app:1', { spanSize: 50_000 });
    const path = join(cache.dir, 'blobs', 'sha256', digestHex(layer.descriptor.digest));
    const file = await open(path, 'r+');
    await file.write(Buffer.alloc(100), 0, 100, layer.bytes.length / 2);
    await file.close();
    await failure('DIGEST_MISMATCH', () => bytesOf(cache.openFile('registry.test/app:1', 'one')));
    expect(await cache.blobs.has(layer.descriptor.digest)).to.equal(false);
  });

  it('is told from one that went bad when all of it is decompressed', async () => {
    const [layer] = layers as [(typeof layers)[0]];
    for (const keepUncompressed of [true, false]) {
      const cache = await cacheWith(0, { keepUncompressed });
      await cache.index('registry.test/app:1', { spanSize: 50_000 });
      const path = join(cache.dir, 'blobs', 'sha256', digestHex(layer.descriptor.digest));
      const file = await open(path, 'r+');
      await file.write(Buffer.alloc(100), 0, 100, layer.bytes.length / 2);
      await file.close();
      await failure('DIGEST_MISMATCH', () => bytesOf(cache.layer(layer.descriptor.digest).uncompressed()));
      expect(await cache.blobs.has(layer.descriptor.digest)).to.equal(false);
    }
  });

  it('has its tar again after that was lost', async () => {
    const [layer] = layers as [(typeof layers)[0]];
    const cache = await cacheWith(0);
    await cache.index('registry.test/app:1', { spanSize: 50_000 });
    await bytesOf(cache.layer(layer.diffID).uncompressed());
    await rm(join(cache.dir, 'blobs', 'sha256', digestHex(layer.diffID)));
    expect((await bytesOf(cache.layer(layer.diffID).uncompressed())).equals(tar)).to.equal(true);
  });
});
