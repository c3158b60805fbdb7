import {
  LayercacheError,
  isImageManifestMediaType,
  isIndexMediaType,
  parseImageConfig,
  parseImageIndex,
  parseImageManifest,
  MediaType,
  layerForm,
  type Descriptor,
  type ImageConfig,
  type ImageIndex,
  type ImageManifest,
} from '@layercache/oci';
import { entryOf } from '../entries/entry.js';
import { checkDescriptors } from './checked-descriptors.js';

/** Bytes. Configs are a few KiB; this is what a hostile one may cost. */
export const MAX_CONFIG_SIZE = 16 * 1024 * 1024;

/** A manifest, decoded by what its media type says it is. */
export type ParsedManifest =
  | { readonly kind: 'index'; readonly index: ImageIndex }
  | { readonly kind: 'image'; readonly manifest: ImageManifest };

/**
 * Decodes a manifest and checks all that the cache relies on in it. This is the one way in for manifests, wherever they
 * come from, so what passes here can be listed, committed, verified and shared.
 *
 * @throws LayercacheError `DOCUMENT_INVALID`, `UNSUPPORTED`
 */
export function parseManifest(descriptor: Descriptor, bytes: Uint8Array): ParsedManifest {
  const { mediaType, digest } = descriptor;
  if (isIndexMediaType(mediaType)) {
    const what = `image index ${digest}`;
    const index = parseImageIndex(bytes, what);
    checkMediaType(index, mediaType, what);
    checkDescriptors({ manifests: index.manifests, subject: index.subject }, what);
    return { kind: 'index', index };
  }
  if (isImageManifestMediaType(mediaType)) {
    const what = `image manifest ${digest}`;
    const manifest = parseImageManifest(bytes, what);
    checkMediaType(manifest, mediaType, what);
    const { config, layers, subject } = manifest;
    checkDescriptors({ config, layers, subject }, what);
    return { kind: 'image', manifest };
  }
  throw new LayercacheError(
    'UNSUPPORTED',
    `manifest ${digest} has the media type ${mediaType}: neither an image manifest nor an image index`,
  );
}

/** The two should be the same (image specification, manifest.md, `mediaType`), and readers trust one or the other. */
function checkMediaType(
  document: { readonly mediaType?: string | undefined },
  mediaType: string,
  what: string,
): void {
  if (document.mediaType === undefined || document.mediaType === mediaType) return;
  throw new LayercacheError(
    'DOCUMENT_INVALID',
    `${what} is not valid: mediaType: it says ${JSON.stringify(document.mediaType.slice(0, 200))}, but is referred to as ${mediaType}`,
  );
}

/** Whether a config is one of an image, with diffIDs, and not of some other artifact. */
export function isImageConfig(config: Descriptor): boolean {
  return config.mediaType === MediaType.config || config.mediaType === MediaType.dockerConfig;
}

/**
 * The layers of an image as entries, with the diffIDs that its config claims for them (config.md, `rootfs.diff_ids`:
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
    if (form === undefined || diffID === undefined) return entryOf(layer);
    if (form !== 'tar') return entryOf(layer, { diffID });
    if (diffID === layer.digest) return entryOf(layer);
    throw new LayercacheError(
      'DIFFID_MISMATCH',
      `image ${image}: layer ${layer.digest} is a plain tar, so that is its diffID, but its config claims ${diffID}`,
    );
  });
}

export function readImageConfig(manifest: ImageManifest, bytes: Uint8Array): ImageConfig {
  return parseImageConfig(bytes, `image config ${manifest.config.digest}`);
}
