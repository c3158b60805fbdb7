import { gzipSync } from 'node:zlib';
import { MediaType, digestOf, type Descriptor, type Digest } from '@layercache/oci';
import type { Registry } from '@layercache/registry';
import { Header } from 'tar';

interface Entry {
  readonly type?: 'Directory' | 'SymbolicLink' | 'Link' | 'FIFO';
  readonly linkpath?: string;
  readonly mode?: number;
}

/** What an entry has in it, or what it is. */
export type LayerFiles = Readonly<Record<string, string | Uint8Array | Entry>>;

export interface PushedLayer extends Descriptor {
  readonly diffID: Digest;
}

function tarOf(files: LayerFiles): Buffer {
  const blocks: Uint8Array[] = [];
  for (const [path, what] of Object.entries(files)) {
    const isFile = typeof what === 'string' || what instanceof Uint8Array;
    const data = isFile ? Buffer.from(what) : Buffer.alloc(0);
    const { type, linkpath = '', mode = 0o644 }: Entry = isFile ? {} : what;
    const header = Buffer.alloc(512);
    new Header({
      path,
      linkpath,
      mode,
      size: data.length,
      type: type ?? 'File',
      mtime: new Date(1_600_000_000_000),
      uid: 0,
      gid: 0,
    }).encode(header);
    blocks.push(header, data, Buffer.alloc(-data.length & 511));
  }
  return Buffer.concat([...blocks, Buffer.alloc(1024)]);
}

/** An image of these layers, bottom to top. */
export async function pushLayers(
  registry: Registry,
  repository: string,
  tag: string,
  layers: readonly LayerFiles[],
): Promise<PushedLayer[]> {
  const push = async (mediaType: string, bytes: Uint8Array): Promise<Descriptor> => {
    const descriptor = { mediaType, digest: digestOf(bytes), size: bytes.length };
    await registry.pushBlob(repository, descriptor, () => [bytes]);
    return descriptor;
  };
  const pushed: PushedLayer[] = [];
  for (const tar of layers.map(tarOf)) {
    pushed.push({ ...(await push(MediaType.layerGzip, gzipSync(tar))), diffID: digestOf(tar) });
  }
  const rootfs = { type: 'layers', diff_ids: pushed.map((layer) => layer.diffID) };
  const config = await push(
    MediaType.config,
    Buffer.from(JSON.stringify({ os: 'linux', architecture: 'amd64', rootfs })),
  );
  const manifest = {
    schemaVersion: 2,
    mediaType: MediaType.manifest,
    config,
    layers: pushed.map(({ mediaType, digest, size }) => ({ mediaType, digest, size })),
  };
  await registry.pushManifest(repository, MediaType.manifest, Buffer.from(JSON.stringify(manifest)), { tag });
  return pushed;
}
