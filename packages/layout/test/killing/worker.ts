import { writeSync } from 'node:fs';
import { Annotation, MediaType, digestOf, type Descriptor } from '@layercache/oci';
import { OciLayout } from '../../src/index.js';

/**
 * Puts layers into a layout, one after the other, and tells each on stdout when it was resolved. Ends by being
 * killed, or after a number of layers.
 */
const [dir = '', prefix = '', count = 'Infinity', style = ''] = process.argv.slice(2);

/** The bytes of a layer, which say whose it is. */
function layerBytes(name: string): Buffer {
  return Buffer.from(`layer ${name} `.repeat(200));
}

const layout = await OciLayout.open(dir);
for (let n = 0; n < Number(count); n++) {
  const name = `${prefix}-${n}`;
  // Every third is put by all workers of this round.
  const bytes = layerBytes(n % 3 === 0 ? `shared-${n}` : name);
  const digest = digestOf(bytes);
  const descriptor: Descriptor = {
    mediaType: MediaType.layerGzip,
    digest,
    size: bytes.length,
    annotations: { [Annotation.diffID]: digestOf(`uncompressed ${digest}`) },
  };
  if (style === 'with blobs') await layout.write(bytes, { digest, size: bytes.length });
  await layout.put(descriptor);
  writeSync(1, `${digest}\n`);
  if (n % 10 === 9 && style === 'with blobs') {
    const gone = digestOf(layerBytes(`${prefix}-${n - 5}`));
    writeSync(1, `-${gone}\n`);
    await layout.remove(gone);
  }
  if (n % 25 === 24) await layout.sync();
}
await layout.close();
