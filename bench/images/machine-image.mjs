// An image made of this machine's own files, so that benchmarks have real input wherever they run.
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, rename } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createGzip } from 'node:zlib';
import { OciLayout } from '@layercache/layout';
import { Annotation, Digester, MediaType } from '@layercache/oci';

/** One folder a layer, tried in turn until there are enough bytes. */
export const FOLDERS = [
  'usr/bin',
  'usr/share',
  'usr/include',
  'usr/lib/x86_64-linux-gnu',
  'usr/lib/gcc',
  'usr/local',
  'usr/lib/jvm',
  'opt',
  'usr/lib',
].map((folder) => [folder]);

/** What is in the folders of /usr, the smaller first, up to `wanted` bytes, spread evenly over `count` layers. */
export function evenLayers(count, wanted) {
  const { stdout } = spawnSync(
    'sh',
    ['-c', 'du -xk -d 0 usr/bin/* usr/lib/* usr/share/* 2>/dev/null | sort -n'],
    {
      cwd: '/',
      encoding: 'utf8',
      maxBuffer: 1 << 26,
    },
  );
  const layers = Array.from({ length: count }, () => ({ bytes: 0, paths: [] }));
  let left = wanted;
  for (const line of stdout.trim().split('\n')) {
    const [size, path] = line.split('\t');
    if (left <= 0) break;
    const bytes = Number(size) * 1024;
    const smallest = layers.reduce((least, layer) => (layer.bytes < least.bytes ? layer : least));
    smallest.paths.push(path);
    smallest.bytes += bytes;
    left -= bytes;
  }
  return layers.map(({ paths }) => paths.sort());
}

/**
 * Writes it into a layout, one layer for each list of paths, until they have `wanted` bytes compressed.
 *
 * @returns bytes compressed, and how many layers
 */
export async function makeMachineImage(path, name, lists, { wanted = Infinity, level = 1 } = {}) {
  const layout = await OciLayout.open(path);
  const layers = [];
  const diffIDs = [];
  let bytes = 0;
  for (const paths of lists) {
    if (bytes >= wanted) break;
    const { written, diffID } = await pack(layout, paths, level);
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

async function pack(layout, paths, level) {
  const tar = spawn('tar', ['-C', '/', '-cf', '-', '--sort=name', ...paths], {
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

/** An image of ten layers, with 300 MB compressed or more. Kept for the next time: it takes a while to make. */
export async function tenLayers() {
  const path = join(tmpdir(), 'layercache-bench-image');
  if (existsSync(path)) return path;
  console.error(`making an image of this machine's own files in ${path}`);
  const unfinished = await mkdtemp(`${path}-`);
  await makeMachineImage(unfinished, 'bench:1', evenLayers(10, 1_100_000_000), { level: 6 });
  await rename(unfinished, path);
  return path;
}
