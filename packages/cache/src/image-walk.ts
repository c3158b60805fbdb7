import {
  LayercacheError,
  isImageManifestMediaType,
  isIndexMediaType,
  parseImageConfig,
  parseImageIndex,
  parseImageManifest,
  withAnnotations,
  Annotation,
  MediaType,
  layerForm,
  type Descriptor,
  type ImageConfig,
  type ImageIndex,
  type ImageManifest,
} from '@layercache/oci';

/** Bytes. Configs are a few KiB; this is what a hostile one may cost. */
export const MAX_CONFIG_SIZE = 16 * 1024 * 1024;

/** A manifest, decoded by what its media type says it is. */
export type ParsedManifest =
  | { readonly kind: 'index'; readonly index: ImageIndex }
  | { readonly kind: 'image'; readonly manifest: ImageManifest };

/** @throws LayercacheError `DOCUMENT_INVALID`, `UNSUPPORTED` */
export function parseManifest(descriptor: Descriptor, bytes: Uint8Array): ParsedManifest {
  if (isIndexMediaType(descriptor.mediaType)) {
    return { kind: 'index', index: parseImageIndex(bytes, `image index ${descriptor.digest}`) };
  }
  if (isImageManifestMediaType(descriptor.mediaType)) {
    return { kind: 'image', manifest: parseImageManifest(bytes, `image manifest ${descriptor.digest}`) };
  }
  throw new LayercacheError(
    'UNSUPPORTED',
    `manifest ${descriptor.digest} has the media type ${descriptor.mediaType}: neither an image manifest nor an image index`,
  );
}

/** Whether a config is one of an image, with diffIDs, and not of some other artifact. */
export function isImageConfig(config: Descriptor): boolean {
  return config.mediaType === MediaType.config || config.mediaType === MediaType.dockerConfig;
}

/**
 * The layers of an image with the diffIDs that its config claims for them (config.md, `rootfs.diff_ids`:
 * in the order of the layers, one each).
 *
 * @throws LayercacheError `DOCUMENT_INVALID` when the counts differ, or when a `tar` layer is said to have a
 * diffID other than its digest
 */
export function claimPairs(manifest: ImageManifest, config: ImageConfig, image: string): Descriptor[] {
  const diffIDs = config.rootfs.diff_ids;
  if (diffIDs.length !== manifest.layers.length) {
    throw new LayercacheError(
      'DOCUMENT_INVALID',
      `image ${image} has ${manifest.layers.length} layers, but its config has ${diffIDs.length} diffIDs`,
    );
  }
  return manifest.layers.map((layer, position) => {
    const diffID = diffIDs[position];
    const form = layerForm(layer.mediaType);
    if (form === undefined || diffID === undefined) return layer;
    if (form !== 'tar') return withAnnotations(layer, { [Annotation.diffID]: diffID });
    if (diffID === layer.digest) return layer;
    throw new LayercacheError(
      'DIFFID_MISMATCH',
      `image ${image}: layer ${layer.digest} is a plain tar, so that is its diffID, but its config claims ${diffID}`,
    );
  });
}

export function readImageConfig(manifest: ImageManifest, bytes: Uint8Array): ImageConfig {
  return parseImageConfig(bytes, `image config ${manifest.config.digest}`);
}
