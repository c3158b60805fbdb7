import {
  Annotation,
  MediaType,
  claimedDigests,
  claimedDiffID,
  digestHex,
  digestOf,
  isManifestMediaType,
  layerForm,
  refName,
  parseImageIndex,
  parseImageManifest,
  withAnnotations,
  type Descriptor,
  type Digest,
} from '@layercache/oci';

/**
 * The format in which a whole cache is one OCI object (docs/format.md, "The cache index"): an image index of
 * cache manifests ("shards"), whose `layers` are the entries, and of the manifests of the images. Pure functions.
 */

export const CACHE_ARTIFACT_TYPE = 'application/vnd.layercache.cache.v1';
export const CACHE_CONFIG_TYPE = 'application/vnd.layercache.cache.config.v1+json';

/** The name of the cache index in a layout's own index.json. */
export const CACHE_TAG = 'layercache';

/** On a shard's descriptor: the leading bits that the digests in it share, as `0` and `1`; empty for all. */
const SHARD_ANNOTATION = 'dev.layercache.shard';
/** On the cache index's entry in index.json: how many entries its shards list. */
export const COUNT_ANNOTATION = 'dev.layercache.entries';

/** Bytes. Registries refuse manifests over 4 MiB; the rest is room for what a registry or a tool may add. */
export const MAX_SHARD_SIZE = 3.5 * 1024 * 1024;

/** A document of the format, and the descriptor that names it. */
export interface CacheDocument {
  readonly descriptor: Descriptor;
  readonly bytes: Uint8Array;
}

export interface Shard extends CacheDocument {
  readonly prefix: string;
  /** A few bytes of JSON that the manifest refers to as its config. */
  readonly config: CacheDocument;
  readonly entries: readonly Descriptor[];
}

export interface CacheIndex extends CacheDocument {
  readonly shards: readonly Shard[];
  /** Manifests of cached images, named where they have a name. */
  readonly images: readonly Descriptor[];
}

/**
 * Which entries travel in shards. Manifests travel as children of the cache index, and image configs with
 * them; a tar that has a compressed form here stays home, because it can be derived.
 */
export function travellingEntries(entries: readonly Descriptor[], withUncompressed = false): Descriptor[] {
  const derivable = new Set<Digest>();
  if (!withUncompressed) {
    for (const entry of entries) {
      if (layerForm(entry.mediaType) === 'tar') continue;
      const diffID = claimedDiffID(entry);
      if (diffID !== undefined) derivable.add(diffID);
    }
  }
  const travelling = entries.filter(
    (entry) =>
      !isManifestMediaType(entry.mediaType) &&
      !isImageConfigType(entry.mediaType) &&
      !derivable.has(entry.digest),
  );
  return uniteEntries(travelling);
}

function isImageConfigType(mediaType: string): boolean {
  return mediaType === MediaType.config || mediaType === MediaType.dockerConfig;
}

/** The images of a cache: every manifest but the cache index itself. */
export function cachedImages(entries: readonly Descriptor[]): Descriptor[] {
  return entries.filter(
    (entry) => isManifestMediaType(entry.mediaType) && entry.annotations?.[Annotation.refName] !== CACHE_TAG,
  );
}

/** Entries of both, each digest once. What both say of a blob is united; where they differ, the later holds. */
export function uniteEntries(...lists: (readonly Descriptor[])[]): Descriptor[] {
  const united = new Map<Digest, Descriptor>();
  for (const entry of lists.flat()) {
    const before = united.get(entry.digest);
    if (before === undefined) united.set(entry.digest, entry);
    else {
      const digests = [...new Set([...claimedDigests(before), ...claimedDigests(entry)])].sort().join(',');
      const merged = { ...before, ...entry, annotations: { ...before.annotations, ...entry.annotations } };
      united.set(
        entry.digest,
        withAnnotations(merged, { [Annotation.digest]: digests === '' ? undefined : digests }),
      );
    }
  }
  return [...united.values()];
}

/**
 * The cache index of a set of entries and images: the same set gives the same bytes. Where images share a name,
 * it belongs to the last of them.
 */
export function encodeCacheIndex(
  entries: readonly Descriptor[],
  images: readonly Descriptor[],
  maxShardSize = MAX_SHARD_SIZE,
): CacheIndex {
  const sorted = [...entries].sort(byDigest);
  const shards = sorted.length === 0 ? [] : split(sorted.map(sized), '', maxShardSize);
  const sortedImages = uniteImages(images).sort(
    (a, b) =>
      byDigest(a, b) || compare(a.annotations?.[Annotation.refName], b.annotations?.[Annotation.refName]),
  );
  const bytes = encode({
    schemaVersion: 2,
    mediaType: MediaType.index,
    artifactType: CACHE_ARTIFACT_TYPE,
    manifests: [...shards.map((shard) => shard.descriptor), ...sortedImages],
  });
  const descriptor = {
    ...describe(MediaType.index, bytes),
    annotations: { [Annotation.refName]: CACHE_TAG, [COUNT_ANNOTATION]: String(sorted.length) },
  };
  return { descriptor, bytes, shards, images: sortedImages };
}

