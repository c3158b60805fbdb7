import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { expect } from 'chai';
import { Annotation, MediaType, digestOf, type Descriptor } from '@layercache/oci';
import type { Registry } from '@layercache/registry';
import { encodeCacheIndex, type LayerCache, type NamePolicy } from '../../src/index.js';
import { imageOf, layerOf, pushCacheIndex, pushImage, tarOf, type BuiltImage } from '../image-builder.js';
import { Scratch, bytesOf, failure, memoryRegistry } from '../test-cache.js';

const REMOTE = 'registry.test/team/cache:main';
const APP = 'registry.test/app:1';

const someImage = (): BuiltImage => imageOf([layerOf(tarOf({ data: randomBytes(500) }))]);

/** A shared cache in which somebody gave names to images as they liked. */
async function shareNames(registry: Registry, names: Readonly<Record<string, BuiltImage>>): Promise<void> {
  const images = Object.entries(names).map(([name, { descriptor }]): Descriptor => ({
    ...descriptor,
    annotations: { [Annotation.refName]: name },
  }));
  for (const image of Object.values(names)) await pushImage(registry, 'team/cache', undefined, image);
  await pushCacheIndex(registry, 'team/cache', 'main', encodeCacheIndex([], images));
}

const names = (cache: LayerCache): Record<string, string> =>
  Object.fromEntries(
    [...cache.images()].map(({ name, descriptor, claimed }) => [
      name,
      `${descriptor.digest}${claimed ? ' claimed' : ''}`,
    ]),
  );

