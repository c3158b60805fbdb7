/** One run over a limited cache, in a process of its own, so that the sampler can stop it. Told what to do as JSON. */
import { LayerCache, strategyNamed } from '@layercache/cache';
import { SyntheticRegistry } from './synthetic-registry.mjs';

const { dir, maxSize, strategy, images, trace, pinned = [], tarEvery } = JSON.parse(process.argv[2]);

const registry = new SyntheticRegistry({ ...images, ownSize: (n) => images.own * (1 + (n % 3)) });
process.send({ ready: true, population: population() });
await new Promise((resolve) => process.once('message', resolve));

const cache = await LayerCache.open(dir, {
  limits: { maxSize },
  eviction: strategyNamed(strategy),
  registry: () => registry,
});
const result = { requests: 0, hits: 0, bytes: 0, hitBytes: 0, full: 0 };
const start = performance.now();
for (const n of pinned) {
  await cache.add(registry.images[n].name);
  await cache.pin(registry.images[n].name);
}
for (const [position, n] of trace.entries()) {
  const image = registry.images[n];
  for (const layer of image.layers) {
    const { digest, size } = layer.descriptor;
    const here = cache.has(digest) && (await cache.blobState(layer.descriptor)) === 'local';
    result.requests += 1;
    result.bytes += size;
    if (here) {
      result.hits += 1;
      result.hitBytes += size;
    }
  }
  await cache.add(image.name);
  for (const layer of image.layers) await drain(cache.layer(layer.descriptor.digest).compressed());
  if (position % tarEvery === 0)
    for (const layer of image.layers) await drain(cache.layer(layer.diffID).uncompressed());
}
const network = registry.bytes;
for (const n of pinned) {
  for (const layer of registry.images[n].layers) await drain(cache.layer(layer.diffID).uncompressed());
}
const kept =
  pinned.every((n) => cache.image(registry.images[n].name) !== undefined) && registry.bytes === network;
const seconds = (performance.now() - start) / 1000;
await cache.close();
process.send({ ...result, network, seconds, pinnedKept: kept, simulated: simulatedLru() });

/** A cache that holds nothing but compressed layers, needs no other byte, and forgets what was used least lately. */
function simulatedLru() {
  const held = new Map();
  let [size, hitBytes, missed] = [0, 0, 0];
  for (const n of trace) {
    for (const { descriptor } of registry.images[n].layers) {
      if (held.delete(descriptor.digest)) hitBytes += descriptor.size;
      else {
        missed += descriptor.size;
        size += descriptor.size;
      }
      held.set(descriptor.digest, descriptor.size);
      for (const [digest, bytes] of held) {
        if (size <= maxSize) break;
        held.delete(digest);
        size -= bytes;
      }
    }
  }
  return { hitBytes, network: missed };
}

async function drain(stream) {
  for await (const bytes of await stream) void bytes;
}

function population() {
  const layers = new Map(
    registry.images.flatMap(({ layers }) => layers.map((layer) => [layer.diffID, layer])),
  );
  return [...layers.values()].reduce((sum, { descriptor }) => sum + descriptor.size, 0);
}
