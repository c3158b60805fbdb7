import { chmod, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import { Annotation, digestHex } from '@layercache/oci';
import { OciLayout } from '@layercache/layout';
import { imageOf, layerOf, pushImage, tarOf } from '../image-builder.js';
import { Scratch, bytesOf, failure, filesBelow, memoryRegistry } from '../test-cache.js';

describe('an image layout as a source', () => {
  const scratch = new Scratch();
  const layers = ['a', 'b', 'c'].map((name) => layerOf(tarOf({ [name]: name })));
  const image = imageOf(layers);
  let dir: string;
  afterEach(() => scratch.clean());

  beforeEach(async () => {
    const registry = memoryRegistry();
    await pushImage(registry, 'r/app', '1', image);
    const cache = await scratch.cache({ registry: () => registry });
    await cache.add('reg.test/r/app:1');
    dir = join(await scratch.dir(), 'layout');
    await cache.export('reg.test/r/app:1', `oci:${dir}`);
  });

  it('is left as it was, also when it is read-only', async () => {
    const before = await filesBelow(dir);
    expect(before.some((file) => file.includes('layercache'))).to.equal(false);
    await chmod(dir, 0o555);
    const cache = await scratch.cache();
    await cache.add(`oci:${dir}`);
    await chmod(dir, 0o755);
    expect(await filesBelow(dir)).to.deep.equal(before);
  });

  it('is expanded like any other when it is opened as a cache later', async () => {
    await (await scratch.cache()).add(`oci:${dir}`);
    const cache = await scratch.cache({ dir });
    for (const { diffID, tar } of layers)
      expect((await bytesOf(cache.layer(diffID).uncompressed())).equals(tar)).to.equal(true);
  });

  it('that lacks a blob is NOT_FOUND each time, whatever else is under way', async () => {
    const archive = join(await scratch.dir(), 'archive.tar');
    const source = await scratch.cache({ dir });
    await source.export('reg.test/r/app:1', `oci-archive:${archive}`);
    await source.close();
    await rm(join(dir, 'blobs', 'sha256', digestHex(layers[0]!.descriptor.digest)));
    const strays: unknown[] = [];
    const stray = (error: unknown): number => strays.push(error);
    process.on('uncaughtException', stray);
    try {
      for (let attempt = 0; attempt < 20; attempt++) {
        const error = await failure('NOT_FOUND', async () => (await scratch.cache()).add(`oci:${dir}:app`));
        expect(error.message).to.include('no ');
      }
      for (let attempt = 0; attempt < 10; attempt++) {
        const error = await failure('NOT_FOUND', async () =>
          (await scratch.cache()).add(`oci:${dir}:reg.test/r/app:1`),
        );
        expect(error.message).to.include(layers[0]!.descriptor.digest);
      }
      await new Promise((resolve) => setImmediate(resolve));
    } finally {
      process.off('uncaughtException', stray);
    }
    expect(strays).to.deep.equal([]);
  });

  it('that is a cache is read by what its index.json says', async () => {
    const cache = await OciLayout.open(dir);
    await cache.put({ ...image.descriptor, annotations: { [Annotation.refName]: 'second:1' } });
    await cache.close();
    const target = await scratch.cache();
    expect((await target.add(`oci:${dir}:second:1`)).name).to.equal('second:1');
  });
});
