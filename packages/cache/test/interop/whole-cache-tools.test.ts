import { randomBytes } from 'node:crypto';
import { access } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import { digestHex } from '@layercache/oci';
import type { LayerCache } from '../../src/index.js';
import { imageOf, layerOf, pushImage, tarOf, type BuiltLayer } from '../image-builder.js';
import { Scratch, bytesOf, memoryRegistry } from '../test-cache.js';
import { itWith, runTool, startRegistry, type RunningRegistry } from './tools.js';

const REGISTRY = 'docker-registry';

describe('a whole cache, carried by other tools', () => {
  const scratch = new Scratch();
  let running: RunningRegistry | undefined;
  afterEach(async () => {
    await scratch.clean();
    await running?.stop();
    running = undefined;
  });

  const layers = [randomBytes(30_000), randomBytes(40_000)].map((data) => layerOf(tarOf({ data })));

  async function cacheWith(name: string, contents: readonly BuiltLayer[]): Promise<LayerCache> {
    const registry = memoryRegistry();
    await pushImage(registry, 'app', '1', imageOf(contents));
    const cache = await scratch.cache({ registry: () => registry });
    await cache.add('registry.test/app:1', { name });
    await cache.close();
    return cache;
  }

  const start = async (): Promise<{ host: string; regctl: (...args: string[]) => Promise<string> }> => {
    running = await startRegistry(REGISTRY);
    const { host } = running;
    return {
      host,
      regctl: (...args) => runTool('regctl', ['--host', `reg=${host},tls=disabled`, ...args]),
    };
  };

  async function expectWhole(cache: LayerCache): Promise<void> {
    for (const layer of layers) {
      expect(await bytesOf(cache.layer(layer.descriptor.digest).compressed())).to.deep.equal(layer.bytes);
      expect(await bytesOf(cache.layer(layer.diffID).uncompressed())).to.deep.equal(layer.tar);
    }
    expect([...cache.images()].map((image) => image.name)).to.deep.equal(['app']);
  }

  itWith(
    ['skopeo', REGISTRY],
    'skopeo copy --all: what it pushes, pull takes, eagerly and lazily',
    async () => {
      const { host } = await start();
      const cache = await cacheWith('app', layers);
      const remote = `docker://${host}/team/cache:main`;
      await runTool('skopeo', [
        'copy',
        '--all',
        '--dest-tls-verify=false',
        `oci:${cache.dir}:layercache`,
        remote,
      ]);
      for (const lazy of [false, true]) {
        const other = await scratch.cache();
        await other.pull(`${host}/team/cache:main`, { lazy });
        await expectWhole(other);
      }
    },
  );

  itWith(
    ['skopeo', REGISTRY],
    'skopeo copy --all: what push sent, it brings into a layout that opens',
    async () => {
      const { host } = await start();
      const cache = await scratch.cache({ dir: (await cacheWith('app', layers)).dir });
      await cache.push(`${host}/team/cache:main`);
      const dir = join(await scratch.dir(), 'copied');
      const remote = `docker://${host}/team/cache:main`;
      await runTool('skopeo', ['copy', '--all', '--src-tls-verify=false', remote, `oci:${dir}:layercache`]);
      await expectWhole(await scratch.cache({ dir }));
    },
  );

  itWith(
    ['regctl', REGISTRY],
    'regctl image copy: to a registry, where pull takes it, and back',
    async () => {
      const { host, regctl } = await start();
      const cache = await cacheWith('app', layers);
      await regctl('image', 'copy', `ocidir://${cache.dir}:layercache`, `${host}/team/cache:main`);
      const pulled = await scratch.cache();
      await pulled.pull(`${host}/team/cache:main`);
      await expectWhole(pulled);
      const dir = join(await scratch.dir(), 'copied');
      await regctl('image', 'copy', `${host}/team/cache:main`, `ocidir://${dir}:layercache`);
      await expectWhole(await scratch.cache({ dir }));
    },
  );

  itWith(
    ['crane', REGISTRY],
    'crane pull and crane push: into a layout that opens, and to a registry',
    async () => {
      const { host } = await start();
      const cache = await scratch.cache({ dir: (await cacheWith('app', layers)).dir });
      const { digest } = await cache.push(`${host}/team/cache:main`);
      const dir = join(await scratch.dir(), 'pulled');
      const remote = `${host}/team/cache:main`;
      await runTool('crane', ['pull', '--insecure', '--format=oci', '--platform=all', remote, dir]);
      await runTool('crane', ['push', '--insecure', dir, `${host}/team/pushed:main`]);
      const pulled = await scratch.cache();
      expect((await pulled.pull(`${host}/team/pushed:main`)).digest).to.equal(digest);
      await expectWhole(pulled);
      await expectWhole(await scratch.cache({ dir }));
    },
  );

  itWith(['crane', REGISTRY], 'crane copy: from one repository to another, unchanged', async () => {
    const { host } = await start();
    const cache = await scratch.cache({ dir: (await cacheWith('app', layers)).dir });
    const { digest } = await cache.push(`${host}/team/cache:main`);
    await runTool('crane', ['copy', '--insecure', `${host}/team/cache:main`, `${host}/team/copied:main`]);
    const pulled = await scratch.cache();
    expect((await pulled.pull(`${host}/team/copied:main`)).digest).to.equal(digest);
    await expectWhole(pulled);
  });

  itWith(['crane', REGISTRY], 'crane validate: passes each image of a pushed cache', async () => {
    const { host } = await start();
    const cache = await scratch.cache({ dir: (await cacheWith('app', layers)).dir });
    await cache.push(`${host}/team/cache:main`);
    const image = `${host}/team/cache@${cache.image('app').digest}`;
    expect(await runTool('crane', ['validate', '--insecure', '--remote', image])).to.contain('PASS');
  });

  itWith(
    ['regctl'],
    'regctl garbage collection spares every layer, and takes what it is there for',
    async () => {
      const cache = await scratch.cache({ dir: (await cacheWith('app', layers)).dir });
      // A tar that nobody but us knows of: it may go, and is derived again.
      await bytesOf(cache.layer(layers[0]!.diffID).uncompressed());
      await cache.close();
      const blob = (layer: BuiltLayer): string =>
        join(cache.dir, 'blobs', 'sha256', digestHex(layer.descriptor.digest));

      const passing = layerOf(tarOf({ data: randomBytes(10_000) }));
      const other = await cacheWith('passing', [passing]);
      await runTool('regctl', [
        'image',
        'copy',
        `ocidir://${other.dir}:passing`,
        `ocidir://${cache.dir}:passing`,
      ]);
      await access(blob(passing));
      await runTool('regctl', ['tag', 'delete', `ocidir://${cache.dir}:passing`]);
      const gone = await access(blob(passing)).then(
        () => false,
        () => true,
      );
      expect(gone).to.equal(true);
      await expectWhole(await scratch.cache({ dir: cache.dir }));
    },
  );

  itWith(['umoci'], 'umoci garbage collection spares every layer', async () => {
    const cache = await scratch.cache({ dir: (await cacheWith('app', layers)).dir });
    await bytesOf(cache.layer(layers[0]!.diffID).uncompressed());
    await cache.close();
    await runTool('umoci', ['gc', '--layout', cache.dir]);
    await expectWhole(await scratch.cache({ dir: cache.dir }));
  });
});
