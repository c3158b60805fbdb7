import { gzipSync } from 'node:zlib';
import { Header } from 'tar';
import { MediaType, digestOf, type Descriptor, type Digest, type Platform } from '@layercache/oci';
import type { Registry } from '@layercache/registry';
import type { CacheIndex } from '../src/index.js';

export interface BuiltLayer {
  readonly descriptor: Descriptor;
  readonly bytes: Uint8Array;
  readonly tar: Uint8Array;
  readonly diffID: Digest;
}

export interface BuiltImage {
  readonly descriptor: Descriptor;
  readonly bytes: Uint8Array;
  readonly config: { readonly descriptor: Descriptor; readonly bytes: Uint8Array };
  readonly layers: readonly BuiltLayer[];
}

/** A tar of files with the given contents. */
export function tarOf(files: Readonly<Record<string, string | Uint8Array>>): Uint8Array {
  const blocks: Uint8Array[] = [];
  for (const [path, content] of Object.entries(files)) {
    const bytes = Buffer.from(content);
    const header = Buffer.alloc(512);
    new Header({
      path,
      size: bytes.length,
      type: 'File',
      mode: 0o644,
      mtime: new Date(0),
      uid: 0,
      gid: 0,
    }).encode(header);
    blocks.push(header, bytes, Buffer.alloc((512 - (bytes.length % 512)) % 512));
  }
  return Buffer.concat([...blocks, Buffer.alloc(1024)]);
}

/**
 * A tar of one file with holes, as GNU tar writes it in the pax format 0.1.
 *
 * @param map offset and size of each segment, one after the other
 */
export function sparseTar(
  path: string,
  stored: Uint8Array,
  map: readonly number[],
  size: number,
): Uint8Array {
  const records = Object.entries({
    'GNU.sparse.size': size,
    'GNU.sparse.numblocks': map.length / 2,
    'GNU.sparse.map': map.join(','),
  }).map(([key, value]) => {
    const rest = ` ${key}=${value}\n`;
    // The length counts its own digits.
    return `${rest.length + (rest.length + 2 > 99 ? 3 : 2)}${rest}`;
  });
  const header = Buffer.from(tarOf({ pax: records.join('') })).subarray(0, 1024);
  header.write('x', 156);
  header.fill(' ', 148, 156);
  const sum = header.subarray(0, 512).reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
  return Buffer.concat([header, tarOf({ [path]: stored })]);
}

const compressors: Readonly<Record<string, (tar: Uint8Array) => Uint8Array>> = {
  [MediaType.layer]: (tar) => tar,
  [MediaType.dockerLayer]: (tar) => tar,
  [MediaType.layerGzip]: (tar) => gzipSync(tar),
  [MediaType.dockerLayerGzip]: (tar) => gzipSync(tar),
  [MediaType.layerZstd]: zstdStored,
};

export function layerOf(tar: Uint8Array, mediaType: string = MediaType.layerGzip): BuiltLayer {
  return packedLayer(tar, compressors[mediaType]?.(tar) ?? tar, mediaType);
}

export function packedLayer(
  tar: Uint8Array,
  bytes: Uint8Array,
  mediaType: string = MediaType.layerGzip,
): BuiltLayer {
  return {
    tar,
    bytes,
    diffID: digestOf(tar),
    descriptor: { mediaType, digest: digestOf(bytes), size: bytes.length },
  };
}

/** A zstd frame of raw blocks (RFC 8878, sections 3.1.1.1 and 3.1.1.2): valid, though nothing is compressed. */
export function zstdStored(bytes: Uint8Array): Uint8Array {
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(bytes.length));
  // Frame_Content_Size of 8 bytes, single segment, no checksum.
  const parts: Uint8Array[] = [Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0xe0]), size];
  const step = 128 * 1024;
  for (let start = 0; start === 0 || start < bytes.length; start += step) {
    const block = bytes.subarray(start, start + step);
    const header = Buffer.alloc(3);
    header.writeUIntLE((start + step >= bytes.length ? 1 : 0) | (block.length << 3), 0, 3);
    parts.push(header, block);
  }
  return Buffer.concat(parts);
}

export interface ImageChoices {
  readonly platform?: Platform;
  /** What the config claims, instead of the truth. */
  readonly diffIDs?: readonly Digest[];
  readonly mediaType?: string;
  /** Layers that the manifest lists and nobody has. */
  readonly foreign?: readonly Descriptor[];
}

export function imageOf(layers: readonly BuiltLayer[], choices: ImageChoices = {}): BuiltImage {
  const {
    platform = { os: 'linux', architecture: 'amd64' },
    mediaType = MediaType.manifest,
    foreign = [],
  } = choices;
  const diffIDs = choices.diffIDs ?? [
    ...layers.map((layer) => layer.diffID),
    ...foreign.map((layer) => digestOf(layer.digest)),
  ];
  const configBytes = Buffer.from(
    JSON.stringify({
      ...platform,
      created: '2024-01-01T00:00:00Z',
      config: {},
      rootfs: { type: 'layers', diff_ids: diffIDs },
    }),
  );
  const docker = mediaType === MediaType.dockerManifest;
  const config = {
    mediaType: docker ? MediaType.dockerConfig : MediaType.config,
    digest: digestOf(configBytes),
    size: configBytes.length,
  };
  const bytes = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType,
      config,
      layers: [...layers.map((layer) => layer.descriptor), ...foreign],
    }),
  );
  return {
    descriptor: { mediaType, digest: digestOf(bytes), size: bytes.length, platform },
    bytes,
    config: { descriptor: config, bytes: configBytes },
    layers,
  };
}

export async function pushImage(
  registry: Registry,
  repository: string,
  tag: string | undefined,
  image: BuiltImage,
): Promise<void> {
  for (const layer of image.layers)
    await registry.pushBlob(repository, layer.descriptor, () => [layer.bytes]);
  await registry.pushBlob(repository, image.config.descriptor, () => [image.config.bytes]);
  await registry.pushManifest(
    repository,
    image.descriptor.mediaType,
    image.bytes,
    tag === undefined ? {} : { tag },
  );
}

/** A shared cache as anybody who may write to the registry can make it, with the blobs of an image beside it. */
export async function pushCacheIndex(
  registry: Registry,
  repository: string,
  tag: string,
  index: CacheIndex,
  image?: BuiltImage,
): Promise<void> {
  if (image !== undefined) await pushImage(registry, repository, undefined, image);
  for (const shard of index.shards) {
    await registry.pushBlob(repository, shard.config.descriptor, () => [shard.config.bytes]);
    await registry.pushManifest(repository, MediaType.manifest, shard.bytes);
  }
  await registry.pushManifest(repository, MediaType.index, index.bytes, { tag });
}

export async function pushIndex(
  registry: Registry,
  repository: string,
  tag: string,
  images: readonly BuiltImage[],
): Promise<Descriptor> {
  for (const image of images) await pushImage(registry, repository, undefined, image);
  const bytes = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: MediaType.index,
      manifests: images.map((image) => image.descriptor),
    }),
  );
  return registry.pushManifest(repository, MediaType.index, bytes, { tag });
}
