import { isLayercacheError, isNondistributable, type Descriptor } from '@layercache/oci';
import type { OciLayout } from '@layercache/layout';
import { MAX_CONFIG_SIZE, claimPairs, isImageConfig, parseManifest, readImageConfig } from '../image-walk.js';
import { withOrigin } from '../share/blob-origin.js';

export interface ManifestContext {
  readonly layout: OciLayout;
  /** Brings a blob here from where its descriptor says that it can be had. */
  readonly fetch: (blob: Descriptor, options: { readonly signal: AbortSignal }) => Promise<unknown>;
  /** Where the manifest came from: `docker.io/library/alpine`. */
  readonly origin: string;
  readonly signal: AbortSignal;
}

/**
 * What a manifest refers to, as entries that say where their blobs are to be had: as after a lazy pull, a layer is known
 * by its digest and its diffID before anyone asked for its bytes. Images of an index become entries when they are asked
 * for.
 */
export async function mirroredParts(
  manifest: Descriptor,
  bytes: Uint8Array,
  context: ManifestContext,
): Promise<Descriptor[]> {
  const parsed = parseManifest(manifest, bytes);
  if (parsed.kind === 'index') return [];
  const { config, layers } = parsed.manifest;
  const entry = (part: Descriptor): Descriptor => withOrigin(part, context.origin);
  const parts = [config, ...layers].filter((part) => !isNondistributable(part.mediaType)).map(entry);
  if (!isImageConfig(config) || config.size > MAX_CONFIG_SIZE) return parts;
  await context.fetch(entry(config), { signal: context.signal });
  try {
    const document = readImageConfig(
      parsed.manifest,
      await context.layout.readBytes(config.digest, { maxSize: MAX_CONFIG_SIZE }),
    );
    const pairs = claimPairs(parsed.manifest, document, manifest.digest);
    return [config, ...pairs.filter((pair) => !isNondistributable(pair.mediaType))].map(entry);
  } catch (error) {
    // A registry takes any blob for a config. One that claims no pairs, or impossible ones, pairs nothing.
    if (isLayercacheError(error, 'DOCUMENT_INVALID', 'DIFFID_MISMATCH')) return parts;
    throw error;
  }
}
