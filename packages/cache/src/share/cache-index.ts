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
import { entryOf, sharedEntry, sharedImage } from '../entries/entry.js';
import { CACHE_TAG, isUsableName } from '../entries/names.js';

/**
 * The format in which a whole cache is one OCI object (docs/format.md, "The cache index"): an image index of
 * cache manifests ("shards"), whose `layers` are the entries, and of the manifests of the images. Pure functions.
 */

export const CACHE_ARTIFACT_TYPE = 'application/vnd.layercache.cache.v1';
export const CACHE_CONFIG_TYPE = 'application/vnd.layercache.cache.config.v1+json';

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
 * them; a tar that was proven to be what a compressed form here holds stays home, because it can be derived.
 */
export function travellingEntries(
  entries: readonly Descriptor[],
  proven: ReadonlySet<Digest>,
  withUncompressed = false,
): Descriptor[] {
  const derivable = new Set<Digest>();
  if (!withUncompressed) {
    for (const entry of entries) {
      // What a claim says could keep a blob of somebody else from being shared.
      if (!proven.has(entry.digest)) continue;
      const form = layerForm(entry.mediaType);
      // A layer index has a diffID, too, and nothing is derived from it.
      const diffID = form === undefined || form === 'tar' ? undefined : claimedDiffID(entry);
      if (diffID !== undefined) derivable.add(diffID);
    }
  }
  const travelling = entries.filter(
    (entry) =>
      !isManifestMediaType(entry.mediaType) &&
      !isImageConfigType(entry.mediaType) &&
      !(layerForm(entry.mediaType) === 'tar' && derivable.has(entry.digest)),
  );
  return uniteEntries(travelling.map(sharedEntry));
}

function isImageConfigType(mediaType: string): boolean {
  return mediaType === MediaType.config || mediaType === MediaType.dockerConfig;
}

/** The images of a cache: every manifest but the cache index itself. */
export function cachedImages(entries: readonly Descriptor[]): Descriptor[] {
  return entries
    .filter((entry) => isManifestMediaType(entry.mediaType) && refName(entry) !== CACHE_TAG)
    .map(sharedImage);
}

/** Entries of all lists, each digest once. What they say of a blob is united; where they differ, the later holds. */
export function uniteEntries(...lists: (readonly Descriptor[])[]): Descriptor[] {
  const united = new Map<Digest, Descriptor>();
  for (const entry of lists.flat()) {
    const before = united.get(entry.digest);
    united.set(entry.digest, before === undefined ? entry : uniteDescriptors(entry, before));
  }
  return [...united.values()];
}

/** Both, where `first` is right when they differ. Lists of counterparts are united. */
export function uniteDescriptors(first: Descriptor, second: Descriptor): Descriptor {
  const digests = [...new Set([...claimedDigests(first), ...claimedDigests(second)])].sort().join(',');
  const annotations = { ...second.annotations, ...first.annotations };
  const united = { ...second, ...first };
  if (Object.keys(annotations).length === 0) return united;
  return withAnnotations(
    { ...united, annotations },
    { [Annotation.digest]: digests === '' ? undefined : digests },
  );
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
  const shards = sorted.length === 0 ? [] : split(sorted.map(written), '', maxShardSize);
  const sortedImages = uniteImages(images).sort(
    (a, b) =>
      byDigest(a, b) || compare(a.annotations?.[Annotation.refName], b.annotations?.[Annotation.refName]),
  );
  const bytes = encode(
    { schemaVersion: 2, mediaType: MediaType.index, artifactType: CACHE_ARTIFACT_TYPE },
    'manifests',
    [...shards.map((shard) => shard.descriptor), ...sortedImages].map(descriptorText),
  );
  const descriptor = {
    ...describe(MediaType.index, bytes),
    annotations: { [Annotation.refName]: CACHE_TAG, [COUNT_ANNOTATION]: String(sorted.length) },
  };
  return { descriptor, bytes, shards, images: sortedImages };
}

