// What it takes to index an image that is indexed already: `node bench/layer/warm.mjs [ROUNDS]`.
// The image has ten layers of this machine's own files, 300 MB compressed or more, and is kept for the next time.
// After the cold run the blobs of the layers are moved away: what a warm run does, it does without them.
import { mkdtemp, rm } from 'node:fs/promises';
import { cpus, loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { LayerCache } from '@layercache/cache';
import { tenLayers } from '../images/machine-image.mjs';

const [rounds = '5'] = process.argv.slice(2);

async function timed(work) {
  const start = performance.now();
  const result = await work();
  return { seconds: (performance.now() - start) / 1000, result };
}

const median = (numbers) => [...numbers].sort((a, b) => a - b)[numbers.length >> 1];

const image = await tenLayers();
const dir = await mkdtemp(join(tmpdir(), 'layercache-warm-'));
try {
  const cold = await LayerCache.open(join(dir, 'cache'));
  const { layers } = await cold.add(`oci:${image}:bench:1`, { name: 'bench:1' });
  const bytes = layers.reduce((sum, { size }) => sum + size, 0);
  const first = await timed(() => cold.index('bench:1'));
  await cold.close();
  for (const { digest } of layers)
    await rm(join(dir, 'cache', 'blobs', 'sha256', digest.slice('sha256:'.length)));

  const warm = [];
  const opened = [];
  const views = [];
  for (let round = 0; round < Number(rounds); round++) {
    const open = await timed(() => LayerCache.open(join(dir, 'cache')));
    const cache = open.result;
    const { seconds, result } = await timed(() => cache.index('bench:1'));
    if (result.hits !== layers.length || result.bytesRead !== 0) throw new Error('a warm run read a layer');
    warm.push(seconds);
    opened.push(open.seconds + seconds);
    views.push((await timed(() => cache.view('bench:1'))).seconds);
    await cache.close();
  }
  const report = {
    machine: `${cpus().length} × ${cpus()[0].model}, Node ${process.versions.node}, load ${loadavg()[0].toFixed(1)}`,
    image: `${layers.length} layers, ${(bytes / 1e6).toFixed(0)} MB compressed, ${first.result.files} files`,
    cold: `${first.seconds.toFixed(2)} s, ${(first.result.bytesRead / 1e6).toFixed(0)} MB of layers read`,
    warm: `${(median(warm) * 1000).toFixed(1)} ms (${(Math.min(...warm) * 1000).toFixed(1)} to ${(Math.max(...warm) * 1000).toFixed(1)}), no blob of a layer there to be read`,
    ratio: `${Math.round(first.seconds / median(warm))} ×; with opening the cache ${Math.round(first.seconds / median(opened))} ×`,
    'view of the image, warm': `${median(views).toFixed(3)} s`,
  };
  for (const [what, value] of Object.entries(report)) console.log(`${what.padEnd(24)} ${value}`);
} finally {
  await rm(dir, { recursive: true, force: true });
}
