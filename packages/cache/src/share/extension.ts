import {
  Annotation,
  LayercacheError,
  MediaType,
  claimedDiffID,
  isImageManifestMediaType,
  isIndexMediaType,
  isLayercacheError,
  isManifestMediaType,
  refName,
  withAnnotations,
  type Descriptor,
  type Digest,
  type Logger,
} from '@layercache/oci';
import type { LayoutExtension, OciLayout } from '@layercache/layout';
import { indexedLayer } from '../indexes/stored-index.js';
import { claimPairs, isImageConfig, parseManifest, readImageConfig } from '../image-walk.js';
import {
  CACHE_TAG,
  cachedImages,
  decodeCacheIndex,
  decodeShard,
  encodeCacheIndex,
  shardBlobs,
  travellingEntries,
} from './cache-index.js';

type AdoptContext = Parameters<LayoutExtension['adopt']>[0];
type DeriveContext = Parameters<LayoutExtension['derive']>[0];

/**
 * What makes a layout a cache: each commit writes the cache index, and what other tools put into the layout
 * (an image, or a whole cache) becomes entries.
 */
export function cacheExtension(logger: Logger): LayoutExtension {
  return {
    names: [CACHE_TAG],
    derive: (context) => deriveCacheIndex(context),
    recognise: recogniseCacheIndex,
    adopt: (context) => adoptManifests(context, logger),
  };
}

function recogniseCacheIndex(bytes: Uint8Array, digest: Digest): Descriptor | undefined {
  try {
    if (decodeCacheIndex(bytes, `cache index ${digest}`) === undefined) return undefined;
  } catch (error) {
    if (isLayercacheError(error, 'DOCUMENT_INVALID')) return undefined;
    throw error;
  }
  return {
    mediaType: MediaType.index,
    digest,
    size: bytes.byteLength,
    annotations: { [Annotation.refName]: CACHE_TAG },
  };
}

async function deriveCacheIndex(
  context: DeriveContext,
): Promise<{ put: Descriptor[]; drop: Digest[]; unlink: Digest[] }> {
  const before = context.entries.filter((entry) => refName(entry) === CACHE_TAG).concat(context.superseded);
  const index = encodeCacheIndex(travellingEntries(context.entries), cachedImages(context.entries));
  const kept = new Set<Digest>([index.descriptor.digest]);
  for (const shard of index.shards) {
    await context.writeBlob(shard.config.bytes);
    await context.writeBlob(shard.bytes);
    kept.add(shard.descriptor.digest);
    kept.add(shard.config.descriptor.digest);
  }
  await context.writeBlob(index.bytes);
  const superseded = new Set<Digest>();
  for (const entry of before) {
    if (kept.has(entry.digest)) continue;
    superseded.add(entry.digest);
    const decoded = await readOrUndefined(context, entry.digest, (bytes) =>
      decodeCacheIndex(bytes, `cache index ${entry.digest}`),
    );
    for (const shard of decoded?.shards ?? []) {
      if (kept.has(shard.digest)) continue;
      superseded.add(shard.digest);
      const config = await readOrUndefined(context, shard.digest, (bytes) =>
        decodeShard(bytes, `cache manifest ${shard.digest}`),
      );
      if (config !== undefined && !kept.has(config.config.digest)) superseded.add(config.config.digest);
    }
  }
  const drop = before.map((entry) => entry.digest).filter((digest) => !kept.has(digest));
  return { put: [index.descriptor], drop, unlink: [...superseded] };
}

/** The blobs that commits make and that have no entry: what the cache index of a layout consists of. */
export async function derivedBlobs(layout: OciLayout): Promise<ReadonlySet<Digest>> {
  const entry = layout.lookupTag(CACHE_TAG)?.descriptor;
  if (entry === undefined) return new Set();
  const readBlob = (digest: Digest): Promise<Uint8Array> => layout.readBytes(digest, { touch: false });
  const decoded = await readOrUndefined({ readBlob }, entry.digest, (bytes) =>
    decodeCacheIndex(bytes, `cache index ${entry.digest}`),
  );
  return new Set(decoded === undefined ? [] : shardBlobs(decoded));
}

