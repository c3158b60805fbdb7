import { expect } from 'chai';
import { MediaType, digestOf, type Descriptor } from '@layercache/oci';
import { RegistryError, forward, type Registry } from '@layercache/registry';
import { parseManifest } from '../../src/images/manifest.js';
import { imageOf, layerOf, pushImage, tarOf, type BuiltImage } from '../image-builder.js';
import { Scratch, failure, memoryRegistry } from '../test-cache.js';

const config = { mediaType: MediaType.config, digest: digestOf('config'), size: 6 };
const layer = { mediaType: MediaType.layerGzip, digest: digestOf('layer'), size: 5 };
const child = { mediaType: MediaType.manifest, digest: digestOf('child'), size: 5 };

function parse(mediaType: string, document: object): unknown {
  const bytes = Buffer.from(JSON.stringify({ schemaVersion: 2, ...document }));
  return parseManifest({ mediaType, digest: digestOf(bytes), size: bytes.length }, bytes);
}

describe('a document is refused, with the field that is wrong, when it', () => {
  const refused: [string, string, object, RegExp][] = [
    [
      'says that it is another kind',
      MediaType.index,
      { mediaType: MediaType.manifest, manifests: [] },
      /mediaType: it says/,
    ],
    [
      'says that it is another kind of image',
      MediaType.manifest,
      { mediaType: MediaType.dockerManifest, config, layers: [] },
      /mediaType: it says/,
    ],
    ['is two images', MediaType.manifest, { config, layers: [], manifests: [child] }, /: manifests: /],
    [
      'has a platform with control characters',
      MediaType.index,
      { manifests: [child, { ...child, platform: { os: 'linux\u001b', architecture: 'x' } }] },
      /manifests\.1\.platform\.os: /,
    ],
    [
      'has a platform without end',
      MediaType.index,
      { manifests: [{ ...child, platform: { os: 'linux', architecture: 'x'.repeat(5000) } }] },
      /manifests\.0\.platform\.architecture: /,
    ],
    [
      'has more features than there are',
      MediaType.index,
      {
        manifests: [
          { ...child, platform: { os: 'a', architecture: 'b', 'os.features': Array(65).fill('c') } },
        ],
      },
      /manifests\.0\.platform\.os\.features: /,
    ],
    [
      'has a file as a layer’s address',
      MediaType.manifest,
      { config, layers: [{ ...layer, urls: ['file:///etc'] }] },
      /layers\.0\.urls\.0: /,
    ],
    [
      'has a password in a layer’s address',
      MediaType.manifest,
      { config, layers: [{ ...layer, urls: ['https://a.example/', 'https://u:p@a.example/'] }] },
      /layers\.0\.urls\.1: /,
    ],
    [
      'has more addresses than are looked at',
      MediaType.manifest,
      { config, layers: [{ ...layer, urls: Array(33).fill('https://a.example/') }] },
      /layers\.0\.urls: /,
    ],
    [
      'has an artifact type without end',
      MediaType.manifest,
      { config: { ...config, artifactType: 'x'.repeat(300) }, layers: [] },
      /config\.artifactType: /,
    ],
    [
      'has a media type that is none',
      MediaType.manifest,
      { config, layers: [{ ...layer, mediaType: 'x' }] },
      /layers\.0\.mediaType: /,
    ],
    [
      'has a size that is none',
      MediaType.manifest,
      { config: { ...config, size: 2 ** 60 }, layers: [] },
      /config\.size: /,
    ],
  ];
  for (const [name, mediaType, document, message] of refused) {
    it(name, async () => {
      const error = await failure('DOCUMENT_INVALID', () => parse(mediaType, document));
      expect(error.message)
        .to.match(message)
        .and.match(/sha256:[0-9a-f]{64}/);
    });
  }

  it('is nested in more indexes than anybody uses; one that lists an image a thousand times is read once', async () => {
    const registry = memoryRegistry();
    const scratch = new Scratch();
    try {
      const image = imageOf([layerOf(tarOf({ a: 'b' }))]);
      await pushImage(registry, 'deep', undefined, image);
      let inner: Descriptor = image.descriptor;
      for (let depth = 1; depth <= 9; depth++) {
        const manifests = Array.from({ length: 1000 }, () => inner);
        const bytes = Buffer.from(
          JSON.stringify({ schemaVersion: 2, mediaType: MediaType.index, manifests }),
        );
        inner = await registry.pushManifest('deep', MediaType.index, bytes, { tag: `${depth}` });
      }
      const cache = await scratch.cache({ registry: () => registry });
      await cache.add('registry.test/deep:8', { platform: 'all' });
      await cache.sync();
      await cache.push('registry.test/team/cache:main');
      expect((await cache.verify()).problems).to.deep.equal([]);
      const before = [...cache.entries()];
      const error = await failure('DOCUMENT_INVALID', () =>
        cache.add('registry.test/deep:9', { platform: 'all' }),
      );
      expect(error.message).to.contain('registry.test/deep:9').and.contain('nested deeper than 8');
      expect([...cache.entries()]).to.deep.equal(before);
    } finally {
      await scratch.clean();
    }
  }).timeout(60_000);
});

describe('one image that a registry refuses', () => {
  const scratch = new Scratch();
  afterEach(() => scratch.clean());
  const good = imageOf([layerOf(tarOf({ good: '1' }))]);
  const odd = imageOf([layerOf(tarOf({ odd: '1' }))]);

  /** A registry that does not take one manifest. */
  function without(registry: Registry, { bytes }: BuiltImage, status: number): Registry {
    return {
      ...forward(registry),
      pushManifest: (repository, mediaType, pushed, options) => {
        if (repository === 'team/cache' && digestOf(pushed) === digestOf(bytes))
          throw new RegistryError(status === 403 ? 'UNAUTHORIZED' : 'REGISTRY', 'refused', { status });
        return registry.pushManifest(repository, mediaType, pushed, options);
      },
    };
  }

  it('is skipped with its name, and everything else is pushed', async () => {
    for (const status of [400, 403, 413, 415]) {
      const registry = memoryRegistry();
      await pushImage(registry, 'good', '1', good);
      await pushImage(registry, 'odd', '1', odd);
      const cache = await scratch.cache({ registry: () => without(registry, odd, status) });
      await cache.add('registry.test/good:1');
      await cache.add('registry.test/odd:1');
      const pushed = await cache.push('registry.test/team/cache:main');
      expect(pushed.skipped.map(({ name, digest }) => [name, digest])).to.deep.equal([
        ['registry.test/odd:1', odd.descriptor.digest],
      ]);
      const other = await scratch.cache({ registry: () => registry });
      const pulled = await other.pull('registry.test/team/cache:main');
      expect(pulled.skipped).to.deep.equal([]);
      expect([...other.images()].map(({ name }) => name)).to.deep.equal(['registry.test/good:1']);
    }
  });

  it('is no reason to go on when the registry is down', async () => {
    const registry = memoryRegistry();
    await pushImage(registry, 'odd', '1', odd);
    const cache = await scratch.cache({ registry: () => without(registry, odd, 503) });
    await cache.add('registry.test/odd:1');
    await failure('REGISTRY', () => cache.push('registry.test/team/cache:main'));
  });
});
