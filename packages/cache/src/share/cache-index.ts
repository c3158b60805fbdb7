import { createHash } from 'node:crypto';
import { z } from 'zod';
import {
  Annotation,
  LayercacheError,
  MediaType,
  descriptorSchema,
  digestHex,
  digestOf,
  isIndexMediaType,
  isLayercacheError,
  isManifestMediaType,
  parseDocument,
  refName,
  type Descriptor,
  type Digest,
} from '@layercache/oci';
import { entryOf, sharedEntry, sharedImage } from '../entries/entry.js';
import { CACHE_TAG, isUsableName } from '../entries/names.js';
import { checkDescriptors } from '../images/checked-descriptors.js';
import { uniteImages } from './travelling.js';
import { revisionOf, textOf, withRevision } from './shared-state.js';

/**
 * The format in which a whole cache is one OCI object (docs/format.md, "The cache index"): an image index of
 * cache manifests ("shards"), whose `layers` are the entries, and of the manifests of the images, or where these are
 * many, of image indexes ("image shards") that list them. Pure functions.
 */

export const CACHE_ARTIFACT_TYPE = 'application/vnd.layercache.cache.v1';
export const CACHE_CONFIG_TYPE = 'application/vnd.layercache.cache.config.v1+json';

/** On a shard's descriptor: the leading bits that the digests in it share, as `0` and `1`; empty for all. */
const SHARD_ANNOTATION = 'dev.layercache.shard';
/** On an image shard's descriptor: the leading bits of the hashes of the names in it, as `0` and `1`. */
const IMAGE_SHARD_ANNOTATION = 'dev.layercache.images';
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
  /** Image indexes that list the images; none where the cache index lists them itself. */
  readonly imageShards: readonly CacheDocument[];
  /** Manifests of cached images, named where they have a name. */
  readonly images: readonly Descriptor[];
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
  const sorted = [...entries].sort(byDigest).map(writtenEntry);
  const shards = split(sorted, '', maxShardSize).map(encodeShard);
  const sortedImages = uniteImages(images).sort(
    (a, b) =>
      byDigest(a, b) || compare(a.annotations?.[Annotation.refName], b.annotations?.[Annotation.refName]),
  );
  const writtenImages = sortedImages.map(writtenImage);
  const shardTexts = shards.map((shard) => descriptorText(shard.descriptor));
  const isSmall = sizeOf([...shardTexts, ...writtenImages.map(({ text }) => text)]) <= maxShardSize;
  const imageShards = isSmall ? [] : split(writtenImages, '', maxShardSize).map(encodeImageShard);
  const children = isSmall
    ? writtenImages.map(({ text }) => text)
    : imageShards.map((shard) => descriptorText(shard.descriptor));
  const bytes = encodeIndex([...shardTexts, ...children]);
  const descriptor = {
    ...describe(MediaType.index, bytes),
    annotations: { [Annotation.refName]: CACHE_TAG, [COUNT_ANNOTATION]: String(sorted.length) },
  };
  return { descriptor, bytes, shards, imageShards, images: sortedImages };
}

interface Written {
  readonly entry: Descriptor;
  /** Its JSON, written once: in a large cache that is what encoding costs. */
  readonly text: string;
  /** Hexadecimal digits whose bits say which shard it is in. */
  readonly key: string;
}

const writtenEntry = (entry: Descriptor): Written => ({
  entry,
  text: descriptorText(entry),
  key: digestHex(entry.digest),
});

/** An image may have any number of names, so they are told apart by the hash of the name. */
const writtenImage = (entry: Descriptor): Written => {
  const name = refName(entry);
  const key = name === undefined ? digestHex(entry.digest) : createHash('sha256').update(name).digest('hex');
  return { entry, text: descriptorText(entry), key };
};

/** Bytes of a document beside what it lists, generously. */
const DOCUMENT_OVERHEAD = 1024;

function sizeOf(texts: readonly string[]): number {
  return texts.reduce((sum, text) => sum + Buffer.byteLength(text) + 1, DOCUMENT_OVERHEAD);
}

/** What one shard lists. */
interface Part {
  readonly prefix: string;
  readonly listed: readonly Written[];
}

