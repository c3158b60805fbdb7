import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Gzip } from 'fflate';
import { create as createTar } from 'tar';
import { Digester, MediaType, digestOf, type Descriptor, type Digest } from '@layercache/oci';
import type { Registry } from '@layercache/registry';

/** Bytes of files that go into the image: enough to be real, little enough not to keep anybody waiting. */
const WANTED = 48 * 1024 * 1024;
const LAYERS = 4;

export interface MadeImage {
  readonly digest: Digest;
  readonly files: number;
  readonly layers: readonly {
    readonly descriptor: Descriptor;
    readonly diffID: Digest;
    readonly tarSize: number;
  }[];
}

interface Folder {
  readonly name: string;
  readonly files: number;
  readonly bytes: number;
}

/** Makes an image of several layers out of the folders in `root`, and pushes it. */
export async function pushImageOfFolders(
  root: string,
  registry: Registry,
  repository: string,
  tag: string,
  signal?: AbortSignal,
): Promise<MadeImage> {
  const folders = chooseFolders(root);
  const layers: { descriptor: Descriptor; diffID: Digest; tarSize: number }[] = [];
  for (const names of spread(folders)) {
    const { bytes, diffID, tarSize } = await packLayer(root, names);
    const descriptor = { mediaType: MediaType.layerGzip, digest: digestOf(bytes), size: bytes.length };
    await registry.pushBlob(repository, descriptor, () => [bytes], { signal });
    layers.push({ descriptor, diffID, tarSize });
  }
  const config = Buffer.from(
    JSON.stringify({
      architecture: 'amd64',
      os: 'linux',
      config: { WorkingDir: '/app' },
      rootfs: { type: 'layers', diff_ids: layers.map((layer) => layer.diffID) },
    }),
  );
  const configDescriptor = { mediaType: MediaType.config, digest: digestOf(config), size: config.length };
  await registry.pushBlob(repository, configDescriptor, () => [config], { signal });
  const manifest = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: MediaType.manifest,
      config: configDescriptor,
      layers: layers.map((layer) => layer.descriptor),
    }),
  );
  const { digest } = await registry.pushManifest(repository, MediaType.manifest, manifest, { tag, signal });
  return { digest, files: folders.reduce((sum, folder) => sum + folder.files, 0), layers };
}

/** Folders over layers so that those are about as large as each other. */
function spread(folders: readonly Folder[]): string[][] {
  const layers = Array.from({ length: LAYERS }, () => ({ names: [] as string[], bytes: 0 }));
  for (const { name, bytes } of [...folders].sort((a, b) => b.bytes - a.bytes)) {
    const smallest = layers.reduce((least, layer) => (layer.bytes < least.bytes ? layer : least));
    smallest.names.push(name);
    smallest.bytes += bytes;
  }
  return layers.flatMap(({ names }) => (names.length === 0 ? [] : [names.sort()]));
}

/** The `node_modules` that this program's own libraries are installed in. */
export function packagesFolder(): string {
  const library = fileURLToPath(import.meta.resolve('commander'));
  return library.slice(0, library.lastIndexOf('node_modules') + 'node_modules'.length);
}

/** The largest packages that together stay below what is wanted. */
function chooseFolders(root: string): Folder[] {
  const folders = readdirSync(root, { withFileTypes: true })
    .filter((entry) => entry.isDirectory() && !entry.name.startsWith('.'))
    .map((entry) => measure(root, entry.name))
    .sort((a, b) => b.bytes - a.bytes);
  let left = WANTED;
  return folders.filter((folder) => {
    if (folder.bytes > left) return false;
    left -= folder.bytes;
    return true;
  });
}

function measure(root: string, name: string): Folder {
  let [files, bytes] = [0, 0];
  for (const entry of readdirSync(join(root, name), { withFileTypes: true, recursive: true })) {
    if (!entry.isFile()) continue;
    files += 1;
    bytes += statSync(join(entry.parentPath, entry.name)).size;
  }
  return { name, files, bytes };
}

/** One layer: gzip by fflate, whose bytes are the same on every machine. */
async function packLayer(
  root: string,
  names: readonly string[],
): Promise<{ bytes: Uint8Array; diffID: Digest; tarSize: number }> {
  // A name that starts with @ would mean an archive to take in. Synchronous, because the other way ends early on
  // files with several hard links, which some package managers make.
  const paths = names.map((name) => `./${name}`);
  const tar = createTar(
    { cwd: root, prefix: 'app/node_modules', portable: true, mtime: new Date(0), sync: true },
    paths,
  );
  const digester = new Digester();
  const chunks: Uint8Array[] = [];
  const gzip = new Gzip({ level: 6, mtime: 0 }, (chunk) => chunks.push(chunk));
  for await (const bytes of tar as AsyncIterable<Uint8Array>) {
    digester.update(bytes);
    // fflate keeps a reference to what it is given.
    gzip.push(Uint8Array.from(bytes));
  }
  gzip.push(new Uint8Array(0), true);
  return { bytes: Buffer.concat(chunks), diffID: digester.digest(), tarSize: digester.size };
}
