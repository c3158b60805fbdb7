import { isLayercacheError, isNondistributable, type Descriptor } from '@layercache/oci';
import type { OciLayout } from '@layercache/layout';
import {
  MAX_CONFIG_SIZE,
  claimPairs,
  isImageConfig,
  parseManifest,
  readImageConfig,
} from '../images/manifest.js';
import { entryOf } from '../entries/entry.js';
import { withOrigin, type BlobOrigin } from '../entries/origins.js';
import type { MirrorContext } from './mirror-context.js';

export interface ManifestContext {
  readonly layout: OciLayout;
  readonly fetch: MirrorContext['fetch'];
  readonly settled: MirrorContext['settled'];
  /** Where the manifest came from. */
  readonly origin: BlobOrigin;
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
  const { layout, origin, signal } = context;
  const parts = [config, ...layers]
    .filter((part) => !isNondistributable(part.mediaType))
    .map((part) => entryOf(part));
  const asEntries = (some: readonly Descriptor[]): Promise<Descriptor[]> =>
    Promise.all(some.map(async (part) => withOrigin(await context.settled(part, signal), origin)));
  if (!isImageConfig(config) || config.size > MAX_CONFIG_SIZE) return asEntries(parts);
  try {
    await context.fetch(config, { signal, origins: [origin] });
    const document = readImageConfig(
      parsed.manifest,
      await layout.readBytes(config.digest, { maxSize: MAX_CONFIG_SIZE }),
    );
    const pairs = claimPairs(parsed.manifest, document, manifest.digest);
    return await asEntries([entryOf(config), ...pairs.filter((pair) => !isNondistributable(pair.mediaType))]);
  } catch (error) {
    // Not every config is a valid image config; then no diffIDs are recorded.
    if (isLayercacheError(error, 'DOCUMENT_INVALID', 'DIFFID_MISMATCH', 'DIGEST_MISMATCH'))
      return asEntries(parts);
    throw error;
  }
}
