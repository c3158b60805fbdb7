import { randomBytes } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { gzipSync } from 'node:zlib';
import { setTimeout as delay } from 'node:timers/promises';
import { expect } from 'chai';
import { Annotation, MediaType, digestOf, type Descriptor, type LogFields } from '@layercache/oci';
import { MemoryRegistry, type FetchedBlob } from '@layercache/registry';
import { parsePlatform, type LayerCache } from '../src/index.js';
import {
  imageOf,
  layerOf,
  pushImage,
  pushIndex,
  tarOf,
  type BuiltImage,
  type BuiltLayer,
} from './image-builder.js';
import { Scratch, bytesOf, counted, failure, filesBelow, memoryRegistry } from './test-cache.js';

describe('adding an image', () => {
  const scratch = new Scratch();
  afterEach(() => scratch.clean());

  const someLayer = (bytes = 20_000): BuiltLayer => layerOf(tarOf({ data: randomBytes(bytes) }));

  it('takes every layer once, and nothing again the second time', async () => {
    const registry = memoryRegistry();
    const [one, two] = [someLayer(), someLayer()];
    await pushImage(registry, 'app', '1', imageOf([one, two, one]));
    const cache = await scratch.cache({ registry: () => registry });
    registry.asked.clear();
    const added = await cache.add('registry.test/app:1');
    expect(registry.asked.get('fetchBlob')).to.equal(3);
    expect(added.layers.map((layer) => layer.digest)).to.have.members([
      one.descriptor.digest,
      two.descriptor.digest,
    ]);
    registry.asked.clear();
    const again = await cache.add('registry.test/app:1');
    expect(Object.fromEntries(registry.asked)).to.deep.equal({ resolve: 1 });
    expect(again.fetched).to.equal(0);
    expect(again.descriptor.digest).to.equal(added.descriptor.digest);
  });

  it('fetches only the layers that no other image brought', async () => {
    const registry = memoryRegistry();
    const [base, one, two] = [someLayer(), someLayer(), someLayer()];
    await pushImage(registry, 'one', '1', imageOf([base, one]));
    await pushImage(registry, 'two', '1', imageOf([base, two]));
    const cache = await scratch.cache({ registry: () => registry });
    await cache.add('registry.test/one:1');
    const added = await cache.add('registry.test/two:1');
    expect(added.reused).to.equal(base.descriptor.size);
  });

  it('shares one download between callers at the same time', async () => {
    const registry = memoryRegistry();
    const layer = someLayer();
    await pushImage(registry, 'app', '1', imageOf([layer]));
    const cache = await scratch.cache({ registry: () => registry });
    await Promise.all([1, 2, 3].map(() => cache.add('registry.test/app:1')));
    expect(registry.asked.get('fetchBlob')).to.equal(2);
  });

  it('has no more blobs under way than its concurrency says', async () => {
    const memory = new MemoryRegistry();
    await pushImage(memory, 'app', '1', imageOf(Array.from({ length: 10 }, () => someLayer(3000))));
    let [running, most] = [0, 0];
    const registry = new Proxy(memory, {
      get(target, name) {
        if (name !== 'fetchBlob') {
          const value: unknown = Reflect.get(target, name);
          return typeof value === 'function' ? (value.bind(target) as unknown) : value;
        }
        return async (...args: Parameters<MemoryRegistry['fetchBlob']>): Promise<FetchedBlob> => {
          running += 1;
          most = Math.max(most, running);
          await delay(5);
          const fetched = await target.fetchBlob(...args);
          fetched.body.once('close', () => (running -= 1));
          return fetched;
        };
      },
    });
    const cache = await scratch.cache({ registry: () => registry, concurrency: 3 });
    await cache.add('registry.test/app:1');
    expect(most).to.equal(3);
  });

  describe('of an index', () => {
    const on = (platform: string): BuiltImage =>
      imageOf([someLayer()], { platform: parsePlatform(platform) });
    const images = { amd64: on('linux/amd64'), arm64: on('linux/arm64'), arm: on('linux/arm/v7') };

    async function cacheAndRegistry(): Promise<{ cache: LayerCache; index: Descriptor }> {
      const registry = memoryRegistry();
      const index = await pushIndex(registry, 'app', '1', Object.values(images));
      return { cache: await scratch.cache({ registry: () => registry }), index };
    }

    it('takes the one for the platform', async () => {
      const { cache } = await cacheAndRegistry();
      const added = await cache.add('registry.test/app:1', { platform: parsePlatform('linux/arm64') });
      expect(added.descriptor.digest).to.equal(images.arm64.descriptor.digest);
      expect(cache.has(images.amd64.layers[0]!.diffID)).to.equal(false);
    });

    it('takes all, under the digest that the index has everywhere', async () => {
      const { cache, index } = await cacheAndRegistry();
      const added = await cache.add('registry.test/app:1', { platform: 'all' });
      expect(added.descriptor.digest).to.equal(index.digest);
      for (const image of Object.values(images)) {
        expect(await bytesOf(cache.layer(image.layers[0]!.diffID).uncompressed())).to.deep.equal(
          image.layers[0]!.tar,
        );
      }
    });

    it('takes several as an index of those', async () => {
      const { cache } = await cacheAndRegistry();
      const platform = [parsePlatform('linux/amd64'), parsePlatform('linux/arm/v7')];
      const added = await cache.add('registry.test/app:1', { platform });
      const index = JSON.parse((await bytesOf(cache.blob(added.descriptor.digest))).toString()) as {
        manifests: Descriptor[];
      };
      expect(index.manifests.map((each) => each.digest)).to.deep.equal([
        images.amd64.descriptor.digest,
        images.arm.descriptor.digest,
      ]);
      expect(cache.has(images.arm64.descriptor.digest)).to.equal(false);
    });

    it('without the platform is an error that says what there is', async () => {
      const { cache } = await cacheAndRegistry();
      const error = await failure('PLATFORM_NOT_FOUND', () =>
        cache.add('registry.test/app:1', { platform: parsePlatform('windows/amd64') }),
      );
      expect(error.message).to.contain('linux/amd64, linux/arm64, linux/arm/v7');
    });
  });

  it('leaves foreign layers where they are, with a warning', async () => {
    const registry = memoryRegistry();
    const foreign: Descriptor = {
      mediaType: MediaType.dockerForeignLayerGzip,
      digest: digestOf('somewhere else'),
      size: 1000,
      urls: ['https://vendor.example/layer'],
    };
    const layer = someLayer();
    await pushImage(
      registry,
      'app',
      '1',
      imageOf([layer], { foreign: [foreign], mediaType: MediaType.dockerManifest }),
    );
    const warnings: LogFields[] = [];
    const logger = {
      debug: () => undefined,
      info: () => undefined,
      warn: (fields: LogFields) => warnings.push(fields),
      error: () => undefined,
    };
    const cache = await scratch.cache({ registry: () => registry, logger });
    const added = await cache.add('registry.test/app:1');
    expect(added.skipped.map((each) => each.digest)).to.deep.equal([foreign.digest]);
    expect(warnings.map((fields) => fields.digest)).to.deep.equal([foreign.digest]);
    expect(cache.has(foreign.digest)).to.equal(false);
    expect(cache.has(layer.diffID)).to.equal(true);
  });

  it('goes on where an interrupted one stopped', async () => {
    const memory = new MemoryRegistry();
    const layer = layerOf(tarOf({ data: randomBytes(900_000) }));
    await pushImage(memory, 'app', '1', imageOf([layer]));
    const abort = new AbortController();
    const dir = join(await scratch.dir(), 'cache');
    const first = await scratch.cache({ dir, registry: () => memory });
    await failure('ABORTED', () =>
      first.add('registry.test/app:1', {
        signal: abort.signal,
        onProgress: ({ descriptor, received }) => {
          if (descriptor.digest === layer.descriptor.digest && received > 400_000) abort.abort();
        },
      }),
    );
    await first.close();
    const registry = counted(memory);
    const second = await scratch.cache({ dir, registry: () => registry });
    const added = await second.add('registry.test/app:1');
    expect(added.fetched).to.be.lessThan(600_000);
    expect(await bytesOf(second.blob(layer.descriptor.digest))).to.deep.equal(layer.bytes);
    expect((await filesBelow(dir)).filter((file) => file.includes('ingest/'))).to.deep.equal([]);
  });

  it('of which one layer cannot be had stores no image, but keeps the layers that came', async () => {
    const memory = new MemoryRegistry();
    const [good, bad] = [someLayer(), someLayer()];
    await pushImage(memory, 'app', '1', imageOf([good, bad]));
    await memory.deleteBlob('app', bad.descriptor.digest);
    const cache = await scratch.cache({ registry: () => memory, concurrency: 1 });
    await failure('NOT_FOUND', () => cache.add('registry.test/app:1'));
    expect([...cache.images()]).to.deep.equal([]);
    expect(await bytesOf(cache.blob(good.descriptor.digest))).to.deep.equal(good.bytes);
  });

  for (const [what, change] of [
    ['other bytes', (bytes: Uint8Array) => Buffer.from(bytes).fill(7, 100, 110)],
    ['less', (bytes: Uint8Array) => bytes.subarray(0, bytes.length - 10)],
    ['more', (bytes: Uint8Array) => Buffer.concat([bytes, Buffer.alloc(10)])],
  ] as const) {
    it(`of which a registry sends ${what} stores none of it`, async () => {
      const layer = someLayer();
      const memory = new MemoryRegistry();
      await pushImage(memory, 'app', '1', imageOf([layer]));
      const cache = await scratch.cache({
        registry: () =>
          Object.assign(Object.create(memory) as MemoryRegistry, {
            resolve: memory.resolve.bind(memory),
            fetchManifest: memory.fetchManifest.bind(memory),
            fetchBlob: async (...args: Parameters<MemoryRegistry['fetchBlob']>): Promise<FetchedBlob> => {
              const fetched = await memory.fetchBlob(...args);
              if (args[1] !== layer.descriptor.digest) return fetched;
              return { ...fetched, body: Readable.from([change(layer.bytes)]) };
            },
          }),
      });
      const error = await failure('DIGEST_MISMATCH', () => cache.add('registry.test/app:1'));
      expect(error.message).to.contain(layer.descriptor.digest);
      await failure('NOT_FOUND', () => cache.blob(layer.descriptor.digest));
      expect([...cache.images()]).to.deep.equal([]);
    });
  }

  it('whose config has another number of diffIDs than layers is refused', async () => {
    const registry = memoryRegistry();
    await pushImage(
      registry,
      'app',
      '1',
      imageOf([someLayer(), someLayer()], { diffIDs: [digestOf('one')] }),
    );
    const cache = await scratch.cache({ registry: () => registry });
    await failure('DOCUMENT_INVALID', () => cache.add('registry.test/app:1'));
  });

  it('that claims another diffID for a plain tar is refused', async () => {
    const registry = memoryRegistry();
    const plain = layerOf(tarOf({ a: 'b' }), MediaType.layer);
    await pushImage(registry, 'app', '1', imageOf([plain], { diffIDs: [digestOf('other')] }));
    const cache = await scratch.cache({ registry: () => registry });
    const error = await failure('DIFFID_MISMATCH', () => cache.add('registry.test/app:1'));
    expect(error.message).to.contain(plain.diffID).and.to.contain(digestOf('other'));
  });

  it('that disagrees with another on the diffID of a layer is settled by decompressing it', async () => {
    const layer = someLayer();
    for (const order of [
      ['lie', 'truth'],
      ['truth', 'lie'],
    ]) {
      const registry = memoryRegistry();
      await pushImage(registry, 'lie', '1', imageOf([layer], { diffIDs: [digestOf('lie')] }));
      await pushImage(registry, 'truth', '1', imageOf([layer]));
      const cache = await scratch.cache({ registry: () => registry });
      await cache.add(`registry.test/${order[0]!}:1`);
      await cache.add(`registry.test/${order[1]!}:1`).catch((error: unknown) => {
        expect(String(error)).to.contain(digestOf('lie')).and.to.contain(layer.diffID);
      });
      expect(cache.layer(layer.descriptor.digest).diffID).to.equal(layer.diffID);
      expect(cache.layer(layer.descriptor.digest).proven).to.equal(true);
      await failure('NOT_FOUND', () => cache.layer(digestOf('lie')));
    }
  });

  it('keeps the name the image has, or the one it is given', async () => {
    const registry = memoryRegistry();
    await pushImage(registry, 'library/app', '1', imageOf([someLayer()]));
    const cache = await scratch.cache({ registry: () => registry });
    await cache.add('app:1');
    await cache.add('app:1', { name: 'mine:2' });
    expect([...cache.images()].map((image) => image.name)).to.deep.equal([
      'docker.io/library/app:1',
      'mine:2',
    ]);
    expect(cache.image('app:1').annotations?.[Annotation.refName]).to.equal('docker.io/library/app:1');
  });

  it('moves its name to the image that the registry has under it now', async () => {
    const registry = memoryRegistry();
    const [old, fresh] = [imageOf([someLayer()]), imageOf([someLayer()])];
    await pushImage(registry, 'app', 'latest', old);
    const cache = await scratch.cache({ registry: () => registry });
    await cache.add('registry.test/app');
    await pushImage(registry, 'app', 'latest', fresh);
    await cache.add('registry.test/app');
    expect(cache.image('registry.test/app').digest).to.equal(fresh.descriptor.digest);
    expect([...cache.images()]).to.have.length(1);
    const { manifests } = JSON.parse(await readFile(join(cache.dir, 'index.json'), 'utf8')) as {
      manifests: Descriptor[];
    };
    expect(
      manifests.filter((each) => each.annotations?.[Annotation.refName] === 'registry.test/app:latest'),
    ).to.have.length(1);
  });
});

