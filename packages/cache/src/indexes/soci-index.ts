import { Annotation, MediaType, digestOf, type Descriptor, type ImageManifest } from '@layercache/oci';
import type { StoredLayerIndex } from './stored-index.js';

/** The config of a SOCI index manifest, version 1. */
export const SOCI_INDEX_TYPE = 'application/vnd.amazon.soci.index.v1+json';

/** An OCI 1.0 manifest must have a config, and SOCI has nothing to put there. */
const CONFIG = Buffer.from('{}');

const BUILD_TOOL = 'layercache';

interface Document {
  readonly descriptor: Descriptor;
  readonly bytes: Uint8Array;
}

export interface SociIndex extends Document {
  readonly config: Document;
}

/**
 * The manifest by which SOCI's snapshotter finds the layer indexes of an image: version 1 of its format, an image
 * manifest whose `subject` is the image. The same layers give the same bytes.
 */
export function encodeSociIndex(
  image: Descriptor,
  layers: readonly { readonly layer: Descriptor; readonly index: StoredLayerIndex }[],
): SociIndex {
  const config = { mediaType: SOCI_INDEX_TYPE, digest: digestOf(CONFIG), size: CONFIG.length };
  const manifest: ImageManifest = {
    schemaVersion: 2,
    mediaType: MediaType.manifest,
    config,
    layers: layers.map(({ layer, index }) => ({
      mediaType: MediaType.octetStream,
      digest: index.digest,
      size: index.size,
      annotations: {
        [Annotation.sociLayerDigest]: layer.digest,
        [Annotation.sociLayerMediaType]: layer.mediaType,
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
    config: { descriptor: config, bytes: CONFIG },
  };
}
