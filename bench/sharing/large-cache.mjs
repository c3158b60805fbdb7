/**
 * A large cache, pushed to and pulled from a registry on this machine, over HTTP: requests, bytes and time of each
 * step. `node bench/sharing/large-cache.mjs [LAYERS]`
 */
import { createHash, randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { LayerCache } from '@layercache/cache';
import { OciLayout } from '@layercache/layout';
import { MediaType, digestOf } from '@layercache/oci';
import { MemoryRegistry, RegistryClient, createRegistryServer } from '@layercache/registry';

const count = Number(process.argv[2] ?? 20_000);
const registry = new MemoryRegistry();
let largest = 0;
const server = createRegistryServer(registry, {
  wrap: (handler) => (request, response) => {
    if (request.method === 'PUT' && request.url?.includes('/manifests/'))
      largest = Math.max(largest, Number(request.headers['content-length']));
    handler(request, response);
  },
});
await server.listen({ host: '127.0.0.1', port: 0 });
const { host } = new URL(server.url);
const target = `${host}/team/cache:main`;
const dir = mkdtempSync(join(tmpdir(), 'large-cache-'));

/** A layer of a few bytes: its digest is not that of a tar in gzip, which nobody decompresses here. */
async function addLayer(layout, bytes) {
  const diffID = `sha256:${createHash('sha256').update(bytes).update('tar').digest('hex')}`;
  const descriptor = { mediaType: MediaType.layerGzip, digest: digestOf(bytes), size: bytes.length };
  await layout.write(bytes);
  return { ...descriptor, annotations: { 'dev.layercache.diffid': diffID } };
}

async function step(name, cacheDir, work) {
  const client = new RegistryClient(host);
  const cache = await LayerCache.open(join(dir, cacheDir), { registry: () => client });
  const started = performance.now();
  await work(cache);
  const ms = Math.round(performance.now() - started);
  await cache.close();
  const { requests, bytesSent, bytesReceived } = client.traffic;
  console.log(`| ${name} | ${requests} | ${bytesSent} | ${bytesReceived} | ${ms} ms |`);
}

try {
  const layout = await OciLayout.open(join(dir, 'first'));
  const descriptors = [];
  for (let n = 0; n < count; n++) descriptors.push(await addLayer(layout, Buffer.from(`layer ${n}`)));
  await layout.put(descriptors);
  await layout.close();

  console.log(
    `| ${count} layers | requests | bytes sent | bytes received | time |\n| --- | --- | --- | --- | --- |`,
  );
  await step('push, nothing there', 'first', (cache) => cache.push(target));
  await step('push again', 'first', (cache) => cache.push(target));
  await step('pull --lazy', 'second', (cache) => cache.pull(target, { lazy: true }));
  await step('pull --lazy again', 'second', (cache) => cache.pull(target, { lazy: true }));
  await step('first lookup by diffID', 'second', (cache) => {
    cache.layer(descriptors[count >> 1].annotations['dev.layercache.diffid']);
  });
  const second = await OciLayout.open(join(dir, 'second'));
  await second.put(await addLayer(second, gzipSync(randomBytes(100_000))));
  await second.close();
  await step('push with one new layer (100 kB)', 'second', (cache) => cache.push(target));
  await step('push again, others pushed since', 'first', (cache) => cache.push(target));
  console.log(`largest manifest: ${largest} bytes of 4194304`);
} finally {
  await server.close();
  rmSync(dir, { recursive: true });
}
