/** Images that are told apart by their label, and made anew from it. */
import { createCipheriv, createHash } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { MediaType, digestHex, digestOf } from '@layercache/oci';
import { tar } from '../../packages/layer/dist/test/tar/tar-builder.js';

/** Bytes that only their name tells, and that do not compress. */
function bytesNamed(name, size) {
  const key = createHash('sha256').update(name).digest();
  return createCipheriv('aes-128-ctr', key.subarray(0, 16), key.subarray(16)).update(Buffer.alloc(size));
}

function tarNamed(name, size) {
  return tar({ name, data: bytesNamed(name, size) });
}

/** An image of a layer that all have, and one of its own. */
export function makeImage(label, size) {
  const layers = [tarNamed('base', 9000), tarNamed(label, size)].map((layer) => {
    const bytes = gzipSync(layer);
    return {
      bytes,
      diffID: digestOf(layer),
      descriptor: { mediaType: MediaType.layerGzip, digest: digestOf(bytes), size: bytes.length },
    };
  });
  const config = Buffer.from(
    JSON.stringify({
      os: 'linux',
      architecture: 'amd64',
      config: { Labels: { label } },
      rootfs: { type: 'layers', diff_ids: layers.map((layer) => layer.diffID) },
    }),
  );
  const described = { mediaType: MediaType.config, digest: digestOf(config), size: config.length };
  const manifest = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: MediaType.manifest,
      config: described,
      layers: layers.map((layer) => layer.descriptor),
    }),
  );
  const blobs = [
    ...layers.map(({ descriptor, bytes }) => ({ descriptor, bytes })),
    { descriptor: described, bytes: config },
  ];
  return { digest: digestOf(manifest), manifest, blobs };
}

export async function pushImage(registry, repository, tag, { manifest, blobs }) {
  for (const { descriptor, bytes } of blobs) await registry.pushBlob(repository, descriptor, () => [bytes]);
  await registry.pushManifest(repository, MediaType.manifest, manifest, { tag });
}

/** The files of an image below the `blobs` of a layout. Returns the entry for it. */
export function writeBlobs(dir, { digest, manifest, blobs }, name) {
  mkdirSync(join(dir, 'blobs/sha256'), { recursive: true });
  const all = [...blobs, { descriptor: { digest }, bytes: manifest }];
  for (const { descriptor, bytes } of all) {
    try {
      writeFileSync(join(dir, 'blobs/sha256', digestHex(descriptor.digest)), bytes, { flag: 'wx' });
    } catch (error) {
      if (error.code !== 'EEXIST') throw error;
    }
  }
  return {
    mediaType: MediaType.manifest,
    digest,
    size: manifest.length,
    annotations: { 'org.opencontainers.image.ref.name': name },
  };
}

/** A layout of one image. */
export function writeLayout(dir, image, name) {
  const entry = writeBlobs(dir, image, name);
  writeFileSync(join(dir, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
  writeFileSync(join(dir, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests: [entry] }));
}