/** A superseded document that is gone or broken is no reason not to commit. */
async function readOrUndefined<T>(
  context: Pick<AdoptContext, 'readBlob'>,
  digest: Digest,
  decode: (bytes: Uint8Array) => T,
): Promise<T | undefined> {
  try {
    return decode(await context.readBlob(digest));
  } catch (error) {
    if (error instanceof LayercacheError) return undefined;
    throw error;
  }
}

async function adoptManifests(context: AdoptContext, logger: Logger): Promise<Descriptor[]> {
  const adopted: Descriptor[] = [];
  const seen = new Set<Digest>();
  const queue = [...context.manifests];
  for (let next = queue.pop(); next !== undefined; next = queue.pop()) {
    const manifest = next;
    if (seen.has(manifest.digest) || !isManifestMediaType(manifest.mediaType)) continue;
    seen.add(manifest.digest);
    try {
      const { entries, children } = await referenced(manifest, context);
      for (const entry of entries) adopted.push(entry);
      for (const child of children) queue.push(child);
    } catch (error) {
      if (!(error instanceof LayercacheError)) throw error;
      logger.warn({
        message: 'image not adopted',
        digest: manifest.digest,
        error: error.message,
        code: error.code,
      });
    }
  }
  return withDiffIDs(adopted, context);
}

/** A layer index that another tool made says which layer it is of; we find it by that layer's diffID. */
function withDiffIDs(adopted: readonly Descriptor[], context: AdoptContext): Descriptor[] {
  const diffIDs = new Map<Digest, Digest>();
  for (const entry of adopted) {
    const diffID = claimedDiffID(entry);
    if (diffID !== undefined) diffIDs.set(entry.digest, diffID);
  }
  const diffIDOf = (layer: Digest): Digest | undefined =>
    diffIDs.get(layer) ??
    context
      .lookup(layer)
      .map(({ descriptor }) => (descriptor.digest === layer ? claimedDiffID(descriptor) : undefined))
      .find((diffID) => diffID !== undefined);
  return adopted.map((entry) => {
    const layer = indexedLayer(entry);
    const diffID = layer === undefined ? undefined : (claimedDiffID(entry) ?? diffIDOf(layer));
    return diffID === undefined ? entry : withAnnotations(entry, { [Annotation.diffID]: diffID });
  });
}

/** What a manifest refers to that is here: blobs as entries, manifests as entries to look into. */
async function referenced(
  manifest: Descriptor,
  context: AdoptContext,
): Promise<{ entries: Descriptor[]; children: Descriptor[] }> {
  const bytes = await context.readBlob(manifest.digest);
  if (isIndexMediaType(manifest.mediaType)) {
    const decoded = decodeCacheIndex(bytes, `image index ${manifest.digest}`);
    if (decoded !== undefined) return expandCacheIndex(decoded, context);
  }
  if (!isImageManifestMediaType(manifest.mediaType)) {
    const parsed = parseManifest(manifest, bytes);
    const children = parsed.kind === 'index' ? await present(parsed.index.manifests, context) : [];
    return { entries: children, children };
  }
  const parsed = parseManifest(manifest, bytes);
  if (parsed.kind === 'index') return { entries: [], children: [] };
  const { config, layers } = parsed.manifest;
  const pairs =
    isImageConfig(config) && (await context.hasBlob(config.digest, config.size))
      ? claimPairs(
          parsed.manifest,
          readImageConfig(parsed.manifest, await context.readBlob(config.digest)),
          manifest.digest,
        )
      : layers;
  return { entries: await present([config, ...pairs], context), children: [] };
}

async function expandCacheIndex(
  decoded: NonNullable<ReturnType<typeof decodeCacheIndex>>,
  context: AdoptContext,
): Promise<{ entries: Descriptor[]; children: Descriptor[] }> {
  const listed: Descriptor[] = [];
  for (const shard of decoded.shards) {
    const bytes = await context.readBlob(shard.digest);
    for (const entry of decodeShard(bytes, `cache manifest ${shard.digest}`).entries) listed.push(entry);
  }
  const images = await present(decoded.images, context);
  return { entries: (await present(listed, context)).concat(images), children: images };
}

/** index.json lists only what is here. */
async function present(descriptors: readonly Descriptor[], context: AdoptContext): Promise<Descriptor[]> {
  const here: Descriptor[] = [];
  for (const descriptor of descriptors) {
    if (await context.hasBlob(descriptor.digest, descriptor.size)) here.push(descriptor);
  }
  return here;
}
