import {
  Annotation,
  claimedDiffID,
  claimedDigests,
  isDigest,
  layerForm,
  withAnnotations,
  type Descriptor,
  type Digest,
  type Platform,
} from '@layercache/oci';
import { withOrigin, type BlobOrigin } from './origins.js';

/**
 * The entries of a cache: descriptors in `index.json`, and the one place where they are made from descriptors that
 * somebody else wrote (docs/format.md, "Trust"). What an author writes is content; what stands in an entry is ours.
 */

/** The facts that this machine noted about a blob. Each fact becomes an annotation, and nothing else does. */
export interface EntryFacts {
  /** The name of an image, from the user or from the registry that answered for it. */
  readonly name?: string | undefined;
  /** Whether the name is only what a shared cache says. */
  readonly claimedName?: boolean | undefined;
  /** The diffID that the config of an image, or a shared cache, claims for a compressed layer. */
  readonly diffID?: Digest | undefined;
  /** The compressed counterparts of a tar. */
  readonly digests?: readonly Digest[] | undefined;
  /** The layer that a layer index describes. */
  readonly indexedLayer?: Digest | undefined;
  /** The image that a layer index came with, and the only one whose layer it describes. */
  readonly indexedImage?: Digest | undefined;
  /** How many files a layer index lists. */
  readonly files?: number | undefined;
  /** Where this machine can have the blob again. */
  readonly origin?: BlobOrigin | undefined;
}

/** The entry of a blob or manifest: what the cache relies on of its descriptor, and what this machine noted. */
export function entryOf(descriptor: Descriptor, facts: EntryFacts = {}): Descriptor {
  const { mediaType, digest, size, platform, artifactType, urls } = descriptor;
  const { name, claimedName, diffID, digests, indexedLayer, indexedImage, files, origin } = facts;
  const isTar = layerForm(mediaType) === 'tar';
  const entry = withAnnotations(
    {
      mediaType,
      digest,
      size,
      ...(platform === undefined ? {} : { platform: platformOf(platform) }),
      ...(artifactType === undefined ? {} : { artifactType }),
      ...(urls === undefined || urls.length === 0 ? {} : { urls: [...urls] }),
    },
    {
      [Annotation.refName]: name,
      [Annotation.containerdName]: name,
      [Annotation.nameState]: name !== undefined && claimedName === true ? 'claimed' : undefined,
      [Annotation.diffID]: isTar ? undefined : diffID,
      [Annotation.digest]:
        isTar && digests !== undefined && digests.length > 0 ? digests.join(',') : undefined,
      [Annotation.sociLayerDigest]: indexedLayer,
      [Annotation.indexedImage]: indexedImage,
      [Annotation.files]: files === undefined ? undefined : String(files),
    },
  );
  return origin === undefined ? entry : withOrigin(entry, origin);
}

/** The fields of a platform that the image specification names. */
function platformOf(platform: Platform): Platform {
  const { os, architecture, variant } = platform;
  const { 'os.version': version, 'os.features': features } = platform;
  return {
    architecture,
    os,
    ...(version === undefined ? {} : { 'os.version': version }),
    ...(features === undefined ? {} : { 'os.features': [...features] }),
    ...(variant === undefined ? {} : { variant }),
  };
}

/** Compressed counterparts of one tar that a shared cache may claim. More are not believed. */
export const MAX_CLAIMED_DIGESTS = 64;

/**
 * The part of an entry that travels in the shards of a shared cache, and what is taken from one: claims about pairs and layer
 * indexes. Names, pins, times and origins are for each machine to say.
 */
export function sharedEntry(descriptor: Descriptor): Descriptor {
  const { annotations = {}, mediaType } = descriptor;
  const files = annotations[Annotation.files];
  const layer = annotations[Annotation.sociLayerDigest];
  const isLayer = layerForm(mediaType) !== undefined;
  // A fact that came with one image is no claim that this machine makes to others.
  const isOfOneImage = annotations[Annotation.indexedImage] !== undefined;
  return entryOf(descriptor, {
    diffID: claimedDiffID(descriptor),
    digests: claimedDigests(descriptor).slice(0, MAX_CLAIMED_DIGESTS),
    indexedLayer: !isLayer && !isOfOneImage && layer !== undefined && isDigest(layer) ? layer : undefined,
    files: files !== undefined && /^\d{1,9}$/.test(files) ? Number(files) : undefined,
  });
}

/** The part of an image's entry that travels in a cache index: its name, as a claim to whoever reads it. */
export function sharedImage(descriptor: Descriptor): Descriptor {
  return entryOf(descriptor, { name: descriptor.annotations?.[Annotation.refName] });
}
