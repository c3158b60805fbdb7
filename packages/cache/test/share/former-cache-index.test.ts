import { cp, readFile, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import { Annotation, digestHex, type Descriptor } from '@layercache/oci';
import { CACHE_TAG, type LayerCache } from '../../src/index.js';
import { imageOf, layerOf, pushImage, tarOf } from '../image-builder.js';
import { Scratch, memoryRegistry } from '../test-cache.js';

interface IndexJson {
  manifests: Descriptor[];
}

const nameOf = (entry: Descriptor): string | undefined => entry.annotations?.[Annotation.refName];

describe('a former cache index', () => {
  const scratch = new Scratch();
  const registry = memoryRegistry();
  const one = imageOf([layerOf(tarOf({ one: '1' }))]);
  const two = imageOf([layerOf(tarOf({ two: '2' }))]);
  let cache: LayerCache;

  before(async () => {
    await pushImage(registry, 'r/app', 'one', one);
    await pushImage(registry, 'r/app', 'two', two);
  });
  beforeEach(async () => {
    cache = await scratch.cache({ registry: () => registry });
    await cache.add('reg.test/r/app:one');
    await cache.close();
  });
  afterEach(() => scratch.clean());

  const edit = async (change: (entries: Descriptor[]) => Descriptor[]): Promise<void> => {
    const path = join(cache.dir, 'index.json');
    const document = JSON.parse(await readFile(path, 'utf8')) as IndexJson;
    document.manifests = change(document.manifests);
    await writeFile(path, JSON.stringify(document));
  };

  /** The manifests that are entries, by name. */
  const manifests = (of: LayerCache): (string | undefined)[] =>
    [...of.entries(({ descriptor }) => descriptor.mediaType.includes('json'))]
      .filter(({ descriptor }) => !descriptor.mediaType.includes('config'))
      .map(({ descriptor }) => nameOf(descriptor))
      .sort();

  const expectToFreeEverything = async (of: LayerCache): Promise<void> => {
    for (const { name } of [...of.images()]) await of.remove(name);
    await of.prune({ grace: 0 });
    const left = await readdir(join(of.dir, 'blobs', 'sha256'));
    for (const image of [one, two]) {
      expect(left).not.to.include(digestHex(image.layers[0]!.descriptor.digest));
      expect(left).not.to.include(digestHex(image.descriptor.digest));
    }
  };

  const edits: readonly [string, (entries: Descriptor[]) => Descriptor[]][] = [
    ['dropped', (entries) => entries.filter((entry) => nameOf(entry) !== CACHE_TAG)],
    [
      'listed without its name',
      (entries) =>
        entries.map((entry) => {
          const { mediaType, digest, size } = entry;
          return nameOf(entry) === CACHE_TAG ? { mediaType, digest, size } : entry;
        }),
    ],
  ];
  for (const [what, change] of edits) {
    it(`that another tool has ${what} is no image, is not sent to others, and keeps nothing alive`, async () => {
      await edit(change);
      const again = await scratch.cache({ dir: cache.dir, registry: () => registry });
      await again.add('reg.test/r/app:two');
      expect(manifests(again)).to.deep.equal([CACHE_TAG, 'reg.test/r/app:one', 'reg.test/r/app:two']);
      await again.push('reg.test/team/cache:former');
      const reader = await scratch.cache({ registry: () => registry });
      await reader.pull('reg.test/team/cache:former');
      expect(manifests(reader)).to.deep.equal([CACHE_TAG, 'reg.test/r/app:one', 'reg.test/r/app:two']);
      expect((await again.stats()).images.map(({ names }) => names[0])).to.have.members([
        'reg.test/r/app:one',
        'reg.test/r/app:two',
      ]);
      await expectToFreeEverything(again);
    });
  }

  it('over which that of another cache was copied is united with it', async () => {
    const other = await scratch.cache({ registry: () => registry });
    await other.add('reg.test/r/app:two');
    await other.close();
    const theirs = JSON.parse(await readFile(join(other.dir, 'index.json'), 'utf8')) as IndexJson;
    await cp(join(other.dir, 'blobs'), join(cache.dir, 'blobs'), { recursive: true });
    await edit((entries) => [
      ...entries.filter((entry) => nameOf(entry) !== CACHE_TAG),
      ...theirs.manifests.filter((entry) => nameOf(entry) === CACHE_TAG),
    ]);
    const again = await scratch.cache({ dir: cache.dir, registry: () => registry });
    expect([...again.images()].map(({ name }) => name)).to.deep.equal([
      'reg.test/r/app:one',
      'reg.test/r/app:two',
    ]);
    await expectToFreeEverything(again);
  });

  it('stays for readers who have just read it, and goes with the next prune that reaches so far', async () => {
    const index = JSON.parse(await readFile(join(cache.dir, 'index.json'), 'utf8')) as IndexJson;
    const listed = index.manifests.find((entry) => nameOf(entry) === CACHE_TAG)!;
    const file = join(cache.dir, 'blobs', 'sha256', digestHex(listed.digest));
    const { manifests: children } = JSON.parse(await readFile(file, 'utf8')) as IndexJson;
    const again = await scratch.cache({ dir: cache.dir, registry: () => registry });
    await again.add('reg.test/r/app:two');
    const blobs = await readdir(join(cache.dir, 'blobs', 'sha256'));
    for (const { digest } of [listed, ...children]) expect(blobs).to.include(digestHex(digest));
    expect((await again.verify({ grace: 0 })).problems).to.deep.equal([]);
    expect((await again.verify({ grace: 0, repair: true })).problems).to.deep.equal([]);
    expect((await again.prune({ grace: 0 })).items).to.deep.equal([]);
    expect(await readdir(join(cache.dir, 'blobs', 'sha256'))).not.to.include(digestHex(listed.digest));
  });
});
