// Adds an image to a cache and reads each of its layers by both names.
//
//   node examples/two-names.mjs                     # an image of packages that are installed here
//   node examples/two-names.mjs alpine:3.20         # any other: oci:DIR, oci-archive:FILE, docker-archive:FILE
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { LayerCache } from '@layercache/cache';
import { startRegistry } from './embedded-registry.mjs';

const registry = await startRegistry();
const modules = fileURLToPath(new URL('../node_modules', import.meta.url));
await registry.pushImage('library/packages:1', modules, ['zod'], ['commander']);
const [source = `${registry.host}/library/packages:1`] = process.argv.slice(2);

const dir = await mkdtemp(join(tmpdir(), 'two-names-'));
const cache = await LayerCache.open(dir);
try {
  const image = await cache.add(source);
  for (const { digest } of image.layers) {
    const byDigest = cache.layer(digest);
    const { diffID } = byDigest;
    const byDiffID = cache.layer(diffID);
    console.log(`digest ${byDigest.key}: ${await count(byDigest.compressed())} bytes`);
    console.log(`diffID ${byDiffID.key}: ${await count(byDiffID.uncompressed())} bytes`);
    assert.ok(cache.layer(digest).proven, 'what was decompressed here is proven');
  }
} finally {
  await cache.close();
  await registry.close();
  await rm(dir, { recursive: true });
}

/** The length of a stream, which was hashed on the way: had the bytes been wrong, it would have failed. */
async function count(stream) {
  let bytes = 0;
  for await (const chunk of await stream) bytes += chunk.length;
  return bytes;
}
