// Makes an image of layers of facts, and puts it into a registry.
import { gzipSync } from 'node:zlib';
import { MediaType } from '@layercache/oci';
import { imageOf, packedLayer, pushImage, zstdStored } from '../../packages/cache/dist/test/image-builder.js';

/** Bytes of each member of a gzip stream of several. */
const MEMBER = 100_000;

function members(tar) {
  const parts = [];
  for (let at = 0; at < tar.length; at += MEMBER) parts.push(gzipSync(tar.subarray(at, at + MEMBER)));
  return Buffer.concat(parts);
}

const PACKINGS = {
  gzip: (tar) => packedLayer(tar, gzipSync(tar)),
  members: (tar) => packedLayer(tar, members(tar)),
  zstd: (tar) => packedLayer(tar, zstdStored(tar), MediaType.layerZstd),
  tar: (tar) => packedLayer(tar, tar, MediaType.layer),
};

export function tarOf(entries) {
  const parts = entries.map((entry) => entry.bytes ?? entry.as(entry));
  return Buffer.concat([...parts, Buffer.alloc(1024)]);
}

/** `packing`: how to compress all layers; without it each says so itself, or is gzip. */
export async function pushLayers(registry, repository, layers, packing) {
  const packed = layers.map((layer) => PACKINGS[packing ?? layer.packing ?? 'gzip'](tarOf(layer.entries)));
  const image = imageOf(packed);
  await pushImage(registry, repository, '1', image);
  return image;
}
