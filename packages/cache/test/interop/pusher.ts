import { randomBytes } from 'node:crypto';
import { OciLayout } from '@layercache/layout';
import { LayerCache } from '../../src/index.js';
import { layerOf, tarOf } from '../image-builder.js';

/** A process of its own: fills a cache with layers of its own, pushes it, and prints their digests. */
const [dir = '', target = '', count = ''] = process.argv.slice(2);
const layout = await OciLayout.open(dir);
for (let n = 0; n < Number(count); n++) {
  const layer = layerOf(tarOf({ data: randomBytes(2000) }));
  await layout.write(layer.bytes);
  await layout.put(layer.descriptor);
  process.stdout.write(`${layer.descriptor.digest}\n`);
}
await layout.close();
const cache = await LayerCache.open(dir);
await cache.push(target);
await cache.close();
