import {
  Annotation,
  MediaType,
  digestOf,
  layerForm,
  type Descriptor,
  type ImageManifest,
} from '@layercache/oci';
import type { StoredLayerIndex } from './stored-index.js';

export const SOCI_INDEX_TYPE = 'application/vnd.amazon.soci.index.v1+json';

/** Of a SOCI index manifest: an OCI 1.0 manifest must have a config, and SOCI has nothing to put there. */
export const SOCI_CONFIG = Buffer.from('{}');

const BUILD_TOOL = 'layercache';

export interface SociIndex {
  readonly descriptor: Descriptor;
  readonly bytes: Uint8Array;
}

/**
 * The manifest by which SOCI's snapshotter finds the layer indexes of an image: version 1 of its format, an image
 * manifest whose `subject` is the image. Layers whose indexes describe another form than the image has (zstd) are
 * left out, as SOCI does.
 *
 * @param layers of the image, each with its index
 */
export function encodeSociIndex(
  image: Descriptor,
  layers: readonly { readonly descriptor: Descriptor; readonly index: StoredLayerIndex }[],
): SociIndex {
  const manifest: ImageManifest = {
    schemaVersion: 2,
    mediaType: MediaType.manifest,
    config: { mediaType: SOCI_INDEX_TYPE, digest: digestOf(SOCI_CONFIG), size: SOCI_CONFIG.length },
    layers: layers
      .filter(({ descriptor }) => layerForm(descriptor.mediaType) !== 'tar+zstd')
      .map(({ descriptor, index }) => ({
        mediaType: MediaType.octetStream,
        digest: index.digest,
        size: index.size,
        annotations: {
          [Annotation.sociLayerDigest]: descriptor.digest,
          [Annotation.sociLayerMediaType]: descriptor.mediaType,
        },
      })),
    subject: { mediaType: image.mediaType, digest: image.digest, size: image.size },
    annotations: { [Annotation.sociBuildTool]: BUILD_TOOL },
  };
  const bytes = Buffer.from(JSON.stringify(manifest));
  return {
    descriptor: {
      mediaType: MediaType.manifest,
      artifactType: SOCI_INDEX_TYPE,
      digest: digestOf(bytes),
      size: bytes.length,
    },
    bytes,
  };
}
