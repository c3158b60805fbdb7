// One phase of the bench, in a process of its own so that its memory is: node bench-phase.mjs PHASE CACHE IMAGE
// [CONCURRENCY]. Prints what it measured as JSON.
import { LayerCache } from '@layercache/cache';

const [phase, dir, image, concurrency = '4'] = process.argv.slice(2);

/** `add` is not measured: it makes a cache with the image and without indexes. */
const PHASES = {
  add: async (cache) => void (await cache.add(image)),
  index: (cache) => cache.index(nameIn(cache), { concurrency: Number(concurrency) }),
  populate: async (cache) => {
    await cache.add(image);
    return cache.index(nameIn(cache), { concurrency: Number(concurrency) });
  },
};

/** The only one there is: a source of another kind than a registry gives it another name. */
function nameIn(cache) {
  const [first] = cache.images();
  return first.name;
}

const cache = await LayerCache.open(dir);
const start = performance.now();
const report = await PHASES[phase](cache);
const seconds = (performance.now() - start) / 1000;
const peakMiB = process.resourceUsage().maxRSS / 1024;
if (report !== undefined) {
  let [tarBytes, indexBytes] = [0, 0];
  for (const { diffID, indexDigest } of report.layers) {
    tarBytes += (await cache.layerIndex(diffID)).ztoc.uncompressedSize;
    indexBytes += await cache.blobSize(indexDigest);
  }
  const { layers, hits, files, bytesRead } = report;
  console.log(
    JSON.stringify({ seconds, peakMiB, layers: layers.length, hits, files, bytesRead, tarBytes, indexBytes }),
  );
}
await cache.close();
