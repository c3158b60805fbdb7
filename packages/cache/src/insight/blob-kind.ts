import { Annotation, MediaType, isManifestMediaType, layerForm, type Descriptor } from '@layercache/oci';
import { CACHE_CONFIG_TYPE } from '../share/cache-index.js';

/** What a blob is, as statistics count it. `cache index`: what makes the whole cache one OCI object. */
export const BLOB_KINDS = [
  'manifest',
  'config',
  'compressed layer',
  'tar',
  'layer index',
  'cache index',
  'other',
] as const;

export type BlobKind = (typeof BLOB_KINDS)[number];

export function blobKind({ mediaType, annotations }: Descriptor): BlobKind {
  if (isManifestMediaType(mediaType)) return 'manifest';
  if (mediaType === MediaType.config || mediaType === MediaType.dockerConfig) return 'config';
  if (mediaType === CACHE_CONFIG_TYPE) return 'cache index';
  const form = layerForm(mediaType);
  if (form !== undefined) return form === 'tar' ? 'tar' : 'compressed layer';
  return annotations?.[Annotation.sociLayerDigest] === undefined ? 'other' : 'layer index';
}