/** Manifests, each once a name. A name that several have belongs to the last. */
function uniteImages(images: readonly Descriptor[]): Descriptor[] {
  const owners = new Map<string, Descriptor>();
  for (const image of images) {
    const name = refName(image);
    if (name !== undefined) owners.set(name, image);
  }
  const united = new Map<string, Descriptor>();
  for (const image of images) {
    const name = refName(image);
    const keeps = name !== undefined && owners.get(name)?.digest === image.digest;
    const kept = keeps
      ? image
      : withAnnotations(image, { [Annotation.refName]: undefined, [Annotation.containerdName]: undefined });
    united.set(keeps ? `${image.digest} ${name}` : image.digest, kept);
  }
  // A manifest that has a name need not be listed without one as well.
  const named = new Set(
    [...united.values()].filter((image) => refName(image) !== undefined).map((image) => image.digest),
  );
  return [...united.values()].filter((image) => refName(image) !== undefined || !named.has(image.digest));
}

interface SizedEntry {
  readonly entry: Descriptor;
  /** Bytes of its JSON. */
  readonly size: number;
}

const sized = (entry: Descriptor): SizedEntry => ({
  entry,
  size: Buffer.byteLength(JSON.stringify(entry)) + 1,
});

/** Bytes of a shard beside its entries, generously. */
const SHARD_OVERHEAD = 1024;

/** A shard is split in two by the next bit of the digests when it is too large: so a new entry changes one. */
function split(entries: readonly SizedEntry[], prefix: string, maxShardSize: number): Shard[] {
  const size = entries.reduce((sum, each) => sum + each.size, SHARD_OVERHEAD);
  if (size <= maxShardSize || entries.length === 1)
    return [
      encodeShard(
        prefix,
        entries.map((each) => each.entry),
      ),
    ];
  const [zeros, ones]: [SizedEntry[], SizedEntry[]] = [[], []];
  for (const each of entries) (digestBit(each.entry.digest, prefix.length) === 0 ? zeros : ones).push(each);
  return [
    ...(zeros.length === 0 ? [] : split(zeros, `${prefix}0`, maxShardSize)),
    ...(ones.length === 0 ? [] : split(ones, `${prefix}1`, maxShardSize)),
  ];
}

function digestBit(digest: Digest, bit: number): number {
  return (parseInt(digestHex(digest).charAt(bit >> 2), 16) >> (3 - (bit & 3))) & 1;
}

function encodeShard(prefix: string, entries: readonly Descriptor[]): Shard {
  const configBytes = encode({ version: 1, prefix });
  const config = { descriptor: describe(CACHE_CONFIG_TYPE, configBytes), bytes: configBytes };
  const bytes = encode({
    schemaVersion: 2,
    mediaType: MediaType.manifest,
    artifactType: CACHE_ARTIFACT_TYPE,
    config: config.descriptor,
    layers: entries,
  });
  const descriptor = {
    ...describe(MediaType.manifest, bytes),
    artifactType: CACHE_ARTIFACT_TYPE,
    annotations: { [SHARD_ANNOTATION]: prefix },
  };
  return { prefix, descriptor, bytes, config, entries };
}

export interface DecodedCacheIndex {
  readonly shards: readonly Descriptor[];
  readonly images: readonly Descriptor[];
}

/** The children of an index when it is a cache index, else undefined. */
export function decodeCacheIndex(bytes: Uint8Array, what: string): DecodedCacheIndex | undefined {
  const index = parseImageIndex(bytes, what);
  // Some tools lose an index's artifactType and its descriptors' fields, but none its annotations.
  const isShard = (child: Descriptor): boolean =>
    child.annotations?.[SHARD_ANNOTATION] !== undefined || child.artifactType === CACHE_ARTIFACT_TYPE;
  const shards = index.manifests.filter(isShard);
  if (shards.length === 0 && index.artifactType !== CACHE_ARTIFACT_TYPE) return undefined;
  return { shards, images: index.manifests.filter((child) => !isShard(child)) };
}

/** The entries that a shard lists. */
export function decodeShard(
  bytes: Uint8Array,
  what: string,
): { config: Descriptor; entries: readonly Descriptor[] } {
  const manifest = parseImageManifest(bytes, what);
  return { config: manifest.config, entries: manifest.layers };
}

function describe(mediaType: string, bytes: Uint8Array): Descriptor {
  return { mediaType, digest: digestOf(bytes), size: bytes.length };
}

/** Canonical JSON: keys in the order written here or, for descriptors from outside, sorted. No white space. */
function encode(document: Readonly<Record<string, unknown>>): Uint8Array {
  return Buffer.from(JSON.stringify(document, sortedDescriptor));
}

const DESCRIPTOR_FIELDS = ['mediaType', 'digest', 'size'];

function sortedDescriptor(_key: string, value: unknown): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value) || 'schemaVersion' in value)
    return value;
  const fields = Object.entries(value).sort(([a], [b]) => rank(a) - rank(b) || compare(a, b));
  return Object.fromEntries(fields);
}

function rank(field: string): number {
  const known = DESCRIPTOR_FIELDS.indexOf(field);
  return known === -1 ? DESCRIPTOR_FIELDS.length : known;
}

function byDigest(a: Descriptor, b: Descriptor): number {
  return compare(a.digest, b.digest);
}

function compare(a = '', b = ''): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
