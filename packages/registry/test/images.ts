import { MediaType, digestOf, type Descriptor } from '@layercache/oci';
import type { Registry } from '../src/registry.js';

export function descriptorOf(bytes: Uint8Array, mediaType: string): Descriptor {
  return { mediaType, digest: digestOf(bytes), size: bytes.length };
}

/** An image manifest over `config` and `layers`. */
export function imageManifest(
  config: Uint8Array,
  layers: readonly Uint8Array[],
  more: Readonly<Record<string, unknown>> = {},
): Buffer<ArrayBuffer> {
  return Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: MediaType.manifest,
      config: descriptorOf(config, MediaType.config),
      layers: layers.map((layer) => descriptorOf(layer, MediaType.layer)),
      ...more,
    }),
  );
}

export function imageIndex(
  manifests: readonly Descriptor[],
  more: Readonly<Record<string, unknown>> = {},
): Buffer<ArrayBuffer> {
  return Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: MediaType.index, manifests, ...more }));
}

/** Puts an image with one layer into a registry. */
export async function pushImage(
  registry: Registry,
  repository: string,
  text: string,
  options: { readonly tag?: string; readonly more?: Readonly<Record<string, unknown>> } = {},
): Promise<Descriptor> {
  const config = Buffer.from(JSON.stringify({ os: 'linux', architecture: 'amd64', text }));
  const layer = Buffer.from(`layer ${text}`);
  for (const blob of [config, layer]) await pushBytes(registry, repository, blob);
  const manifest = imageManifest(config, [layer], options.more);
  return registry.pushManifest(
    repository,
    MediaType.manifest,
    manifest,
    options.tag === undefined ? {} : { tag: options.tag },
  );
}

export async function pushBytes(
  registry: Registry,
  repository: string,
  bytes: Uint8Array,
): Promise<Descriptor> {
  const descriptor = descriptorOf(bytes, MediaType.octetStream);
  await registry.pushBlob(repository, descriptor, () => [bytes]);
  return descriptor;
}