describe('adding from files', () => {
  const scratch = new Scratch();
  afterEach(() => scratch.clean());
  const layers = [
    layerOf(tarOf({ a: 'one' })),
    layerOf(tarOf({ b: randomBytes(70_000) }), MediaType.layerZstd),
  ];

  async function sourceCache(): Promise<LayerCache> {
    const registry = memoryRegistry();
    await pushImage(registry, 'app', '1', imageOf(layers));
    const cache = await scratch.cache({ registry: () => registry });
    await cache.add('registry.test/app:1');
    return cache;
  }

  const expectLayers = async (cache: LayerCache): Promise<void> => {
    for (const layer of layers) {
      expect(await bytesOf(cache.layer(layer.diffID).uncompressed())).to.deep.equal(layer.tar);
    }
  };

  it('takes an image of another layout, by name or because it is the only one', async () => {
    const source = await sourceCache();
    const dir = join(await scratch.dir(), 'out');
    await source.export('registry.test/app:1', `oci:${dir}:app`);
    for (const name of [`oci:${dir}`, `oci:${dir}:app`]) {
      const cache = await scratch.cache();
      expect((await cache.add(name)).name).to.equal('app');
      await expectLayers(cache);
    }
  });

  it('takes an image of an OCI archive', async () => {
    const source = await sourceCache();
    const file = join(await scratch.dir(), 'out.tar');
    await source.export('registry.test/app:1', `oci-archive:${file}`);
    const cache = await scratch.cache();
    const added = await cache.add(`oci-archive:${file}`);
    expect(added.descriptor.digest).to.equal(source.image('registry.test/app:1').digest);
    expect(added.name).to.equal('registry.test/app:1');
    await expectLayers(cache);
  });

  it('takes an image of a Docker archive, whose layers are tars', async () => {
    const source = await sourceCache();
    const file = join(await scratch.dir(), 'out.tar');
    await source.export('registry.test/app:1', `docker-archive:${file}`);
    const cache = await scratch.cache();
    const added = await cache.add(`docker-archive:${file}`);
    expect(added.name).to.equal('registry.test/app:1');
    expect(added.layers.map((layer) => layer.digest)).to.deep.equal(layers.map((layer) => layer.diffID));
    await expectLayers(cache);
  });

  it('takes a Docker archive whose layers are compressed, as newer Dockers write them', async () => {
    const tar = tarOf({ c: 'three' });
    const gzip = gzipSync(tar);
    const config = JSON.stringify({
      os: 'linux',
      architecture: 'amd64',
      rootfs: { type: 'layers', diff_ids: [digestOf(tar)] },
    });
    const manifest = JSON.stringify([{ Config: 'c.json', RepoTags: ['new:1', 'new:2'], Layers: ['l.tar'] }]);
    const file = join(await scratch.dir(), 'docker.tar');
    await writeFile(file, tarOf({ 'manifest.json': manifest, 'c.json': config, 'l.tar': gzip }));
    const cache = await scratch.cache();
    await cache.add(`docker-archive:${file}`);
    expect(cache.layer(digestOf(tar)).digests).to.deep.equal([digestOf(gzip)]);
    expect(await bytesOf(cache.layer(digestOf(tar)).uncompressed())).to.deep.equal(tar);
  });

  it('says what is wrong with what is not there, or not what it is said to be', async () => {
    const dir = await scratch.dir();
    const cache = await scratch.cache();
    await writeFile(join(dir, 'text'), 'no archive'.repeat(100));
    await writeFile(join(dir, 'gzip'), gzipSync(Buffer.alloc(5000)));
    await writeFile(join(dir, 'other.tar'), tarOf({ file: 'x' }));
    await failure('NOT_FOUND', () => cache.add(`oci:${dir}/nowhere`));
    await failure('LAYOUT_INVALID', () => cache.add(`oci:${dir}`));
    await failure('NOT_FOUND', () => cache.add(`oci-archive:${dir}/nowhere`));
    await failure('ARCHIVE_INVALID', () => cache.add(`oci-archive:${dir}/text`));
    expect((await failure('ARCHIVE_INVALID', () => cache.add(`oci-archive:${dir}/gzip`))).message).to.contain(
      'gzip',
    );
    await failure('ARCHIVE_INVALID', () => cache.add(`oci-archive:${dir}/other.tar`));
    await failure('ARCHIVE_INVALID', () => cache.add(`docker-archive:${dir}/other.tar`));
    await failure('REFERENCE_INVALID', () => cache.add('UPPER CASE'));
  });

  it('refuses an archive whose blob is not its digest, and one that is cut short', async () => {
    const source = await sourceCache();
    const file = join(await scratch.dir(), 'out.tar');
    await source.export('registry.test/app:1', `oci-archive:${file}`);
    const bytes = await readFile(file);
    const at = bytes.indexOf(layers[1]!.bytes.subarray(20_000, 20_100));
    const flipped = Buffer.from(bytes);
    flipped[at] = (flipped[at] ?? 0) ^ 1;
    await writeFile(file, flipped);
    await failure('DIGEST_MISMATCH', async () => (await scratch.cache()).add(`oci-archive:${file}`));
    await writeFile(file, bytes.subarray(0, at));
    await failure('ARCHIVE_INVALID', async () => (await scratch.cache()).add(`oci-archive:${file}`));
  });
});
