import { forward, type Registry } from '@layercache/registry';
import type { RegistryFactory } from '../sources/open-source.js';
import { countedStream } from './counted-stream.js';
import type { Metrics } from './metrics.js';

/** The same registries; what is asked of them, and the bytes that come and go, are counted. */
export function meteredRegistries(registryOf: RegistryFactory, metrics: Metrics): RegistryFactory {
  const metered = new WeakMap<Registry, Registry>();
  return (host) => {
    const registry = registryOf(host);
    const known = metered.get(registry) ?? meteredRegistry(registry, metrics);
    metered.set(registry, known);
    return known;
  };
}

function meteredRegistry(registry: Registry, metrics: Metrics): Registry {
  return {
    ...forward(registry),
    resolve: (...all) => metrics.time('registryResolve', () => registry.resolve(...all)),
    fetchManifest: async (...all) => {
      const fetched = await metrics.time('registryManifest', () => registry.fetchManifest(...all));
      metrics.count('bytesDownloaded', fetched.bytes.length);
      return fetched;
    },
    fetchBlob: async (...all) => {
      const fetched = await metrics.time('registryBlob', () => registry.fetchBlob(...all));
      countedStream(fetched.body, (count) => {
        metrics.count('bytesDownloaded', count);
      });
      return fetched;
    },
    pushBlob: (repository, descriptor, source, options) =>
      metrics.time('registryPush', () =>
        registry.pushBlob(repository, descriptor, () => sent(source(), metrics), options),
      ),
    pushManifest: async (repository, mediaType, bytes, options) => {
      const descriptor = await metrics.time('registryPush', () =>
        registry.pushManifest(repository, mediaType, bytes, options),
      );
      metrics.count('bytesUploaded', bytes.length);
      return descriptor;
    },
  };
}

async function* sent(
  source: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  metrics: Metrics,
): AsyncGenerator<Uint8Array> {
  for await (const chunk of source) {
    metrics.count('bytesUploaded', chunk.length);
    yield chunk;
  }
}
