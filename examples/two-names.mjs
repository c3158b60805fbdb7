// Adds an image to a cache and reads each of its layers by both names.
//
//   npm run demo
//   node examples/two-names.mjs oci:demo-cache/first:registry.example/demo/app:1
//
// Any image reference does as well: alpine:3.20, oci-archive:image.tar, docker-archive:image.tar.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { LayerCache } from '@layercache/cache';

const [source] = process.argv.slice(2);
if (source === undefined) {
  console.error('which image? for example: node examples/two-names.mjs alpine:3.20');
  process.exit(2);
}

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
  }
} finally {
  await cache.close();
  await rm(dir, { recursive: true });
}

/** The length of a stream, which was hashed on the way: had the bytes been wrong, it would have failed. */
async function count(stream) {
  let bytes = 0;
  for await (const chunk of await stream) bytes += chunk.length;
  return bytes;
}
