import {
  Annotation,
  LayercacheError,
  MediaType,
  claimedDiffID,
  isIndexMediaType,
  isLayercacheError,
  isManifestMediaType,
  refName,
  withAnnotations,
  type Descriptor,
  type Digest,
  type ImageManifest,
  type Logger,
} from '@layercache/oci';
import type { LayoutExtension, OciLayout } from '@layercache/layout';
import { entryOf } from '../entries/entry.js';
import { SOCI_INDEX_TYPE } from '../indexes/soci-index.js';
import { indexedLayer } from '../indexes/stored-index.js';
import { claimPairs, isImageConfig, parseManifest, readImageConfig } from '../images/manifest.js';
import {
  CACHE_ARTIFACT_TYPE,
  decodeCacheIndex,
  decodeImageShard,
  decodeShard,
  encodeCacheIndex,
  shardBlobs,
} from './cache-index.js';
import { cachedImages, travellingEntries } from './travelling.js';
import { withRevision } from './shared-state.js';
import { CACHE_TAG } from '../entries/names.js';

type AdoptContext = Parameters<LayoutExtension['adopt']>[0];
type DeriveContext = Parameters<LayoutExtension['derive']>[0];

/**
 * What makes a layout a cache: each commit writes the cache index, and what other tools put into the layout
 * (an image, or a whole cache) becomes entries.
 */