/** A shard is split in two by the next bit of the keys when it is too large: so a new entry changes one. */
function split(listed: readonly Written[], prefix: string, maxShardSize: number): Part[] {
  if (listed.length === 0) return [];
  const isWhole = listed.length === 1 || prefix.length >= MAX_PREFIX;
  if (isWhole || sizeOf(listed.map(({ text }) => text)) <= maxShardSize) return [{ prefix, listed }];
  const [zeros, ones]: [Written[], Written[]] = [[], []];
  for (const each of listed) (bitOf(each.key, prefix.length) === 0 ? zeros : ones).push(each);
  return [...split(zeros, `${prefix}0`, maxShardSize), ...split(ones, `${prefix}1`, maxShardSize)];
}

/** Bits. No two SHA-256 values have more in common. */
const MAX_PREFIX = 256;

function bitOf(key: string, bit: number): number {
  return (parseInt(key.charAt(bit >> 2), 16) >> (3 - (bit & 3))) & 1;
}

function encodeConfig(prefix: string): CacheDocument {
  const bytes = Buffer.from(JSON.stringify({ version: 1, prefix }));
  return { descriptor: describe(CACHE_CONFIG_TYPE, bytes), bytes };
}

function encodeShard({ prefix, listed }: Part): Shard {
  const config = encodeConfig(prefix);
  const bytes = encode(
    {
      schemaVersion: 2,
      mediaType: MediaType.manifest,
      artifactType: CACHE_ARTIFACT_TYPE,
      config: config.descriptor,
    },
    'layers',
    listed.map(({ text }) => text),
  );
  const descriptor = {
    ...describe(MediaType.manifest, bytes),
    artifactType: CACHE_ARTIFACT_TYPE,
    annotations: { [SHARD_ANNOTATION]: prefix },
  };
  return { prefix, descriptor, bytes, config, entries: listed.map(({ entry }) => entry) };
}

function encodeImageShard({ prefix, listed }: Part): CacheDocument {
  const bytes = encodeIndex(listed.map(({ text }) => text));
  const descriptor = {
    ...describe(MediaType.index, bytes),
    artifactType: CACHE_ARTIFACT_TYPE,
    annotations: { [IMAGE_SHARD_ANNOTATION]: prefix },
  };
  return { descriptor, bytes };
}

function encodeIndex(children: readonly string[]): Uint8Array {
  return encode(
    { schemaVersion: 2, mediaType: MediaType.index, artifactType: CACHE_ARTIFACT_TYPE },
    'manifests',
    children,
  );
}

export interface DecodedCacheIndex {
  readonly shards: readonly Descriptor[];
  /** Image indexes that list more images: {@link decodeImageShard}. */
  readonly imageShards: readonly Descriptor[];
  readonly images: readonly Descriptor[];
}

/** The children of an index, each once, when it is a cache index, else undefined. Names of images are claims. */
export function decodeCacheIndex(bytes: Uint8Array, what: string): DecodedCacheIndex | undefined {
  const index = parseLeniently(bytes, 'manifests', what);
  // Some tools lose an index's artifactType and its descriptors' fields, but none its annotations. No image that a
  // cache lists has these, whatever its author wrote.
  const shards = index.listed.filter((child) => hasAnnotation(child, SHARD_ANNOTATION));
  const imageShards = index.listed.filter(isImageShard);
  if (shards.length + imageShards.length === 0 && index.artifactType !== CACHE_ARTIFACT_TYPE)
    return undefined;
  const images = index.listed.filter(
    (child) => !hasAnnotation(child, SHARD_ANNOTATION) && !isImageShard(child),
  );
  return { shards: eachOnce(shards), imageShards: eachOnce(imageShards), images: claimedImages(images) };
}

/** The images that an image shard lists. Names of images are claims. */
export function decodeImageShard(bytes: Uint8Array, what: string): readonly Descriptor[] {
  return claimedImages(parseLeniently(bytes, 'manifests', what).listed);
}

function hasAnnotation({ annotations }: Descriptor, name: string): boolean {
  return annotations?.[name] !== undefined;
}

