import { existsSync } from 'node:fs';
import { mkdir, readFile, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import { Annotation, refName, type Descriptor } from '@layercache/oci';
import { imageOf, layerOf, pushImage, tarOf } from '../image-builder.js';
import { Scratch, failure, memoryRegistry } from '../test-cache.js';
import type { LayerCache } from '../../src/index.js';

describe('an export into an image layout', () => {
  const scratch = new Scratch();
  const names = Array.from({ length: 6 }, (_, n) => `reg.test/r/app:${n}`);
  let cache: LayerCache;
  let dir: string;
  afterEach(() => scratch.clean());

  beforeEach(async () => {
    const registry = memoryRegistry();
    cache = await scratch.cache({ registry: () => registry });
    for (const [n, name] of names.entries()) {
      await pushImage(registry, 'r/app', String(n), imageOf([layerOf(tarOf({ n: String(n) }))]));
      await cache.add(name);
    }
    dir = join(await scratch.dir(), 'out');
  });

  const entriesOf = async (): Promise<Descriptor[]> =>
    (JSON.parse(await readFile(join(dir, 'index.json'), 'utf8')) as { manifests: Descriptor[] }).manifests;

  it('keeps what all others put there at the same time, and leaves nothing else', async () => {
    await Promise.all(names.map((name) => cache.export(name, `oci:${dir}`)));
    expect((await entriesOf()).map(refName).sort()).to.deep.equal(names);
    expect((await readdir(dir)).sort()).to.deep.equal(['blobs', 'index.json', 'oci-layout']);
    const again = await scratch.cache();
    for (const name of names) await again.add(`oci:${dir}:${name}`);
  });

  it('moves a name, and keeps what another tool wrote', async () => {
    await cache.export(names[0]!, `oci:${dir}:app`);
    const [first] = await entriesOf();
    const document = { schemaVersion: 2, annotations: { of: 'another tool' }, manifests: [first] };
    await writeFile(join(dir, 'index.json'), JSON.stringify(document));
    await cache.export(names[1]!, `oci:${dir}:app`);
    await cache.export(names[1]!, `oci:${dir}:app`);
    const entries = await entriesOf();
    expect(entries.map(refName)).to.deep.equal([undefined, 'app']);
    expect(entries[0]!.digest).to.equal(first!.digest);
    expect(entries[1]!.digest).to.equal(cache.image(names[1]!).digest);
    expect(await readFile(join(dir, 'index.json'), 'utf8')).to.include('another tool');
  });

  it('becomes part of the cache that the layout is', async () => {
    const other = await scratch.cache({ dir });
    await cache.export(names[0]!, `oci:${dir}`);
    expect(other.image(names[0]!).annotations?.[Annotation.refName]).to.equal(names[0]);
    expect(existsSync(join(dir, '.layercache'))).to.equal(true);
  });

  it('refuses a folder of something else', async () => {
    await mkdir(dir);
    await writeFile(join(dir, 'file'), 'of somebody');
    await failure('LAYOUT_INVALID', () => cache.export(names[0]!, `oci:${dir}`));
    expect(await readdir(dir)).to.deep.equal(['file']);
  });
});
