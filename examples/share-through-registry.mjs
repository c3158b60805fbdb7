// Two machines and one registry. The first caches an image and pushes its whole cache; the second pulls it lazily,
// which costs a few kilobytes, and reads one layer by its diffID: only that layer crosses the network, and it comes
// from the team's cache and not from where the image was.
//
//   node examples/share-through-registry.mjs
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { LayerCache } from '@layercache/cache';
import { kilobytes, startRegistry } from './embedded-registry.mjs';

const modules = fileURLToPath(new URL('../node_modules', import.meta.url));
const dir = await mkdtemp(join(tmpdir(), 'share-'));
const far = await startRegistry();
const near = await startRegistry();
try {
  const { layers, diffIDs } = await far.pushImage('library/base:1', modules, ['zod'], ['commander', 'tar']);
  const base = `${far.host}/library/base:1`;
  const shared = `${near.host}/team/cache:main`;

  const first = await LayerCache.open(join(dir, 'first'));
  const added = await first.add(base);
  await first.push(shared);
  await first.close();
  const { bytesReceived } = near.traffic;
  console.log(`the first machine fetched ${kilobytes(added.fetched)} and shared ${kilobytes(bytesReceived)}`);

  const requests = far.traffic.requests;
  const sent = near.traffic.bytesSent;
  const second = await LayerCache.open(join(dir, 'second'));
  await second.pull(shared, { lazy: true });
  const pulled = near.traffic.bytesSent - sent;
  console.log(`the second knows ${[...second.layers()].length} layers after ${kilobytes(pulled)}`);

  let bytes = 0;
  for await (const chunk of await second.layer(diffIDs[1]).uncompressed()) bytes += chunk.length;
  const fetched = near.traffic.bytesSent - sent - pulled;
  console.log(`it read ${kilobytes(bytes)} of a tar, for ${kilobytes(fetched)} from the registry near by`);
  console.log(`and for ${far.traffic.requests - requests} requests to the one far away`);

  assert.ok(pulled < 20_000, 'a lazy pull takes documents only');
  assert.equal(fetched, layers[1].size, 'one layer, compressed, once');
  assert.equal(far.traffic.requests, requests + 1, 'it is asked once, whether the name means this image');
  assert.equal(await second.blobState(layers[0]), 'remote');
  await second.close();
} finally {
  await far.close();
  await near.close();
  await rm(dir, { recursive: true });
}
