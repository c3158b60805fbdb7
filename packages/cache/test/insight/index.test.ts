import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import { imageOf, layerOf, pushImage, tarOf } from '../image-builder.js';
import { Scratch, memoryRegistry } from '../test-cache.js';
import { OciLayout } from '@layercache/layout';
import type { LayerCache } from '../../src/index.js';
import { MediaType, layerForm } from '@layercache/oci';

const scratch = new Scratch();
afterEach(() => scratch.clean());

const layer = layerOf(tarOf({ 'file.txt': 'a file' }));
const image = imageOf([layer]);

async function cacheOfOne(): Promise<LayerCache> {
  const registry = memoryRegistry();
  await pushImage(registry, 'team/app', '1', image);
  const cache = await scratch.cache({ registry: () => registry });
  await cache.add('registry.example/team/app:1');
  return cache;
}

describe('the index of a cache', () => {
  it('is gone through with a filter', async () => {
    const cache = await cacheOfOne();
    const layers = [...cache.entries(({ descriptor }) => layerForm(descriptor.mediaType) !== undefined)];
    expect(layers.map(({ descriptor }) => descriptor.digest)).to.deep.equal([layer.descriptor.digest]);
    expect([...cache.entries()].length).to.equal(4);
  });

  it('has a key for each digest and each diffID, once', async () => {
    const cache = await cacheOfOne();
    const keys = [...cache.keys()];
    expect(keys).to.include.members([layer.descriptor.digest, layer.diffID, image.descriptor.digest]);
    expect(new Set(keys).size).to.equal(keys.length);
    for (const key of keys) expect(cache.lookup(key), key).not.to.be.empty;
  });

  it('says what the journal holds, and compacts it away', async () => {
    const cache = await cacheOfOne();
    const layout = await OciLayout.open(cache.dir);
    const blob = await layout.write(Buffer.from('one more'));
    await layout.put({ ...blob, mediaType: MediaType.layerGzip });
    const before = cache.indexStats();
    expect(before).to.deep.include({ entries: 5, names: 2 });
    expect(before.journal?.changes).to.equal(1);
    const after = await cache.compact();
    expect(after.journal).to.include({ changes: 0, torn: 0 });
    expect(after.journal!.size).to.be.lessThan(before.journal!.size);
    expect(after.map).to.include({ state: 'current', records: after.entries });
    expect(after.entries).to.equal(before.entries);
    await layout.close();
  });

  it('says when the map is of no use, and compacts it into a good one', async () => {
    const cache = await cacheOfOne();
    const { map } = cache.indexStats();
    await writeFile(join(cache.dir, '.layercache', 'map'), Buffer.alloc(map!.size, 7));
    expect(cache.indexStats().map?.state).to.equal('damaged');
    expect((await cache.compact()).map?.state).to.equal('current');
    expect(cache.lookup(layer.diffID)).to.have.length(1);
  });
});