export function cacheExtension(logger: Logger): LayoutExtension {
  const kinds = new Map<Digest, boolean>();
  return {
    names: [CACHE_TAG],
    derive: (context) => deriveCacheIndex(context, kinds),
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

/** @param kinds whether an image index is a cache index, for those that were looked into */
async function deriveCacheIndex(
  context: DeriveContext,
  kinds: Map<Digest, boolean>,
): Promise<{ put: Descriptor[]; drop: Digest[]; unlink: Digest[]; keep: Digest[] }> {
  const entries = context.entries;
  const former = await formerCacheIndexes(context, entries, kinds);
  const stale = new Set(former.map(({ digest }) => digest));
  const named = entries.filter((entry) => refName(entry) === CACHE_TAG);
  const before = named.concat(context.superseded, former);
  const staying = entries.filter((entry) => !stale.has(entry.digest) && !isNamelessShard(entry));
  const index = encodeCacheIndex(travellingEntries(staying, context.proven), cachedImages(staying));
  const kept = new Set<Digest>([index.descriptor.digest]);
  for (const shard of index.shards) {
    await context.writeBlob(shard.config.bytes);
    await context.writeBlob(shard.bytes);
    kept.add(shard.descriptor.digest);
    kept.add(shard.config.descriptor.digest);
  }
  for (const shard of index.imageShards) {
    await context.writeBlob(shard.bytes);
    kept.add(shard.descriptor.digest);
  }
  await context.writeBlob(index.bytes);
  const superseded = new Set<Digest>();
  const drop = entries.filter(isNamelessShard).map(({ digest }) => digest);
  for (const entry of before) {
    if (kept.has(entry.digest)) continue;
    const decoded = await readOrUndefined(context, entry.digest, (bytes) =>
      decodeCacheIndex(bytes, `cache index ${entry.digest}`),
    );
    // Another tool may have given the name to an image, which loses it and stays.
    if (decoded === undefined) continue;
    drop.push(entry.digest);
    superseded.add(entry.digest);
    for (const { digest } of decoded.imageShards) if (!kept.has(digest)) superseded.add(digest);
    for (const shard of decoded.shards) {
      if (kept.has(shard.digest)) continue;
      superseded.add(shard.digest);
      const config = await readOrUndefined(context, shard.digest, (bytes) =>
        decodeShard(bytes, `cache manifest ${shard.digest}`),
      );
      if (config !== undefined && !kept.has(config.config.digest)) superseded.add(config.config.digest);
    }
  }
  return { put: [index.descriptor], drop, unlink: [...superseded], keep: [...kept] };
}

/**
 * Cache indexes that lost their name: a process died in the middle of a commit, or another tool wrote `index.json`
 * without it. They are told by what is in them. As images they would keep alive, and send to others, all they list.
 */
async function formerCacheIndexes(
  context: DeriveContext,
  entries: readonly Descriptor[],
  kinds: Map<Digest, boolean>,
): Promise<Descriptor[]> {
  const named = new Set(entries.filter((entry) => refName(entry) !== undefined).map(({ digest }) => digest));
  const former: Descriptor[] = [];
  for (const entry of entries) {
    const { digest, mediaType } = entry;
    if (!isIndexMediaType(mediaType) || named.has(digest)) continue;
    const known =
      kinds.get(digest) ??
      (await readOrUndefined(
        context,
        digest,
        (bytes) => decodeCacheIndex(bytes, `image index ${digest}`) !== undefined,
      ));
    if (known !== undefined) kinds.set(digest, known);
    if (known === true) former.push(entry);
  }
  return former;
}

/** A shard that was taken for an image. */
function isNamelessShard(entry: Descriptor): boolean {
  return (
    isManifestMediaType(entry.mediaType) &&
    entry.artifactType === CACHE_ARTIFACT_TYPE &&
    refName(entry) === undefined
  );
}

/** The blobs that commits make and that have no entry: what the cache index of a layout consists of. */
export async function derivedBlobs(layout: OciLayout): Promise<ReadonlySet<Digest>> {
  const retired = layout.retiredBlobs();
  const entry = layout.lookupTag(CACHE_TAG)?.descriptor;
  if (entry === undefined) return new Set(retired);
  const readBlob = (digest: Digest): Promise<Uint8Array> => layout.readBytes(digest, { touch: false });
  const decoded = await readOrUndefined({ readBlob }, entry.digest, (bytes) =>
    decodeCacheIndex(bytes, `cache index ${entry.digest}`),
  );
  return new Set([...retired, ...(decoded === undefined ? [] : shardBlobs(decoded))]);
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

/** A manifest to look into. */
interface Found {
  readonly descriptor: Descriptor;
  /** Whether index.json lists it: then it is an entry already. */
  readonly listed: boolean;
}

/** Entries for what another tool put into the layout: a manifest becomes one when it can be read, and its parts with it. */
async function adoptManifests(context: AdoptContext, logger: Logger): Promise<Descriptor[]> {
  const adopted: Descriptor[] = [];
  const seen = new Set<Digest>();
  const queue: Found[] = context.manifests.map((descriptor) => ({ descriptor, listed: true }));
  for (let next = queue.pop(); next !== undefined; next = queue.pop()) {
    const { descriptor, listed } = next;
    if (!isManifestMediaType(descriptor.mediaType)) continue;
    // A manifest has an entry for each of its names, and is looked into once.
    if (seen.has(descriptor.digest)) {
      if (!listed) adopted.push(descriptor);
      continue;
    }
    seen.add(descriptor.digest);
    try {
      const { entries, children } = await referenced(descriptor, context);
      if (!listed) adopted.push(descriptor);
      for (const entry of entries) adopted.push(entry);
      for (const child of children) queue.push({ descriptor: child, listed: false });
    } catch (error) {
      if (!(error instanceof LayercacheError)) throw error;
      logger.warn({
        message: 'image not adopted',
        digest: descriptor.digest,
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
  // Told by what it is: another tool may have copied it here under another name, or without one.
  if (isIndexMediaType(manifest.mediaType)) {
    const decoded = decodeCacheIndex(bytes, `cache index ${manifest.digest}`);
    if (decoded !== undefined) return expandCacheIndex(decoded, context);
  }
  const parsed = parseManifest(manifest, bytes);
  if (parsed.kind === 'index') {
    const children = parsed.index.manifests.map((child) => entryOf(child));
    return { entries: [], children: await present(children, context) };
  }
  const { config, layers } = parsed.manifest;
  if (config.mediaType === SOCI_INDEX_TYPE)
    return { entries: await present(await sociEntries(parsed.manifest, context), context), children: [] };
  const pairs =
    isImageConfig(config) && (await context.hasBlob(config.digest, config.size))
      ? claimPairs(
          parsed.manifest,
          readImageConfig(parsed.manifest, await context.readBlob(config.digest)),
          manifest.digest,
        )
      : layers.map((layer) => entryOf(layer));
  return { entries: await present([entryOf(config), ...pairs], context), children: [] };
}

/**
 * A SOCI index manifest with its layer indexes, which serve the image that it refers to, and no other. They are claims
 * of layers that this very image has.
 */
async function sociEntries(
  { config, layers, subject }: ImageManifest,
  context: AdoptContext,
): Promise<Descriptor[]> {
  const indexed = new Set<string>();
  if (subject !== undefined && (await context.hasBlob(subject.digest, subject.size))) {
    const image = parseManifest(subject, await context.readBlob(subject.digest));
    if (image.kind === 'image') for (const { digest } of image.manifest.layers) indexed.add(digest);
  }
  const indexes = layers.map((blob) => {
    const layer = indexedLayer(blob);
    return layer !== undefined && indexed.has(layer)
      ? entryOf(blob, { indexedLayer: layer, indexedImage: subject?.digest })
      : entryOf(blob);
  });
  return [entryOf(config), ...indexes];
}

/** What a shared cache says of layers, and of names that nothing has here: all of it claims. */
async function expandCacheIndex(
  decoded: NonNullable<ReturnType<typeof decodeCacheIndex>>,
  context: AdoptContext,
): Promise<{ entries: Descriptor[]; children: Descriptor[] }> {
  const entries: Descriptor[] = [];
  for (const shard of decoded.shards) {
    const listed = decodeShard(await context.readBlob(shard.digest), `cache manifest ${shard.digest}`);
    const claims = listed.entries.map((entry) => withRevision(entry, 0));
    for (const entry of await present(claims, context)) entries.push(entry);
  }
  const listed = [...decoded.images];
  for (const { digest } of decoded.imageShards) {
    const images = decodeImageShard(await context.readBlob(digest), `images of the cache, ${digest}`);
    for (const image of images) listed.push(image);
  }
  const images = listed.map((image) => entryOf(image, { name: refName(image), claimedName: true }));
  return { entries, children: await present(images, context) };
}

/** index.json lists only what is here. */
async function present(descriptors: readonly Descriptor[], context: AdoptContext): Promise<Descriptor[]> {
  const here: Descriptor[] = [];
  for (const descriptor of descriptors) {
    if (await context.hasBlob(descriptor.digest, descriptor.size)) here.push(descriptor);
  }
  return here;
}
