import { randomBytes } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import type { LayerCache } from '../../src/index.js';
import { imageOf, layerOf, pushImage, tarOf } from '../image-builder.js';
import { Scratch, bytesOf, memoryRegistry } from '../test-cache.js';
import { itWith, runTool, startRegistry, type RunningRegistry } from './tools.js';

/** A program around oras-go, the library that the oras command is made of: `oras-go/main.go` beside this file. */
const ORAS = 'oras-go-interop';
const REGISTRY = 'docker-registry';

describe('a whole cache in the hands of oras-go', () => {
  const scratch = new Scratch();
  let running: RunningRegistry | undefined;
  afterEach(async () => {
    await scratch.clean();
    await running?.stop();
    running = undefined;
  });

  const layers = [randomBytes(30_000), randomBytes(40_000)].map((data) => layerOf(tarOf({ data })));

  /** A closed cache with one image, whose first layer is here uncompressed as well. */
  async function closedCache(): Promise<LayerCache> {
    const registry = memoryRegistry();
    await pushImage(registry, 'app', '1', imageOf(layers));
    const cache = await scratch.cache({ registry: () => registry });
    await cache.add('registry.test/app:1', { name: 'app' });
    await bytesOf(cache.layer(layers[0]!.diffID).uncompressed());
    await cache.close();
    return cache;
  }

  async function expectWhole(cache: LayerCache): Promise<void> {
    for (const layer of layers) {
      expect(await bytesOf(cache.layer(layer.descriptor.digest).compressed())).to.deep.equal(layer.bytes);
      expect(await bytesOf(cache.layer(layer.diffID).uncompressed())).to.deep.equal(layer.tar);
    }
    expect([...cache.images()].map((image) => image.name)).to.deep.equal(['app']);
  }

  itWith(
    [ORAS, REGISTRY],
    'its recursive copy carries a layout to a registry, where pull takes it',
    async () => {
      running = await startRegistry(REGISTRY);
      const cache = await closedCache();
      const remote = `${running.host}/team/cache:main`;
      await runTool(ORAS, ['copy', `oci:${cache.dir}:layercache`, remote]);
      const pulled = await scratch.cache();
      await pulled.pull(remote);
      await expectWhole(pulled);
    },
  );

  itWith([ORAS, REGISTRY], 'its recursive copy brings what push sent into a layout that opens', async () => {
    running = await startRegistry(REGISTRY);
    const remote = `${running.host}/team/cache:main`;
    const cache = await scratch.cache({ dir: (await closedCache()).dir });
    await cache.push(remote);
    const dir = join(await scratch.dir(), 'copied');
    await runTool(ORAS, ['copy', remote, `oci:${dir}:layercache`]);
    await expectWhole(await scratch.cache({ dir }));
  });

  for (const sideState of ['kept', 'lost']) {
    itWith(
      [ORAS],
      `its garbage collection leaves every layer, with our side state ${sideState}`,
      async () => {
        const cache = await closedCache();
        await runTool(ORAS, ['gc', cache.dir]);
        if (sideState === 'lost') await rm(join(cache.dir, '.layercache'), { recursive: true });
        await expectWhole(await scratch.cache({ dir: cache.dir }));
      },
    );
  }
});
