import {
  Annotation,
  MediaType,
  claimedDigests,
  claimedDiffID,
  isManifestMediaType,
  layerForm,
  refName,
  withAnnotations,
  type Descriptor,
  type Digest,
} from '@layercache/oci';
import { sharedEntry, sharedImage } from '../entries/entry.js';
import { CACHE_TAG } from '../entries/names.js';

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
