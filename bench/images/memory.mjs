// Peak resident memory of adding a layer of 2 GiB, and of reading it uncompressed, each in a process of its own.
//   node bench/images/memory.mjs [MiB]
import { randomFillSync } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { createGzip } from 'node:zlib';
import { OciLayout } from '@layercache/layout';
import { Annotation, Digester, MediaType } from '@layercache/oci';
import { layercache, serve } from './program.mjs';

const MIB = 1024 * 1024;
const size = Number(process.argv[2] ?? 2048);
const dir = await mkdtemp(join(tmpdir(), 'layercache-memory-'));

try {
  const { diffID, digest } = await makeImage(join(dir, 'source'));
  const source = await serve(join(dir, 'source'));
  const cache = ['--cache', join(dir, 'cache')];
  try {
    const add = await layercache(...cache, 'add', `${source.host}/big:1`);
    const read = await layercache(...cache, 'get', diffID, '-o', join(dir, 'out.tar'));
    const again = await layercache(...cache, 'get', digest, '-o', join(dir, 'out.gz'));
    console.log(`layer of ${size} MiB, Node ${process.version}`);
    for (const [what, { seconds, peakMiB }] of Object.entries({
      'add from a registry': add,
      'get uncompressed (decompress, keep, write)': read,
      'get compressed (write)': again,
    })) {
      console.log(
        `${what.padEnd(44)} ${peakMiB.toFixed(0).padStart(5)} MiB peak  ${seconds.toFixed(1).padStart(6)} s`,
      );
    }
  } finally {
    await source.stop();
  }
} finally {
  await rm(dir, { recursive: true, force: true });
}

/** One layer of random bytes, so that it is as large compressed as it is uncompressed. */
async function makeImage(path) {
  const layout = await OciLayout.open(path);
  const tar = new Digester();
  const random = Buffer.alloc(MIB);
  function* bytes() {
    for (let n = 0; n < size; n++) {
      randomFillSync(random);
      tar.update(random);
      yield Buffer.from(random);
    }
  }
  const layer = await layout.write(Readable.from(bytes()).pipe(createGzip({ level: 0 })));
  const diffID = tar.digest();
  const put = async (document, mediaType, annotations = {}) => {
    const written = await layout.write(Buffer.from(JSON.stringify(document)));
    await layout.put({ mediaType, ...written, annotations });
    return { mediaType, ...written };
  };
  const config = await put(
    { os: 'linux', architecture: 'amd64', rootfs: { type: 'layers', diff_ids: [diffID] } },
    MediaType.config,
  );
  const layers = [{ mediaType: MediaType.layerGzip, ...layer }];
  await layout.put(layers[0]);
  await put({ schemaVersion: 2, mediaType: MediaType.manifest, config, layers }, MediaType.manifest, {
    [Annotation.refName]: 'big:1',
  });
  await layout.close();
  return { diffID, digest: layer.digest };
}
