// A cache that decompresses layers with and without their indexes: `node bench/layer/uncompressed.mjs [ROUNDS]`.
// The image is that of warm.mjs. Every pair is proven, and every tar verified against its diffID, either way.
import { mkdtemp, rm } from 'node:fs/promises';
import { cpus, loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { LayerCache } from '@layercache/cache';
import { tenLayers } from '../images/machine-image.mjs';

const [rounds = '3'] = process.argv.slice(2);
const image = await tenLayers();
const dir = await mkdtemp(join(tmpdir(), 'layercache-uncompressed-'));

/** Seconds, and seconds of processor time, for the tars of all layers. */
async function measured(name, indexed, keep) {
  const cache = await LayerCache.open(join(dir, name));
  const { layers } = await cache.add(`oci:${image}:bench:1`, { name: 'bench:1' });
  if (indexed) await cache.index('bench:1');
  else for (const { digest } of layers) await cache.layer(digest).prove();
  const start = performance.now();
  const before = process.cpuUsage();
  let bytes = 0;
  for (const { digest } of layers)
    for await (const piece of await cache.layer(digest).uncompressed({ keep })) bytes += piece.length;
  const seconds = (performance.now() - start) / 1000;
  const { user, system } = process.cpuUsage(before);
  await cache.close();
  await rm(join(dir, name), { recursive: true });
  return { seconds, processor: (user + system) / 1e6, bytes };
}

const median = (numbers) => [...numbers].sort((a, b) => a - b)[numbers.length >> 1];

try {
  console.log(
    `${cpus().length} × ${cpus()[0].model}, Node ${process.versions.node}, load ${loadavg()[0].toFixed(1)}`,
  );
  for (const keep of [false, true]) {
    const found = [];
    for (let round = 0; round < Number(rounds); round++) {
      const without = await measured('without', false, keep);
      found.push({ without, with: await measured('with', true, keep) });
    }
    const show = (name) =>
      `${median(found.map((each) => each[name].seconds)).toFixed(2)} s (${median(found.map((each) => each[name].processor)).toFixed(2)} s of processor)`;
    const ratio = median(found.map((each) => each.without.seconds / each.with.seconds));
    console.log(
      `${keep ? 'kept' : 'streamed'}, ${(found[0].with.bytes / 1e6).toFixed(0)} MB: without ${show('without')}, with ${show('with')}, ${ratio.toFixed(2)} ×`,
    );
  }
} finally {
  await rm(dir, { recursive: true, force: true });
}
