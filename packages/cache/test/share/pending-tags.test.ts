import { randomBytes } from 'node:crypto';
import { expect } from 'chai';
import { OciLayout } from '@layercache/layout';
import { digestHex } from '@layercache/oci';
import { MemoryRegistry, RegistryError, type Registry } from '@layercache/registry';
import type { LayerCache } from '../../src/index.js';
import { imageOf, layerOf, pushImage, tarOf, type BuiltLayer } from '../image-builder.js';
import { Scratch, failure } from '../test-cache.js';

const REPOSITORY = 'team/cache';
const TARGET = `registry.test/${REPOSITORY}:main`;

/** A registry of which some operations are replaced. */
function replaced(registry: MemoryRegistry, operations: Partial<Registry>): Registry {
  return new Proxy<Registry>(registry, {
    get(target, name) {
      if (name in operations) return Reflect.get(operations, name) as unknown;
      const value: unknown = Reflect.get(target, name);
      return typeof value === 'function' ? (value.bind(target) as unknown) : value;
    },
  });
}

describe('the pending tags of a shared cache', () => {
  const scratch = new Scratch();
  afterEach(() => scratch.clean());

  const tagsOf = async (registry: Registry): Promise<string[]> => {
    const tags: string[] = [];
    for await (const tag of registry.tags(REPOSITORY)) tags.push(tag);
    return tags;
  };

  async function cacheOf(
    registry: Registry,
    count = 1,
  ): Promise<{ cache: LayerCache; layers: BuiltLayer[] }> {
    const cache = await scratch.cache({ registry: () => registry });
    const layers = Array.from({ length: count }, () => layerOf(tarOf({ data: randomBytes(500) })));
    const layout = await OciLayout.open(cache.dir);
    for (const layer of layers) {
      await layout.write(layer.bytes);
      await layout.put(layer.descriptor);
    }
    await layout.close();
    return { cache, layers };
  }

  async function pulls(registry: Registry, layers: readonly BuiltLayer[]): Promise<void> {
    const cache = await scratch.cache({ registry: () => registry });
    await cache.pull(TARGET);
    for (const layer of layers) expect(cache.has(layer.descriptor.digest)).to.equal(true);
  }

  it('are one beside the tag, named by the digest of what both name', async () => {
    const registry = new MemoryRegistry();
    for (let n = 0; n < 3; n++) await (await cacheOf(registry)).cache.push(TARGET);
    const { digest } = await registry.resolve(REPOSITORY, 'main');
    expect(await tagsOf(registry)).to.deep.equal(['main', `main.${digestHex(digest).slice(0, 32)}`]);
  });

  it('bring back what a late write of the tag took from it, to readers at once, to the tag with the next push', async () => {
    const registry = new MemoryRegistry();
    const one = await cacheOf(registry);
    await one.cache.push(TARGET);
    const late = await registry.fetchManifest(REPOSITORY, 'main');
    const two = await cacheOf(registry);
    await two.cache.push(TARGET);
    await registry.pushManifest(REPOSITORY, late.descriptor.mediaType, late.bytes, { tag: 'main' });
    await pulls(registry, [...one.layers, ...two.layers]);
    const tier = await scratch.cache({ remote: TARGET, registry: () => registry });
    for (const layer of two.layers) await tier.find(layer.descriptor.digest);
    await one.cache.push(TARGET);
    const { digest } = await registry.resolve(REPOSITORY, 'main');
    expect(await tagsOf(registry)).to.deep.equal(['main', `main.${digestHex(digest).slice(0, 32)}`]);
  });

  it('are enough when the tag itself is gone', async () => {
    const registry = new MemoryRegistry();
    const { cache, layers } = await cacheOf(registry);
    await cache.push(TARGET);
    await registry.deleteManifest(REPOSITORY, 'main');
    await pulls(registry, layers);
  });

  it('are not taken for one when they name an image, or another index', async () => {
    const registry = new MemoryRegistry();
    const { cache, layers } = await cacheOf(registry);
    const hex = 'a'.repeat(32);
    await pushImage(registry, REPOSITORY, `main.${hex}`, imageOf([layerOf(tarOf({ other: 'x' }))]));
    await cache.push(TARGET);
    expect(await tagsOf(registry)).to.include(`main.${hex}`);
    await pulls(registry, layers);
    const other = await cacheOf(registry);
    await other.cache.push(`registry.test/${REPOSITORY}:other`);
    const { descriptor, bytes } = await registry.fetchManifest(REPOSITORY, 'other');
    await registry.pushManifest(REPOSITORY, descriptor.mediaType, bytes, { tag: `main.${hex}` });
    const reader = await scratch.cache({ registry: () => registry });
    expect((await reader.pull(TARGET)).entries).to.equal(1);
  });

  it('of another tag that begins alike are not read', async () => {
    const registry = new MemoryRegistry();
    const [one, two] = [await cacheOf(registry), await cacheOf(registry)];
    await one.cache.push(TARGET);
    await two.cache.push(`registry.test/${REPOSITORY}:main.2`);
    const reader = await scratch.cache({ registry: () => registry });
    expect((await reader.pull(TARGET)).entries).to.equal(1);
  });

  it('fit behind a tag of the greatest length', async () => {
    const registry = new MemoryRegistry();
    const target = `registry.test/${REPOSITORY}:${'t'.repeat(128)}`;
    const { cache, layers } = await cacheOf(registry);
    await cache.push(target);
    for (const tag of await tagsOf(registry)) expect(tag.length).to.be.at.most(128);
    const reader = await scratch.cache({ registry: () => registry });
    await reader.pull(target);
    for (const layer of layers) expect(reader.has(layer.descriptor.digest)).to.equal(true);
  });

  it('are removed by digest where the registry removes no tags', async () => {
    const memory = new MemoryRegistry();
    const registry = replaced(memory, {
      deleteManifest: (repository, reference) =>
        reference.startsWith('sha256:')
          ? memory.deleteManifest(repository, reference)
          : Promise.reject(new RegistryError('REGISTRY', 'by digest only', { status: 405, reported: [] })),
    });
    for (let n = 0; n < 3; n++) await (await cacheOf(registry)).cache.push(TARGET);
    expect(await tagsOf(registry)).to.have.length(2);
  });

  it('are few where nothing can be removed, and pushes go on without', async () => {
    const memory = new MemoryRegistry();
    const registry = replaced(memory, {
      deleteManifest: () =>
        Promise.reject(new RegistryError('REGISTRY', 'never', { status: 405, reported: [] })),
    });
    const all: BuiltLayer[] = [];
    for (let n = 0; n < 5; n++) {
      const { cache, layers } = await cacheOf(registry);
      await cache.push(TARGET);
      all.push(...layers);
    }
    expect((await tagsOf(memory)).length).to.be.at.most(3);
    await pulls(registry, all);
  });

  it('do not bring back what was pruned, also where nothing can be removed', async () => {
    for (const deletes of [true, false]) {
      const memory = new MemoryRegistry();
      const registry = replaced(
        memory,
        deletes
          ? {}
          : {
              deleteManifest: () =>
                Promise.reject(new RegistryError('REGISTRY', 'never', { status: 405, reported: [] })),
            },
      );
      const [one, two] = [await cacheOf(registry, 2), await cacheOf(registry)];
      await one.cache.push(TARGET);
      await two.cache.push(TARGET);
      const pruned = await two.cache.push(TARGET, { prune: () => true });
      expect([pruned.removed, pruned.entries]).to.deep.equal([2, 1]);
      const reader = await scratch.cache({ registry: () => registry });
      expect((await reader.pull(TARGET)).entries).to.equal(1);
    }
  });

  it('are not made where the registry takes no other tags, or lists none', async () => {
    const memory = new MemoryRegistry();
    const { cache, layers } = await cacheOf(memory);
    await cache.push(TARGET);
    const before = await tagsOf(memory);
    for (const refusing of [
      {
        pushManifest: (
          repository: string,
          mediaType: string,
          bytes: Uint8Array,
          options: { readonly tag?: string } = {},
        ) =>
          options.tag === undefined || options.tag === 'main'
            ? memory.pushManifest(repository, mediaType, bytes, options)
            : Promise.reject(new RegistryError('REGISTRY', 'no such tags', { status: 400, reported: [] })),
      },
      {
        tags: (): AsyncIterable<string> => {
          throw new RegistryError('REGISTRY', 'no list', { status: 405, reported: [] });
        },
      },
    ]) {
      const registry = replaced(memory, refusing);
      const other = await cacheOf(registry);
      await other.cache.push(TARGET);
      layers.push(...other.layers);
      await pulls(registry, layers);
      expect(await tagsOf(memory)).to.deep.equal(before);
    }
  });

  it('are not needed to find what a slow write of the tag puts an end to, by who writes it', async () => {
    const memory = new MemoryRegistry();
    const tags = (): AsyncIterable<string> => {
      throw new RegistryError('REGISTRY', 'no list', { status: 405, reported: [] });
    };
    const first = await cacheOf(memory);
    await first.cache.push(TARGET);
    const fast = await cacheOf(replaced(memory, { tags }));
    let overtaking: Promise<unknown> | undefined;
    const slow = await cacheOf(
      replaced(memory, {
        tags,
        pushManifest: async (repository, mediaType, bytes, options = {}) => {
          if (options.tag === 'main' && overtaking === undefined) {
            // The other push begins after this write was sent, and has reported success before it takes effect.
            overtaking = fast.cache.push(TARGET);
            await overtaking;
          }
          return memory.pushManifest(repository, mediaType, bytes, options);
        },
      }),
    );
    await slow.cache.push(TARGET);
    await pulls(replaced(memory, { tags }), [...first.layers, ...fast.layers, ...slow.layers]);
  });

  it('that cannot be listed because the registry is down are no reason to go on without', async () => {
    const memory = new MemoryRegistry();
    const { cache } = await cacheOf(memory);
    await cache.push(TARGET);
    const registry = replaced(memory, {
      tags: () => {
        throw new RegistryError('REGISTRY', 'down', { status: 503, reported: [] });
      },
    });
    const reader = await scratch.cache({ registry: () => registry });
    await failure('REGISTRY', () => reader.pull(TARGET));
  });
});
