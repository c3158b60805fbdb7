import { z } from 'zod';
import { annotationsSchema, descriptorSchema, digestSchema, type Descriptor } from './descriptor.js';
import type { Digest } from './digest.js';
import { parseDocument } from './document.js';
import { LayercacheError } from './errors.js';

/** The largest manifest that registries take: 4 MiB (distribution specification, "Pushing Manifests"). */
export const MAX_MANIFEST_SIZE = 4 * 1024 * 1024;

/** OCI image manifest (manifest.md), and Docker's schema 2, which has the same shape. */
export const imageManifestSchema = z.looseObject({
  schemaVersion: z.literal(2),
  mediaType: z.string().optional(),
  artifactType: z.string().optional(),
  config: descriptorSchema,
  layers: z.array(descriptorSchema),
  subject: descriptorSchema.optional(),
  annotations: annotationsSchema.optional(),
});

export interface ImageManifest {
  readonly schemaVersion: 2;
  readonly mediaType?: string | undefined;
  readonly artifactType?: string | undefined;
  readonly config: Descriptor;
  readonly layers: readonly Descriptor[];
  readonly subject?: Descriptor | undefined;
  readonly annotations?: Readonly<Record<string, string>> | undefined;
}

/** OCI image index (image-index.md), and Docker's manifest list, which has the same shape. */
export const imageIndexSchema = z.looseObject({
  schemaVersion: z.literal(2),
  mediaType: z.string().optional(),
  artifactType: z.string().optional(),
  manifests: z.array(descriptorSchema),
  subject: descriptorSchema.optional(),
  annotations: annotationsSchema.optional(),
});

export interface ImageIndex {
  readonly schemaVersion: 2;
  readonly mediaType?: string | undefined;
  readonly artifactType?: string | undefined;
  readonly manifests: readonly Descriptor[];
  readonly subject?: Descriptor | undefined;
  readonly annotations?: Readonly<Record<string, string>> | undefined;
}

/** The part of an image config (config.md) that the cache reads. Other fields are kept. */
export const imageConfigSchema = z.looseObject({
  created: z.string().optional(),
  architecture: z.string().optional(),
  os: z.string().optional(),
  variant: z.string().optional(),
  rootfs: z.looseObject({ type: z.literal('layers'), diff_ids: z.array(digestSchema) }),
});

export interface ImageConfig {
  readonly created?: string | undefined;
  readonly architecture?: string | undefined;
  readonly os?: string | undefined;
  readonly variant?: string | undefined;
  readonly rootfs: { readonly type: 'layers'; readonly diff_ids: readonly Digest[] };
}

/**
 * An image manifest. A document that is an image index as well is refused: two readers would see two images in it.
 *
 * @throws LayercacheError `DOCUMENT_INVALID`
 */
export function parseImageManifest(bytes: Uint8Array, what = 'image manifest'): ImageManifest {
  const manifest = parseDocument<ImageManifest>(imageManifestSchema, bytes, what);
  refuseFields(manifest, ['manifests'], 'an image manifest', what);
  return manifest;
}

/**
 * An image index. A document that is an image manifest as well is refused: two readers would see two images in it.
 *
 * @throws LayercacheError `DOCUMENT_INVALID`
 */
export function parseImageIndex(bytes: Uint8Array, what = 'image index'): ImageIndex {
  const index = parseDocument<ImageIndex>(imageIndexSchema, bytes, what);
  refuseFields(index, ['layers', 'config', 'fsLayers'], 'an image index', what);
  return index;
}

const KNOWN = new Set([
  'schemaVersion',
  'mediaType',
  'artifactType',
  'config',
  'layers',
  'manifests',
  'subject',
]);
const KNOWN_LOWER = new Set([...KNOWN].map((field) => field.toLowerCase()));

/** Refuses fields of another kind of document, and known fields in other letters: Go reads `Layers` as `layers`. */
function refuseFields(document: object, fields: readonly string[], kind: string, what: string): void {
  for (const [field, value] of Object.entries(document)) {
    const isOther = fields.includes(field) && value !== null && value !== undefined;
    if (!isOther && (KNOWN.has(field) || !KNOWN_LOWER.has(field.toLowerCase()))) continue;
    throw new LayercacheError(
      'DOCUMENT_INVALID',
      `${what} is not valid: ${field}: ${kind} has no such field, and readers would not agree on what the document means`,
    );
  }
}

export function parseImageConfig(bytes: Uint8Array, what = 'image config'): ImageConfig {
  return parseDocument<ImageConfig>(imageConfigSchema, bytes, what);
}
