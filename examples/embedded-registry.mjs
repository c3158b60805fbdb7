// What the examples share: a registry on this machine, and images made of folders that are here. With it, each of
// them runs without a network and can say how many bytes crossed it.
import { gzipSync } from 'node:zlib';
import { MediaType, digestOf } from '@layercache/oci';
import { MemoryRegistry, createRegistryServer } from '@layercache/registry';
import { create } from 'tar';

/** A registry at a port of its own. `traffic` counts what it was asked for and what it sent. */
export async function startRegistry() {
  const registry = new MemoryRegistry();
  const server = createRegistryServer(registry);
  await server.listen({ host: '127.0.0.1', port: 0 });
  return {
    host: new URL(server.url).host,
    traffic: server.traffic,
    close: () => server.close(),

    /** Pushes an image of one layer for each list of paths below `root`. */
    async pushImage(name, root, ...layers) {
      const [repository, tag] = name.split(':');
      const push = async (mediaType, bytes) => {
        const descriptor = { mediaType, digest: digestOf(bytes), size: bytes.length };
        await registry.pushBlob(repository, descriptor, () => [bytes]);
        return descriptor;
      };
      const descriptors = [];
      const diffIDs = [];
      for (const paths of layers) {
        const tar = await pack(root, paths);
        descriptors.push(await push(MediaType.layerGzip, gzipSync(tar)));
        diffIDs.push(digestOf(tar));
      }
      const config = await push(MediaType.config, configOf(diffIDs));
      const bytes = json({ schemaVersion: 2, mediaType: MediaType.manifest, config, layers: descriptors });
      await registry.pushManifest(repository, MediaType.manifest, bytes, { tag });
      return { layers: descriptors, diffIDs };
    },
  };
}

/** A tar of files and folders; the same files give the same bytes. */
export async function pack(root, paths) {
  const chunks = [];
  const options = { cwd: root, portable: true, mtime: new Date(0) };
  for await (const chunk of create(options, paths)) chunks.push(chunk);
  return Buffer.concat(chunks);
}

export function configOf(diffIDs) {
  const architecture = process.arch === 'x64' ? 'amd64' : process.arch;
  return json({ os: 'linux', architecture, config: {}, rootfs: { type: 'layers', diff_ids: diffIDs } });
}

export function json(value) {
  return Buffer.from(JSON.stringify(value));
}

export function kilobytes(bytes) {
  return `${(bytes / 1000).toFixed(1)} kB`;
}
