import { randomBytes } from 'node:crypto';
import { mkdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import type { LayerCache } from '../../src/index.js';
import { imageOf, layerOf, pushImage, tarOf, type BuiltLayer } from '../image-builder.js';
import { Scratch, bytesOf, memoryRegistry } from '../test-cache.js';
import { itWith, runTool, startRegistry } from './tools.js';

const NAME = 'registry.test/app:1';

describe('the cache on disk, in the hands of other tools', () => {
  const scratch = new Scratch();
  afterEach(() => scratch.clean());

  const content = randomBytes(30_000);
  const layers = [
    layerOf(tarOf({ 'etc/motd': 'hello\n', 'bin/data': content })),
    layerOf(tarOf({ 'srv/more': 'x' })),
  ];

  async function cacheWith(name: string, layers: readonly BuiltLayer[]): Promise<LayerCache> {
    const registry = memoryRegistry();
    await pushImage(registry, 'app', '1', imageOf(layers));
    const cache = await scratch.cache({ registry: () => registry });
    await cache.add(NAME, { name });
    return cache;
  }

  itWith(['skopeo'], 'skopeo inspect reads an image that we added', async () => {
    const cache = await cacheWith(NAME, layers);
    const inspected = JSON.parse(await runTool('skopeo', ['inspect', `oci:${cache.dir}:${NAME}`])) as {
      Digest: string;
      Layers: string[];
    };
    expect(inspected.Digest).to.equal(cache.image(NAME).digest);
    expect(inspected.Layers).to.deep.equal(layers.map((layer) => layer.descriptor.digest));
  });

  itWith(['umoci'], 'umoci unpacks an image that we added', async () => {
    const cache = await cacheWith(NAME, layers);
    const bundle = join(await scratch.dir(), 'bundle');
    await runTool('umoci', ['unpack', '--rootless', '--image', `${cache.dir}:${NAME}`, bundle]);
    expect(await readFile(join(bundle, 'rootfs/etc/motd'), 'utf8')).to.equal('hello\n');
    expect(await readFile(join(bundle, 'rootfs/bin/data'))).to.deep.equal(content);
    expect(await readFile(join(bundle, 'rootfs/srv/more'), 'utf8')).to.equal('x');
  });

  itWith(['umoci'], 'umoci lists our images, and not more than those', async () => {
    const cache = await cacheWith(NAME, layers);
    const listed = (await runTool('umoci', ['ls', '--layout', cache.dir])).trim().split('\n');
    expect(listed.sort()).to.deep.equal(['layercache', NAME].sort());
  });

  itWith(['regctl'], 'regctl reads an image and the cache index', async () => {
    const cache = await cacheWith('app', layers);
    const manifest = JSON.parse(
      await runTool('regctl', ['manifest', 'get', '--format', 'raw-body', `ocidir://${cache.dir}:app`]),
    ) as {
      layers: { digest: string }[];
    };
    expect(manifest.layers.map((layer) => layer.digest)).to.deep.equal(
      layers.map((layer) => layer.descriptor.digest),
    );
    const index = await runTool('regctl', [
      'manifest',
      'get',
      '--format',
      'raw-body',
      `ocidir://${cache.dir}:layercache`,
    ]);
    expect(index).to.contain('application/vnd.layercache.cache.v1');
  });

  itWith(['crane'], 'crane validates what we export', async () => {
    const cache = await cacheWith(NAME, layers);
    const file = join(await scratch.dir(), 'image.tar');
    await cache.export(NAME, `docker-archive:${file}`);
    expect(await runTool('crane', ['validate', '--tarball', file])).to.contain('PASS');
  });

  itWith(
    ['skopeo', 'docker-registry'],
    'an image that skopeo puts into our layout is found by both names, our entries intact',
    async () => {
      const other = [layerOf(tarOf({ other: randomBytes(9000) }))];
      const cache = await cacheWith(NAME, layers);
      await bytesOf(cache.layer(layers[0]!.diffID).uncompressed());
      await cache.close();

      const source = await cacheWith('other', other);
      await runTool('skopeo', ['copy', `oci:${source.dir}:other`, `oci:${cache.dir}:by-skopeo`]);

      const again = await scratch.cache({ dir: cache.dir });
      expect(await bytesOf(again.layer(other[0]!.diffID).uncompressed())).to.deep.equal(other[0]!.tar);
      expect(await bytesOf(again.layer(other[0]!.descriptor.digest).compressed())).to.deep.equal(
        other[0]!.bytes,
      );
      expect([...again.images()].map((image) => image.name)).to.deep.equal(['by-skopeo', NAME]);
      for (const layer of layers) {
        expect(await bytesOf(again.layer(layer.diffID).uncompressed())).to.deep.equal(layer.tar);
        expect(again.has(layer.descriptor.digest)).to.equal(true);
      }
      expect(again.layer(layers[0]!.diffID).proven).to.equal(true);
    },
  );

  itWith(['skopeo'], 'an image that skopeo puts into our layout while we have it open is found', async () => {
    const other = [layerOf(tarOf({ other: randomBytes(9000) }))];
    const cache = await cacheWith(NAME, layers);
    const source = await cacheWith('other', other);
    await runTool('skopeo', ['copy', `oci:${source.dir}:other`, `oci:${cache.dir}:by-skopeo`]);
    await cache.sync();
    expect(await bytesOf(cache.layer(other[0]!.diffID).uncompressed())).to.deep.equal(other[0]!.tar);
    for (const layer of layers) expect(cache.has(layer.descriptor.digest)).to.equal(true);
    await cache.close();
    const again = await scratch.cache({ dir: cache.dir });
    expect([...again.images()].map((image) => image.name)).to.deep.equal(['by-skopeo', NAME]);
    for (const layer of [...layers, ...other]) expect(again.has(layer.diffID)).to.equal(true);
  });

  itWith(['skopeo'], 'an empty cache is a layout that skopeo writes to', async () => {
    const cache = await scratch.cache();
    await cache.close();
    const source = await cacheWith('other', layers);
    await runTool('skopeo', ['copy', `oci:${source.dir}:other`, `oci:${cache.dir}:x`]);
    const again = await scratch.cache({ dir: cache.dir });
    expect(await bytesOf(again.layer(layers[0]!.diffID).uncompressed())).to.deep.equal(layers[0]!.tar);
  });

  itWith(
    ['skopeo', 'docker-registry'],
    'skopeo copy --all carries the whole cache to a registry and back, both names working',
    async () => {
      const cache = await cacheWith(NAME, layers);
      await cache.close();
      const registry = await startRegistry('docker-registry');
      try {
        const remote = `docker://${registry.host}/team/cache:main`;
        await runTool('skopeo', [
          'copy',
          '--all',
          '--dest-tls-verify=false',
          `oci:${cache.dir}:layercache`,
          remote,
        ]);
        const back = join(await scratch.dir(), 'back');
        await mkdir(back);
        await runTool('skopeo', [
          'copy',
          '--all',
          '--src-tls-verify=false',
          remote,
          `oci:${back}:layercache`,
        ]);
        await rm(cache.dir, { recursive: true });
        const opened = await scratch.cache({ dir: back });
        for (const layer of layers) {
          expect(await bytesOf(opened.layer(layer.diffID).uncompressed())).to.deep.equal(layer.tar);
          expect(await bytesOf(opened.layer(layer.descriptor.digest).compressed())).to.deep.equal(
            layer.bytes,
          );
        }
        expect([...opened.images()].map((image) => image.name)).to.deep.equal([NAME]);
      } finally {
        await registry.stop();
      }
    },
  );
});
