import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import { MediaType, digestHex, parseImageManifest, type Descriptor } from '@layercache/oci';
import type { LayerCache } from '../../src/index.js';
import { imageOf, layerOf, pushImage, pushIndex, tarOf } from '../image-builder.js';
import { Scratch, bytesOf, failure, memoryRegistry } from '../test-cache.js';

const SOCI = 'application/vnd.amazon.soci.index.v1+json';

describe('the SOCI index of an image', () => {
  const scratch = new Scratch();
  afterEach(() => scratch.clean());
  const gzip = layerOf(tarOf({ one: 'in a gzip' }));
  const zstd = layerOf(tarOf({ two: 'in a zstd' }), MediaType.layerZstd);
  const tar = layerOf(tarOf({ three: 'in a tar' }), MediaType.layer);
  const image = imageOf([gzip, zstd, tar]);

  async function cached(): Promise<LayerCache> {
    const registry = memoryRegistry();
    await pushImage(registry, 'app', '1', image);
    const cache = await scratch.cache({ registry: () => registry });
    await cache.add('registry.test/app:1');
    return cache;
  }

  async function indexJson(dir: string): Promise<Descriptor[]> {
    const text = await readFile(join(dir, 'index.json'), 'utf8');
    return (JSON.parse(text) as { manifests: Descriptor[] }).manifests;
  }

  it('is a manifest with the image as its subject, and the index of each layer that SOCI can read', async () => {
    const cache = await cached();
    const descriptor = await cache.exportSoci('registry.test/app:1');
    expect(descriptor).to.include({ mediaType: MediaType.manifest, artifactType: SOCI });
    const manifest = parseImageManifest(await bytesOf(cache.blob(descriptor.digest)));
    const { mediaType, digest, size } = image.descriptor;
    expect(manifest.subject).to.deep.equal({ mediaType, digest, size });
    expect(manifest.config).to.deep.equal({
      mediaType: SOCI,
      digest: 'sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a',
      size: 2,
    });
    expect(manifest.layers.map((layer) => layer.annotations)).to.deep.equal(
      [gzip, tar].map((layer) => ({
        'com.amazon.soci.image-layer-digest': layer.descriptor.digest,
        'com.amazon.soci.image-layer-mediaType': layer.descriptor.mediaType,
      })),
    );
    const index = await cache.layerIndex(gzip.descriptor.digest);
    expect(manifest.layers[0]).to.include({ digest: index.digest, size: index.size });
    expect((await cache.exportSoci('registry.test/app:1')).digest).to.equal(descriptor.digest);
  });

  it('is a referrer of the image where the cache is a registry', async () => {
    const cache = await cached();
    const { digest } = await cache.exportSoci('registry.test/app:1');
    const referrers: Descriptor[] = [];
    for await (const each of cache.registry().referrers('registry.test/app', image.descriptor.digest))
      referrers.push(each);
    expect(referrers.map((each) => [each.digest, each.artifactType])).to.deep.equal([[digest, SOCI]]);
  });

  it('stands beside the image in a layout that it is exported to, with all it refers to', async () => {
    const cache = await cached();
    const dir = join(await scratch.dir(), 'out');
    await cache.export('registry.test/app:1', `oci:${dir}:app`, { soci: true });
    const manifests = await indexJson(dir);
    expect(new Set(manifests.map(({ digest }) => digest))).to.deep.equal(
      new Set([image.descriptor.digest, (await cache.exportSoci('registry.test/app:1')).digest]),
    );
    const soci = manifests.find(({ artifactType }) => artifactType === SOCI);
    if (soci === undefined) throw new Error('no SOCI index in the layout');
    expect(soci.annotations).to.equal(undefined);
    const blob = (digest: Descriptor['digest']): Promise<Buffer> =>
      readFile(join(dir, 'blobs', 'sha256', digestHex(digest)));
    const manifest = parseImageManifest(await blob(soci.digest));
    for (const { digest, size } of [manifest.config, ...manifest.layers])
      expect((await blob(digest)).length).to.equal(size);
    await failure('UNSUPPORTED', () =>
      cache.export('registry.test/app:1', `docker-archive:${dir}.tar`, { soci: true }),
    );
    await cache.export('registry.test/app:1', `oci-archive:${dir}.tar`, { soci: true });
    const again = await scratch.cache();
    await again.add(`oci-archive:${dir}.tar:registry.test/app:1`);
    expect(again.has(image.descriptor.digest)).to.equal(true);
  });

  it('is one for each platform of an image index, attestations left out', async () => {
    const registry = memoryRegistry();
    const attestation = imageOf([layerOf(tarOf({ a: 'b' }), 'application/vnd.in-toto+json')], {
      platform: { os: 'unknown', architecture: 'unknown' },
    });
    const arm = imageOf([tar], { platform: { os: 'linux', architecture: 'arm64' } });
    await pushIndex(registry, 'app', '1', [image, arm, attestation]);
    const cache = await scratch.cache({ registry: () => registry });
    await cache.add('registry.test/app:1', { platform: 'all' });
    const dir = join(await scratch.dir(), 'out');
    await cache.export('registry.test/app:1', `oci:${dir}:app`, { soci: true });
    expect((await indexJson(dir)).filter(({ artifactType }) => artifactType === SOCI)).to.have.lengthOf(2);
  });

  it('is refused when SOCI could read no layer', async () => {
    const registry = memoryRegistry();
    await pushImage(registry, 'app', '1', imageOf([zstd]));
    const cache = await scratch.cache({ registry: () => registry });
    await cache.add('registry.test/app:1');
    await failure('UNSUPPORTED', () => cache.exportSoci('registry.test/app:1'));
    const dir = join(await scratch.dir(), 'out');
    await failure('UNSUPPORTED', () => cache.export('registry.test/app:1', `oci:${dir}`, { soci: true }));
  });
});
