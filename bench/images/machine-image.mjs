// An image made of this machine's own files, so that benchmarks have real input wherever they run.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createGzip } from 'node:zlib';
import { OciLayout } from '@layercache/layout';
import { Annotation, Digester, MediaType } from '@layercache/oci';

/** Folders tried in turn until there are enough bytes. */
const FOLDERS = [
  'usr/bin',
  'usr/share',
  'usr/include',
  'usr/lib/x86_64-linux-gnu',
  'usr/lib/gcc',
  'usr/local',
  'usr/lib/jvm',
  'opt',
  'usr/lib',
];

/**
 * Writes it into a layout, one layer for each folder, until they have `wanted` bytes compressed.
 *
 * @returns bytes compressed, and how many layers
 */
export async function makeMachineImage(path, name, wanted, { level = 1 } = {}) {
  const layout = await OciLayout.open(path);
  const layers = [];
  const diffIDs = [];
  let bytes = 0;
  for (const folder of FOLDERS) {
    if (bytes >= wanted) break;
    const { written, diffID } = await packFolder(layout, folder, level);
    layers.push({ mediaType: MediaType.layerGzip, ...written });
    diffIDs.push(diffID);
    bytes += written.size;
  }
  const config = await layout.write(
    Buffer.from(
      JSON.stringify({ os: 'linux', architecture: 'amd64', rootfs: { type: 'layers', diff_ids: diffIDs } }),
    ),
  );
  const manifest = await layout.write(
    Buffer.from(
      JSON.stringify({
        schemaVersion: 2,
        mediaType: MediaType.manifest,
        config: { mediaType: MediaType.config, ...config },
        layers,
      }),
    ),
  );
  await layout.put({
    mediaType: MediaType.manifest,
    ...manifest,
    annotations: { [Annotation.refName]: name },
  });
  await layout.close();
  return { bytes, layers: layers.length };
}

async function packFolder(layout, folder, level) {
  const tar = spawn('tar', ['-C', '/', '-cf', '-', '--sort=name', folder], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  const digester = new Digester();
  const gzip = createGzip({ level });
  const feeding = (async () => {
    for await (const chunk of tar.stdout) {
      digester.update(chunk);
      if (!gzip.write(chunk)) await once(gzip, 'drain');
    }
    gzip.end();
  })();
  const written = await layout.write(gzip);
  await feeding;
  return { written, diffID: digester.digest() };
}