/** Manifests, each once a name. A name that several have belongs to the last. */
export function uniteImages(images: readonly Descriptor[]): Descriptor[] {
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

interface WrittenEntry {
  readonly entry: Descriptor;
  /** Its JSON, written once: in a large cache that is what encoding costs. */
  readonly text: string;
}

const written = (entry: Descriptor): WrittenEntry => ({ entry, text: descriptorText(entry) });

/** Bytes of a shard beside its entries, generously. */
const SHARD_OVERHEAD = 1024;

/** A shard is split in two by the next bit of the digests when it is too large: so a new entry changes one. */
function split(entries: readonly WrittenEntry[], prefix: string, maxShardSize: number): Shard[] {
  const size = entries.reduce((sum, { text }) => sum + Buffer.byteLength(text) + 1, SHARD_OVERHEAD);
  if (size <= maxShardSize || entries.length === 1) return [encodeShard(prefix, entries)];
  const [zeros, ones]: [WrittenEntry[], WrittenEntry[]] = [[], []];
  for (const each of entries) (digestBit(each.entry.digest, prefix.length) === 0 ? zeros : ones).push(each);
  return [
    ...(zeros.length === 0 ? [] : split(zeros, `${prefix}0`, maxShardSize)),
    ...(ones.length === 0 ? [] : split(ones, `${prefix}1`, maxShardSize)),
  ];
}

function digestBit(digest: Digest, bit: number): number {
  return (parseInt(digestHex(digest).charAt(bit >> 2), 16) >> (3 - (bit & 3))) & 1;
}

function encodeConfig(prefix: string): CacheDocument {
  const bytes = Buffer.from(JSON.stringify({ version: 1, prefix }));
  return { descriptor: describe(CACHE_CONFIG_TYPE, bytes), bytes };
}

function encodeShard(prefix: string, entries: readonly WrittenEntry[]): Shard {
  const config = encodeConfig(prefix);
  const bytes = encode(
    {
      schemaVersion: 2,
      mediaType: MediaType.manifest,
      artifactType: CACHE_ARTIFACT_TYPE,
      config: config.descriptor,
    },
    'layers',
    entries.map(({ text }) => text),
  );
  const descriptor = {
    ...describe(MediaType.manifest, bytes),
    artifactType: CACHE_ARTIFACT_TYPE,
    annotations: { [SHARD_ANNOTATION]: prefix },
  };
  return { prefix, descriptor, bytes, config, entries: entries.map(({ entry }) => entry) };
}

export interface DecodedCacheIndex {
  readonly shards: readonly Descriptor[];
  readonly images: readonly Descriptor[];
}

/** The children of an index, each once, when it is a cache index, else undefined. Names of images are claims. */
export function decodeCacheIndex(bytes: Uint8Array, what: string): DecodedCacheIndex | undefined {
  const index = parseImageIndex(bytes, what);
  // Some tools lose an index's artifactType and its descriptors' fields, but none its annotations. No image that a
  // cache lists has this one, whatever its author wrote.
  const isShard = (child: Descriptor): boolean => child.annotations?.[SHARD_ANNOTATION] !== undefined;
  const shards = index.manifests.filter(isShard);
  if (shards.length === 0 && index.artifactType !== CACHE_ARTIFACT_TYPE) return undefined;
  const images = index.manifests.filter((child) => !isShard(child)).map(claimedImage);
  return { shards: [...new Map(shards.map((shard) => [shard.digest, shard])).values()], images };
}

/** A name that means something else in a cache is left out. */
function claimedImage(child: Descriptor): Descriptor {
  const name = refName(child);
  return name === undefined || isUsableName(name, child.digest) ? sharedImage(child) : entryOf(child);
}

/** A cache index's shards, and their configs, without a look at them. */
export function shardBlobs({ shards }: DecodedCacheIndex): Digest[] {
  return shards.flatMap(({ digest, annotations }) => {
    const prefix = annotations?.[SHARD_ANNOTATION];
    return prefix === undefined ? [digest] : [digest, encodeConfig(prefix).descriptor.digest];
  });
}

/** The entries that a shard lists, as claims. Images are children of the cache index, so a shard lists none. */
export function decodeShard(
  bytes: Uint8Array,
  what: string,
): { config: Descriptor; entries: readonly Descriptor[] } {
  const manifest = parseImageManifest(bytes, what);
  const blobs = manifest.layers.filter(({ mediaType }) => !isManifestMediaType(mediaType));
  return { config: manifest.config, entries: blobs.map(sharedEntry) };
}

function describe(mediaType: string, bytes: Uint8Array): Descriptor {
  return { mediaType, digest: digestOf(bytes), size: bytes.length };
}

/** Canonical JSON without white space: the fields of the document as given, then its list of descriptors. */
function encode(
  fields: Readonly<Record<string, unknown>>,
  list: 'layers' | 'manifests',
  descriptors: readonly string[],
): Uint8Array {
  return Buffer.from(`${JSON.stringify(fields).slice(0, -1)},"${list}":[${descriptors.join(',')}]}`);
}

/** Media type, digest and size first; then, and in everything below, the fields in the order of their names. */
function descriptorText({ mediaType, digest, size, ...rest }: Descriptor): string {
  const first = `{"mediaType":${JSON.stringify(mediaType)},"digest":"${digest}","size":${size}`;
  const others = sortedText(rest);
  return others === '{}' ? `${first}}` : `${first},${others.slice(1)}`;
}

function sortedText(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(sortedText).join(',')}]`;
  if (typeof value !== 'object' || value === null) return JSON.stringify(value);
  const fields = Object.entries(value)
    .filter(([, field]) => field !== undefined)
    .sort(([a], [b]) => compare(a, b))
    .map(([name, field]) => `${JSON.stringify(name)}:${sortedText(field)}`);
  return `{${fields.join(',')}}`;
}

function byDigest(a: Descriptor, b: Descriptor): number {
  return compare(a.digest, b.digest);
}

function compare(a = '', b = ''): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
