import { randomBytes } from 'node:crypto';
import { expect } from 'chai';
import { OciLayout } from '@layercache/layout';
import { Annotation } from '@layercache/oci';
import { MemoryRegistry } from '@layercache/registry';
import { imageOf, layerOf, pushImage, tarOf } from '../image-builder.js';
import { Scratch, bytesOf } from '../test-cache.js';

const TARGET = 'registry.test/team/cache:main';
const NAME = 'source.test/app:1';

describe('the name of an image that is here', () => {
  const scratch = new Scratch();
  afterEach(() => scratch.clean());

  const someImage = (): ReturnType<typeof imageOf> => imageOf([layerOf(tarOf({ data: randomBytes(500) }))]);

  for (const names of ['prove', 'trust', 'skip'] as const) {
    it(`keeps what it was moved to here, its pin and its proof, when a cache is pulled with names: ${names}`, async () => {
      const registry = new MemoryRegistry();
      const source = new MemoryRegistry();
      const connect = (host: string): MemoryRegistry => (host === 'registry.test' ? registry : source);
      const [old, fresh] = [someImage(), someImage()];
      await pushImage(source, 'app', '1', old);
      const cache = await scratch.cache({ registry: connect });
      await cache.add(NAME);
      await cache.push(TARGET);
      await cache.pull(TARGET, { names });
      await pushImage(source, 'app', '1', fresh);
      const second = await scratch.cache({ dir: cache.dir, registry: connect, tagTTL: 0 });
      await second.add(NAME);
      await second.pin(NAME);
      const layer = fresh.layers[0]?.diffID ?? '';
      await bytesOf(second.layer(layer).uncompressed());
      const pulled = await second.pull(TARGET, { names });
      expect(second.image(NAME).digest).to.equal(fresh.descriptor.digest);
      expect(pulled.names.different.map(({ name, here }) => [name, here])).to.deep.equal([
        [NAME, fresh.descriptor.digest],
      ]);
      expect(second.layer(layer).proven).to.equal(true);
      await second.close();
      const layout = await OciLayout.open(cache.dir);
      const entry = layout.lookupTag(NAME)?.descriptor;
      expect(entry?.annotations?.[Annotation.pinned]).to.equal('true');
      expect(entry?.annotations?.[Annotation.nameState]).to.equal(undefined);
      await layout.close();
    });
  }
});
