import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import { Annotation, MediaType } from '@layercache/oci';
import { OciLayout } from '@layercache/layout';
import { imageOf, layerOf, pushImage, tarOf } from '../image-builder.js';
import { Scratch, memoryRegistry } from '../test-cache.js';
import type { LayerCache } from '../../src/index.js';

const scratch = new Scratch();
afterEach(() => scratch.clean());

const image = imageOf([layerOf(tarOf({ 'file.txt': 'a file' }))]);

async function cacheOfOne(): Promise<LayerCache> {
  const registry = memoryRegistry();
  await pushImage(registry, 'team/app', '1', image);
  const cache = await scratch.cache({ registry: () => registry, concurrency: 3 });
  await cache.add('registry.example/team/app:1');
  return cache;
}

describe('a debug report', () => {
  it('says what the cache is, how it was opened, and whether it is whole', async () => {
    const cache = await cacheOfOne();
    const report = await cache.debugReport();
    expect(report).to.have.nested.property('options.concurrency', 3);
    expect(report).to.have.nested.property('options.registry', 'given');
    expect(report).to.have.nested.property('versions.node', process.versions.node);
    expect(report).to.have.nested.property('index.map.state', 'current');
    expect(report).to.have.nested.property('stats.blobs', (await cache.stats()).blobs);
    expect(report).to.have.nested.property('verify.ok', true);
    expect(report).to.have.nested.property('metrics.thisRun.operations.add.count', 1);
    expect(report).to.have.nested.property('metrics.allRuns.operations.add.count', 1);
    expect(report).to.have.nested.property('platform.disk.total').that.is.greaterThan(0);
  });

  it('can leave out the hashing', async () => {
    const cache = await cacheOfOne();
    expect(await cache.debugReport({ verify: false })).to.have.property('verify', 'not asked for');
  });

  it('carries none of the secrets that lie about', async () => {
    const secrets = [
      'hunter2',
      'c2VjcmV0OmF1dGg=',
      'glpat-abcdefgh1234',
      'sigsigsig',
      'envsecret',
      'tokentoken',
    ];
    const home = await scratch.dir();
    const dockerConfig = join(home, '.docker');
    await mkdir(dockerConfig);
    const auths = { 'registry.example': { auth: 'c2VjcmV0OmF1dGg=', identitytoken: 'tokentoken' } };
    await writeFile(join(dockerConfig, 'config.json'), JSON.stringify({ auths }));
    const before = { ...process.env };
    Object.assign(process.env, { DOCKER_CONFIG: dockerConfig, REGISTRY_TOKEN: 'envsecret', HOME: home });
    try {
      const registry = memoryRegistry();
      const cache = await scratch.cache({ dir: join(home, 'cache'), registry: () => registry });
      const layout = await OciLayout.open(cache.dir);
      const blob = await layout.write(image.bytes);
      await layout.put({
        ...blob,
        mediaType: MediaType.manifest,
        urls: ['https://me:hunter2@registry.example/blob'],
        annotations: {
          [Annotation.refName]: 'https://me:hunter2@registry.example/app?sig=sigsigsig',
          'com.example.token': 'tokentoken',
        },
      });
      await layout.put({
        ...blob,
        mediaType: MediaType.manifest,
        annotations: { [Annotation.refName]: 'me:hunter2@registry.example/app:1' },
      });
      await layout.close();
      await writeFile(join(cache.dir, 'blobs', 'sha256', 'glpat-abcdefgh1234'), 'a file with such a name');
      const text = JSON.stringify(await cache.debugReport());
      expect(text).to.contain('registry.example/app');
      expect(text).to.contain('"dir":"~/cache"');
      expect(text).to.contain('is not a blob');
      for (const secret of [...secrets, home]) expect(text).not.to.contain(secret);
    } finally {
      for (const name of ['DOCKER_CONFIG', 'REGISTRY_TOKEN', 'HOME']) {
        if (before[name] === undefined) Reflect.deleteProperty(process.env, name);
        else process.env[name] = before[name];
      }
    }
  });
});