describe('a name', () => {
  const scratch = new Scratch();
  afterEach(() => scratch.clean());

  async function withApp(options: { readonly pinned?: boolean } = {}): Promise<{
    cache: LayerCache;
    registry: ReturnType<typeof memoryRegistry>;
    image: BuiltImage;
  }> {
    const registry = memoryRegistry();
    const image = someImage();
    await pushImage(registry, 'app', '1', image);
    const cache = await scratch.cache({ registry: () => registry });
    await cache.add(APP);
    if (options.pinned === true) await cache.pin(APP);
    return { cache, registry, image };
  }

  describe('that means something else in a cache', () => {
    it('is refused when it is typed, and when a source has it at the top', async () => {
      const { cache, image } = await withApp();
      const before = [...cache.entries()];
      for (const name of ['layercache', image.descriptor.digest, 'sha256:83eebabd6f0b', 'app\n1'])
        await failure('REFERENCE_INVALID', () => cache.add(APP, { name }));
      const dir = await scratch.dir();
      for (const name of ['layercache', digestOf('other')]) {
        const source = `oci:${join(dir, name.slice(-6))}`;
        await cache.export(APP, `${source}:${name}`);
        const error = await failure('REFERENCE_INVALID', () => cache.add(source));
        expect(error.message).to.contain(source).and.contain(JSON.stringify(name));
      }
      expect([...cache.entries()]).to.deep.equal(before);
      await cache.add(`oci:${join(dir, 'rcache')}:layercache`, { name: 'built:1' });
      expect(cache.image('built:1').digest).to.equal(image.descriptor.digest);
    });

    it('is refused when a client of the cache as a registry gives it', async () => {
      const { cache, image } = await withApp();
      const registry = cache.registry();
      const { mediaType, digest } = image.descriptor;
      for (const [repository, tag] of [
        ['sha256', 'a'.repeat(64)],
        ['layercache', 'latest'],
        ['layercache', '2'],
      ] as const) {
        await failure('REFERENCE_INVALID', () =>
          registry.pushManifest(repository, mediaType, image.bytes, { tag }),
        );
        await failure('REFERENCE_INVALID', () => registry.tag(repository, digest, tag));
      }
      expect(names(cache)).to.deep.equal({ [APP]: digest });
    });

    it('is left out when it comes with a shared cache', async () => {
      const registry = memoryRegistry();
      const image = someImage();
      await shareNames(registry, {
        layercache: image,
        [digestOf('x')]: image,
        [`app@${digestOf('y')}`]: image,
      });
      const cache = await scratch.cache({ registry: () => registry });
      await cache.pull(REMOTE, { names: 'trust' });
      await cache.sync();
      expect(names(cache)).to.deep.equal({});
      expect(cache.image(image.descriptor.digest).digest).to.equal(image.descriptor.digest);
    });
  });

  describe('with a digest', () => {
    it('resolves to that digest or fails, whatever has the name', async () => {
      const { cache, registry, image } = await withApp();
      const other = someImage();
      await pushImage(registry, 'other', '1', other);
      await cache.add('registry.test/other:1');
      const { digest } = other.descriptor;
      for (const text of [
        digest,
        `registry.test/app:1@${digest}`,
        `app@${digest}`,
        `registry.test/x/y@${digest}`,
      ])
        expect(cache.image(text).digest).to.equal(digest);
      for (const text of [digestOf('absent'), `registry.test/app:1@${digestOf('absent')}`])
        await failure('NOT_FOUND', () => cache.image(text));
      await failure('DIGEST_INVALID', () => cache.image('sha256:abc'));
      const [layer] = image.layers;
      await failure('NOT_FOUND', () => cache.image(layer?.descriptor.digest ?? ''));
    });
  });

  describe('that came with a shared cache', () => {
    it('never changes what a name means here, and the report lists both', async () => {
      for (const policy of ['prove', 'trust', 'skip'] as NamePolicy[]) {
        for (const pinned of [true, false]) {
          const { cache, registry, image } = await withApp({ pinned });
          const evil = someImage();
          await shareNames(registry, { [APP]: evil });
          const { names: report } = await cache.pull(REMOTE, { names: policy });
          expect(names(cache)).to.deep.equal({ [APP]: image.descriptor.digest });
          expect(report.different).to.deep.equal([
            { name: APP, here: image.descriptor.digest, there: evil.descriptor.digest },
          ]);
          expect(cache.image(evil.descriptor.digest).digest).to.equal(evil.descriptor.digest);
        }
      }
    });

    it('is a claim until its own registry has said the same', async () => {
      const registry = memoryRegistry();
      const [right, wrong, gone] = [someImage(), someImage(), someImage()];
      await pushImage(registry, 'right', '1', right);
      await pushImage(registry, 'wrong', '1', someImage());
      const shared = {
        'registry.test/right:1': right,
        'registry.test/wrong:1': wrong,
        'registry.test/gone:1': gone,
      };
      await shareNames(registry, { ...shared, 'app:1': right });
      const cache = await scratch.cache({ registry: () => registry });
      const skipped = await cache.pull(REMOTE, { names: 'skip' });
      expect(skipped.names.claimed).to.have.length(4);
      expect(cache.isClaimedName('registry.test/right:1')).to.equal(true);
      registry.asked.clear();
      const { names: report } = await cache.pull(REMOTE);
      // One question for each name in full; a short one is nobody's to confirm.
      expect(registry.asked.get('resolve')).to.equal(3);
      expect(report.proven).to.deep.equal(['registry.test/right:1']);
      expect(report.claimed).to.deep.equal(['app:1', 'registry.test/gone:1', 'registry.test/wrong:1']);
      expect(names(cache)['registry.test/right:1']).to.equal(right.descriptor.digest);
      expect(names(cache)['registry.test/wrong:1']).to.equal(`${wrong.descriptor.digest} claimed`);
    });

    it('stays a claim over closing, commits and pushes, and is one again on the next machine', async () => {
      const registry = memoryRegistry();
      const image = someImage();
      await shareNames(registry, { 'registry.test/gone:1': image });
      const dir = join(await scratch.dir(), 'cache');
      const first = await scratch.cache({ dir, registry: () => registry });
      await first.pull(REMOTE);
      await first.close();
      const second = await scratch.cache({ dir, registry: () => registry });
      expect(second.isClaimedName('registry.test/gone:1')).to.equal(true);
      await second.push('registry.test/team/other:main');
      const third = await scratch.cache({ registry: () => registry });
      await third.pull('registry.test/team/other:main', { names: 'skip' });
      expect(third.isClaimedName('registry.test/gone:1')).to.equal(true);
      await third.pull('registry.test/team/other:main', { names: 'trust' });
      expect(third.isClaimedName('registry.test/gone:1')).to.equal(false);
    });

    it('moves when its registry says so, unless the image is pinned', async () => {
      for (const pinned of [false, true]) {
        const registry = memoryRegistry();
        const [old, next] = [someImage(), someImage()];
        await shareNames(registry, { 'registry.test/moving:1': old });
        const cache = await scratch.cache({ registry: () => registry });
        await cache.pull(REMOTE, { names: 'skip' });
        if (pinned) await cache.pin('registry.test/moving:1');
        await shareNames(registry, { 'registry.test/moving:1': next });
        await cache.pull(REMOTE, { names: 'skip' });
        expect(cache.image('registry.test/moving:1').digest).to.equal(old.descriptor.digest);
        await pushImage(registry, 'moving', '1', next);
        await cache.pull(REMOTE);
        expect(cache.image('registry.test/moving:1').digest).to.equal(
          (pinned ? old : next).descriptor.digest,
        );
      }
    });

    it('is none once the user adds it', async () => {
      const registry = memoryRegistry();
      const image = someImage();
      await shareNames(registry, { [APP]: image });
      await pushImage(registry, 'app', '1', image);
      const cache = await scratch.cache({ registry: () => registry });
      await cache.pull(REMOTE, { names: 'skip' });
      expect(cache.isClaimedName(APP)).to.equal(true);
      await cache.add(APP);
      expect(cache.isClaimedName(APP)).to.equal(false);
    });

    it('is no tag of the cache as a registry, nor of a mirror whose upstream is down', async () => {
      const registry = memoryRegistry();
      const image = someImage();
      await shareNames(registry, { [APP]: image });
      const cache = await scratch.cache({ registry: () => registry, staleIfError: true });
      await cache.pull(REMOTE, { names: 'skip' });
      const served = cache.registry();
      for (const repository of ['registry.test/app', 'app'])
        await failure('NOT_FOUND', () => served.resolve(repository, '1'));
      for await (const repository of served.repositories()) expect(repository).to.equal('layercache');
      await failure('NOT_FOUND', () => served.tags('registry.test/app')[Symbol.asyncIterator]().next());
      expect((await served.resolve('app', image.descriptor.digest)).digest).to.equal(image.descriptor.digest);
      await failure('NOT_FOUND', () => cache.mirror('registry.test').resolve('app', '1'));
    });

    it('makes this machine ask nobody in its own network for it, unless the cache came from there', async () => {
      const asked: string[] = [];
      const registry = memoryRegistry();
      const image = someImage();
      const near = [
        'localhost:5000/a:1',
        '127.0.0.1:8080/a:1',
        '10.0.0.7/a:1',
        '[::1]:80/a:1',
        'x.internal/a:1',
      ];
      await shareNames(registry, Object.fromEntries([...near, APP].map((name) => [name, image])));
      const cache = await scratch.cache({
        registry: (host) => {
          asked.push(host);
          return registry;
        },
      });
      await cache.pull(REMOTE);
      expect([...new Set(asked)]).to.deep.equal(['registry.test']);
      asked.length = 0;
      const inside = await scratch.cache({
        registry: (host) => {
          asked.push(host);
          return registry;
        },
      });
      await inside.pull('localhost:5000/team/cache:main');
      expect([...new Set(asked)]).to.include.members([
        '127.0.0.1:8080',
        '10.0.0.7',
        '[::1]:80',
        'x.internal',
      ]);
    });
  });

  it('inside an image names nothing: two indexes whose children have one name are two images', async () => {
    const registry = memoryRegistry();
    const added: string[] = [];
    for (const formula of ['foo', 'bar']) {
      const child = someImage();
      await pushImage(registry, formula, undefined, child);
      const annotations = { [Annotation.refName]: '1.0.x86_64_linux' };
      const manifests = [{ ...child.descriptor, annotations }];
      const bytes = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: MediaType.index, manifests }));
      await registry.pushManifest(formula, MediaType.index, bytes, { tag: '1' });
      added.push(`registry.test/${formula}:1`);
    }
    const cache = await scratch.cache({ registry: () => registry });
    for (const name of added) await cache.add(name, { platform: 'all' });
    expect(Object.keys(names(cache)).sort()).to.deep.equal(added.sort());
    await cache.remove('registry.test/foo:1');
    expect(Object.keys(names(cache))).to.deep.equal(['registry.test/bar:1']);
    await bytesOf(cache.blob(cache.image('registry.test/bar:1').digest));
  });
});