function isImageShard(child: Descriptor): boolean {
  return isIndexMediaType(child.mediaType) && hasAnnotation(child, IMAGE_SHARD_ANNOTATION);
}

function eachOnce(descriptors: readonly Descriptor[]): Descriptor[] {
  return [...new Map(descriptors.map((each) => [each.digest, each])).values()];
}

/** Names of one image. A shared cache may give it as many as it likes, and each costs every reader. */
const MAX_NAMES = 256;

function claimedImages(children: readonly Descriptor[]): Descriptor[] {
  const names = new Map<Digest, number>();
  return children.filter(isManifest).map((child) => {
    const count = (names.get(child.digest) ?? 0) + 1;
    names.set(child.digest, count);
    return count > MAX_NAMES ? entryOf(child) : claimedImage(child);
  });
}

function isManifest({ mediaType }: Descriptor): boolean {
  return isManifestMediaType(mediaType);
}

/** A name that means something else in a cache is left out. */
function claimedImage(child: Descriptor): Descriptor {
  const name = refName(child);
  if (name !== undefined && !isUsableName(name, child.digest)) return entryOf(child);
  return withRevision(sharedImage(child), revisionOf(child));
}

/** A cache index's shards, and their configs, without a look at them. */
export function shardBlobs({ shards, imageShards }: DecodedCacheIndex): Digest[] {
  const blobs = shards.flatMap(({ digest, annotations }) => {
    const prefix = annotations?.[SHARD_ANNOTATION];
    return prefix === undefined ? [digest] : [digest, encodeConfig(prefix).descriptor.digest];
  });
  return [...blobs, ...imageShards.map(({ digest }) => digest)];
}

/** The entries that a shard lists, as claims, with their revisions. Images are children of the cache index, so a shard lists none. */
export function decodeShard(
  bytes: Uint8Array,
  what: string,
): { config: Descriptor; entries: readonly Descriptor[] } {
  const { config, listed } = parseLeniently(bytes, 'layers', what);
  if (config === undefined) {
    throw new LayercacheError('DOCUMENT_INVALID', `${what} is not valid: config: it has none`);
  }
  const blobs = listed.filter((blob) => !isManifest(blob));
  return {
    config,
    entries: blobs.map((blob) => withRevision(sharedEntry(blob), revisionOf(blob))),
  };
}

const listSchema = z.looseObject({
  schemaVersion: z.literal(2),
  artifactType: z.string().optional(),
  config: descriptorSchema.optional(),
  layers: z.array(z.unknown()).nullish(),
  manifests: z.array(z.unknown()).nullish(),
});

/**
 * A document of a shared cache. One descriptor that is not valid is left out: it is no reason to do without the others.
 *
 * @throws LayercacheError `DOCUMENT_INVALID` when it is not such a document at all
 */
function parseLeniently(
  bytes: Uint8Array,
  list: 'layers' | 'manifests',
  what: string,
): {
  readonly artifactType?: string | undefined;
  readonly config?: Descriptor | undefined;
  readonly listed: Descriptor[];
} {
  const { artifactType, config, [list]: given } = parseDocument(listSchema, bytes, what);
  if (!Array.isArray(given)) {
    throw new LayercacheError('DOCUMENT_INVALID', `${what} is not valid: ${list}: it has no such list`);
  }
  const listed = given.flatMap((value: unknown): Descriptor[] => {
    const checked = descriptorSchema.safeParse(value);
    return checked.success && isSound(checked.data) ? [checked.data] : [];
  });
  return { artifactType, config, listed };
}

/** Whether the fields that become part of entries are within their bounds. */
function isSound(descriptor: Descriptor): boolean {
  try {
    checkDescriptors({ descriptor }, '');
    return true;
  } catch (error) {
    if (isLayercacheError(error, 'DOCUMENT_INVALID')) return false;
    throw error;
  }
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
  const others = textOf(rest);
  return others === '{}' ? `${first}}` : `${first},${others.slice(1)}`;
}

function byDigest(a: Descriptor, b: Descriptor): number {
  return compare(a.digest, b.digest);
}

function compare(a = '', b = ''): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
