// Reads files of an image without unpacking it. An index of each layer says where in the compressed bytes a file
// begins, so a file costs the part of the layer that it is in; the files are those of the merged image, whiteouts and
// links followed.
//
//   node examples/read-files.mjs
import assert from 'node:assert/strict';
import { readFile, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { LayerCache } from '@layercache/cache';
import { kilobytes, startRegistry } from './embedded-registry.mjs';

const modules = fileURLToPath(new URL('../node_modules', import.meta.url));
const dir = await mkdtemp(join(tmpdir(), 'read-files-'));
const registry = await startRegistry();
try {
  await registry.pushImage('team/app:1', modules, ['typescript'], ['zod/package.json', 'commander']);
  const name = `${registry.host}/team/app:1`;
  const cache = await LayerCache.open(join(dir, 'cache'));
  const { fetched } = await cache.add(name);

  const { layers } = await cache.index(name);
  const files = layers.reduce((sum, layer) => sum + layer.files, 0);
  console.log(`${kilobytes(fetched)} of layers hold ${files} files`);

  const view = await cache.view(name);
  const path = '/typescript/package.json';
  const text = Buffer.concat(await (await view.open(path)).toArray());
  console.log(`${path}: version ${JSON.parse(text).version}`);
  assert.deepEqual(text, await readFile(join(modules, 'typescript', 'package.json')));

  const large = '/typescript/lib/typescript.js';
  const part = Buffer.concat(await (await view.readRange(large, 4_000_000, 4_000_100)).toArray());
  const whole = await readFile(join(modules, 'typescript', 'lib', 'typescript.js'));
  console.log(`${large}: 100 bytes from the middle of ${kilobytes(whole.length)}`);
  assert.deepEqual(part, whole.subarray(4_000_000, 4_000_100));

  const { kinds } = await cache.stats();
  assert.equal(kinds.find(({ kind }) => kind === 'tar').blobs, 0, 'no layer was unpacked');
  console.log('and no layer was decompressed as a whole: there is no tar in the cache');
  await cache.close();
} finally {
  await registry.close();
  await rm(dir, { recursive: true });
}
