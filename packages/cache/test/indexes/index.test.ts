import { randomBytes } from 'node:crypto';
import { readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import fc from 'fast-check';
import { Annotation, MediaType, digestHex, digestOf, type Digest } from '@layercache/oci';
import { decodeZtoc } from '@layercache/layer';
import type { Registry } from '@layercache/registry';
import type { LayerCache, LayerCacheOptions } from '../../src/index.js';
import {
  imageOf,
  layerOf,
  pushImage,
  pushIndex,
  sparseTar,
  tarOf,
  type BuiltLayer,
  type ImageChoices,
} from '../image-builder.js';
import { Scratch, bytesOf, failure, filesBelow, memoryRegistry } from '../test-cache.js';

describe('the indexes of an image', () => {
  const scratch = new Scratch();
  afterEach(() => scratch.clean());

  const layer = (name: string, mediaType: string = MediaType.layerGzip): BuiltLayer =>
    layerOf(tarOf({ [name]: randomBytes(50_000), 'etc/which': name }), mediaType);

  async function cacheWith(
    layers: readonly BuiltLayer[],
    choices: ImageChoices & LayerCacheOptions = {},
    registry: Registry = memoryRegistry(),
  ): Promise<LayerCache> {
    await pushImage(registry, 'app', '1', imageOf(layers, choices));
    const cache = await scratch.cache({ ...choices, registry: () => registry });
    await cache.add('registry.test/app:1');
    return cache;
  }

  const blobFile = (cache: LayerCache, digest: Digest): string =>
    join(cache.dir, 'blobs', 'sha256', digestHex(digest));

  it('are made once, a repeated layer once, and found again afterwards without reading a layer', async () => {
    const [one, two] = [layer('one'), layer('two')];
    const cache = await cacheWith([one, two, one]);
    const cold = await cache.index('registry.test/app:1');
    expect(cold.layers.map(({ digest }) => digest)).to.deep.equal([
      one.descriptor.digest,
      two.descriptor.digest,
    ]);
    expect(cold).to.include({ hits: 0, files: 4, bytesRead: one.bytes.length + two.bytes.length });
    // Not there to be read: so nothing can have been.
    for (const { descriptor } of [one, two]) await rm(blobFile(cache, descriptor.digest));
    const warm = await cache.index('registry.test/app:1');
    expect(warm).to.deep.equal({
      ...cold,
      hits: 2,
      bytesRead: 0,
      layers: cold.layers.map((each) => ({ ...each, cached: true })),
    });
  });

  it('are blobs of their own that say which layer they are of', async () => {
    const one = layer('one');
    const cache = await cacheWith([one]);
    const { layers } = await cache.index('registry.test/app:1');
    const [{ indexDigest, diffID }] = layers as [(typeof layers)[0]];
    expect(diffID).to.equal(one.diffID);
    const [entry] = cache.lookup(indexDigest);
    expect(entry?.descriptor).to.deep.equal({
      mediaType: 'application/octet-stream',
      digest: indexDigest,
      size: (await stat(blobFile(cache, indexDigest))).size,
      annotations: {
        [Annotation.sociLayerDigest]: one.descriptor.digest,
        [Annotation.diffID]: one.diffID,
        [Annotation.files]: '2',
      },
    });
    expect(decodeZtoc(await bytesOf(cache.blob(indexDigest))).entries.map(({ name }) => name)).to.deep.equal([
      'one',
      'etc/which',
    ]);
  });

  it('are made again when they are gone, or went bad', async () => {
    const one = layer('one');
    const cache = await cacheWith([one]);
    const first = await cache.index(one.diffID);
    const file = blobFile(cache, first.layers[0]?.indexDigest ?? one.diffID);
    const whole = await readFile(file);
    await rm(file);
    expect((await cache.index(one.diffID)).hits).to.equal(0);
    expect(await readFile(file)).to.deep.equal(whole);
    await writeFile(file, whole.fill(1, 100, 200));
    expect((await cache.layerIndex(one.diffID)).digest).to.equal(first.layers[0]?.indexDigest);
    expect(digestOf(await readFile(file))).to.equal(first.layers[0]?.indexDigest);
  });

  it('are the same bytes in every cache and every run, however many are made at a time', async () => {
    const layers = ['one', 'two', 'three'].map((name) => layer(name));
    const digests = [];
    for (const concurrency of [1, 2, 4, undefined]) {
      const cache = await cacheWith(layers);
      const report = await cache.index('registry.test/app:1', { concurrency, spanSize: 20_000 });
      digests.push(report.layers.map(({ indexDigest }) => indexDigest));
    }
    for (const others of digests) expect(others).to.deep.equal(digests[0]);
  });

  it('prove digest and diffID of each layer, in the same pass', async () => {
    const one = layer('one');
    const cache = await cacheWith([one]);
    expect(cache.layer(one.diffID).proven).to.equal(false);
    await cache.index('registry.test/app:1');
    expect(cache.layer(one.diffID).proven).to.equal(true);
    expect(cache.layer(one.descriptor.digest).proven).to.equal(true);
  });

  it('are not made of a layer whose claimed diffID is wrong, which is corrected', async () => {
    const one = layer('one');
    const wrong = digestOf('another tar');
    const cache = await cacheWith([one], { diffIDs: [wrong] });
    const error = await failure('DIFFID_MISMATCH', () => cache.index('registry.test/app:1'));
    expect(error.message).to.contain(wrong).and.to.contain(one.diffID);
    expect(
      [...cache.entries()].some(
        ({ descriptor }) => Annotation.sociLayerDigest in (descriptor.annotations ?? {}),
      ),
    ).to.equal(false);
    expect(cache.layer(one.descriptor.digest).diffID).to.equal(one.diffID);
    expect((await cache.index(one.descriptor.digest)).layers[0]?.diffID).to.equal(one.diffID);
    await failure('DIFFID_MISMATCH', () => cache.view('registry.test/app:1'));
  });

  it('are made of a layer by digest or diffID, whatever it is compressed with', async () => {
    for (const mediaType of [MediaType.layerGzip, MediaType.layerZstd, MediaType.layer]) {
      const one = layer('one', mediaType);
      const cache = await cacheWith([one]);
      const byDiffID = await cache.index(one.diffID);
      const byDigest = await cache.index(one.descriptor.digest);
      expect(byDiffID.layers[0]?.indexDigest).to.equal(byDigest.layers[0]?.indexDigest);
      expect([byDiffID.hits, byDigest.hits]).to.deep.equal([0, 1]);
      expect(byDiffID.bytesRead).to.equal(one.bytes.length);
      const index = await cache.layerIndex(one.diffID);
      const described = mediaType === MediaType.layerGzip ? one.descriptor.digest : one.diffID;
      expect(index.layer.digest).to.equal(described);
      expect(await bytesOf(cache.readRange(one.diffID, 500, 40_000))).to.deep.equal(
        Buffer.from(one.tar.subarray(500, 40_000)),
      );
    }
  });

  it('are those of one platform of an image index', async () => {
    const registry = memoryRegistry();
    const [amd, arm] = [layer('amd'), layer('arm')];
    await pushIndex(registry, 'app', '1', [
      imageOf([amd]),
      imageOf([arm], { platform: { os: 'linux', architecture: 'arm64' } }),
    ]);
    const cache = await scratch.cache({ registry: () => registry });
    await cache.add('registry.test/app:1', { platform: 'all' });
    const report = await cache.index('registry.test/app:1', {
      platform: { os: 'linux', architecture: 'arm64' },
    });
    expect(report.layers.map(({ digest }) => digest)).to.deep.equal([arm.descriptor.digest]);
    await failure('PLATFORM_NOT_FOUND', () =>
      cache.view('registry.test/app:1', { platform: { os: 'windows', architecture: 'amd64' } }),
    );
  });

  it('have the span size that is asked for', async () => {
    const one = layer('one');
    const cache = await cacheWith([one]);
    const first = await cache.layerIndex(one.diffID);
    const finer = await cache.layerIndex(one.diffID, { spanSize: 10_000 });
    expect(finer.ztoc.spanSize).to.equal(10_000);
    expect(finer.digest).not.to.equal(first.digest);
    expect((await cache.index(one.diffID, { spanSize: 10_000 })).hits).to.equal(1);
  });

  it('are asked for by several at once, by either name, and made once', async () => {
    const one = layer('one');
    const cache = await cacheWith([one]);
    let readings = 0;
    const onProgress = ({ state, read }: { state: string; read: number }): void => {
      if (state === 'done') readings += read;
    };
    const names = ['registry.test/app:1', one.descriptor.digest, one.diffID, one.diffID];
    const reports = await Promise.all(names.map((name) => cache.index(name, { onProgress })));
    expect(new Set(reports.map(({ layers }) => layers[0]?.indexDigest)).size).to.equal(1);
    expect(readings).to.equal(one.bytes.length);
  });

  it('stop at the first layer that is no good, and tell which', async () => {
    const [one, two] = [layer('one'), layer('two')];
    const cache = await cacheWith([one, two]);
    await writeFile(blobFile(cache, two.descriptor.digest), randomBytes(two.bytes.length));
    const error = await failure('DIGEST_MISMATCH', () => cache.index('registry.test/app:1'));
    expect(error.message).to.contain(two.descriptor.digest);
    expect(await cache.blobs.has(two.descriptor.digest)).to.equal(false);
  });

  it('are given up when they are no longer wanted, and nothing of them is kept', async () => {
    const one = layer('one');
    const cache = await cacheWith([one]);
    const abort = new AbortController();
    const onProgress = (): void => {
      abort.abort();
    };
    await failure('ABORTED', () => cache.index(one.diffID, { signal: abort.signal, onProgress }));
    expect(cache.layer(one.diffID).proven).to.equal(false);
    expect(cache.lookup(one.diffID)).to.have.lengthOf(1);
    await failure('USAGE', () => cache.index(one.diffID, { spanSize: 0 }));
  });

  it('are not of what nobody has', async () => {
    const cache = await cacheWith([layer('one')]);
    await failure('NOT_FOUND', () => cache.index('registry.test/other:1'));
    await failure('NOT_FOUND', () => cache.index(digestOf('no layer')));
    const signal = AbortSignal.abort();
    await failure('ABORTED', () => cache.index('registry.test/app:1', { signal }));
  });
});

describe('the view of an image', () => {
  const scratch = new Scratch();
  afterEach(() => scratch.clean());
  const big = randomBytes(200_000);
  const lower = layerOf(tarOf({ 'etc/name': 'lower', 'bin/big': big, gone: 'x', empty: '' }));
  const upper = layerOf(tarOf({ 'etc/name': 'upper', '.wh.gone': '' }), MediaType.layerZstd);

  async function cached(): Promise<LayerCache> {
    const registry = memoryRegistry();
    await pushImage(registry, 'app', '1', imageOf([lower, upper]));
    const cache = await scratch.cache({ registry: () => registry });
    await cache.add('registry.test/app:1');
    return cache;
  }

  it('has the files as the layers make them, and the time of the config', async () => {
    const view = await (await cached()).view('registry.test/app:1');
    expect([...view.merged.nodes()].map(({ path }) => path)).to.deep.equal([
      '',
      'bin',
      'bin/big',
      'empty',
      'etc',
      'etc/name',
    ]);
    expect(view.merged.find('')?.inode.mtime.seconds).to.equal(Date.parse('2024-01-01T00:00:00Z') / 1000);
  });

  it('opens files, whole and in part', async () => {
    const cache = await cached();
    const view = await cache.view('registry.test/app:1');
    expect((await bytesOf(view.open('/etc/name'))).toString()).to.equal('upper');
    expect(await bytesOf(view.open('bin/big'))).to.deep.equal(big);
    expect(await bytesOf(view.readRange('bin/big', 1000, 1500))).to.deep.equal(big.subarray(1000, 1500));
    expect(await bytesOf(view.readRange('bin/big', 199_990, 1e9))).to.deep.equal(big.subarray(199_990));
    expect(await bytesOf(view.open('empty'))).to.deep.equal(Buffer.alloc(0));
    expect(await bytesOf(cache.openFile('registry.test/app:1', 'bin/big'))).to.deep.equal(big);
  });

  it('opens any part of a file, one with holes too', async () => {
    const registry = memoryRegistry();
    const stored = randomBytes(9000);
    const layer = layerOf(sparseTar('holes', stored, [1000, 5000, 9000, 4000], 20_000));
    await pushImage(registry, 'app', '1', imageOf([layer]));
    const cache = await scratch.cache({ registry: () => registry });
    await cache.add('registry.test/app:1');
    await cache.index('registry.test/app:1', { spanSize: 2000 });
    const whole = Buffer.alloc(20_000);
    stored.copy(whole, 1000, 0, 5000);
    stored.copy(whole, 9000, 5000, 9000);
    const view = await cache.view('registry.test/app:1');
    expect(await bytesOf(view.open('holes'))).to.deep.equal(whole);
    await fc.assert(
      fc.asyncProperty(fc.nat(20_100), fc.nat(8000), async (start, size) => {
        const part = await bytesOf(view.readRange('holes', start, start + size));
        expect(part.equals(whole.subarray(start, start + size))).to.equal(true);
      }),
      { numRuns: 60 },
    );
  });

  it('says what is not there, and what is no file', async () => {
    const cache = await cached();
    await failure('NOT_FOUND', () => cache.openFile('registry.test/app:1', 'gone'));
    await failure('USAGE', () => cache.openFile('registry.test/app:1', 'etc'));
    const view = await cache.view('registry.test/app:1');
    await failure('USAGE', () => view.readRange('bin/big', 2, 1));
  });

  it('is there also where there is no room for the index of a gzip, or the tar of a zstd', async () => {
    const bigger = randomBytes(600_000);
    for (const [mediaType, hits] of [
      [MediaType.layerGzip, 0],
      [MediaType.layerZstd, 1],
    ] as const) {
      const registry = memoryRegistry();
      const layer = layerOf(tarOf({ 'bin/big': bigger }), mediaType);
      await pushImage(registry, 'app', '1', imageOf([layer]));
      const limits = { maxSize: layer.bytes.length + 200_000 };
      const cache = await scratch.cache({ registry: () => registry, limits });
      await cache.add('registry.test/app:1');
      const finer = { spanSize: 20_000 };
      await cache.index('registry.test/app:1', finer);
      expect((await cache.index('registry.test/app:1', finer)).hits).to.equal(hits);
      const view = await cache.view('registry.test/app:1');
      expect(await bytesOf(view.open('bin/big'))).to.deep.equal(bigger);
      expect(await bytesOf(view.readRange('bin/big', 5, 10))).to.deep.equal(bigger.subarray(5, 10));
      expect(await cache.blobState({ ...layer.descriptor, digest: layer.diffID })).not.to.equal('local');
    }
  });

  it('is extracted to a folder', async () => {
    const cache = await cached();
    const dir = join(await scratch.dir(), 'root');
    const view = await cache.view('registry.test/app:1');
    await view.extract(dir);
    expect(await filesBelow(dir)).to.deep.equal(['bin/big', 'empty', 'etc/name']);
    expect(await readFile(join(dir, 'bin/big'))).to.deep.equal(big);
    expect(await readFile(join(dir, 'etc/name'), 'utf8')).to.equal('upper');
  });
});
