import { stat } from 'node:fs/promises';
import {
  claimedDiffID,
  isClaimedName,
  isManifestMediaType,
  layerForm,
  refName,
  type Descriptor,
  type Digest,
} from '@layercache/oci';
import type { OciLayout } from '@layercache/layout';
import { indexedLayer } from '../indexes/stored-index.js';
import { cachedImages, travellingEntries } from './travelling.js';
import type { ImagePartsReader } from './image-parts.js';
import type { OwnEntry } from './merge.js';

/** Which part of a cache to push. All that is said must hold. */
export interface Selection {
  /** These images, with their layers and layer indexes. Default: everything. */
  readonly images?: readonly Descriptor[] | undefined;
  /** What was read or written since then. */
  readonly since?: Date | undefined;
  /** Bytes: as much of what was used last as fits, images before layers that belong to none. */
  readonly maxSize?: number | undefined;
  /** Also tars that can be derived from a compressed form. Default false. */
  readonly withUncompressed?: boolean | undefined;
}

/** What travels of a cache. */
export interface Selected {
  readonly entries: readonly OwnEntry[];
  /** Manifests, those below image indexes included. */
  readonly images: readonly Descriptor[];
  /** Names of images that are only what a shared cache says. */
  readonly claimedNames: readonly string[];
}

/** An image with all it needs, or a blob that belongs to none: pushed as a whole or not at all. */
interface Unit {
  readonly image: Descriptor | undefined;
  readonly parts: readonly Descriptor[];
  /** Milliseconds since 1970. */
  readonly used: number;
}

export async function selectEntries(
  layout: OciLayout,
  reader: ImagePartsReader,
  selection: Selection,
): Promise<Selected> {
  const { images, since, maxSize, withUncompressed = false } = selection;
  const all = [...layout.entries()];
  const proven = new Set(all.filter((entry) => entry.proven).map((entry) => entry.descriptor.digest));
  const descriptors = all.map((entry) => entry.descriptor);
  const asOwn = (chosen: readonly Descriptor[]): Selected => ({
    entries: travellingEntries(chosen, proven, withUncompressed).map((descriptor) => ({
      descriptor,
      proven: proven.has(descriptor.digest),
    })),
    images: cachedImages(chosen),
    claimedNames: chosen.filter(isClaimedName).flatMap((image) => refName(image) ?? []),
  });
  if (images === undefined && since === undefined && maxSize === undefined) return asOwn(descriptors);

  let units = await unitsOf(layout, reader, descriptors, withUncompressed);
  if (images !== undefined) {
    const wanted = new Set(images.map((image) => image.digest));
    units = units.filter(({ image }) => image !== undefined && wanted.has(image.digest));
  }
  if (since !== undefined) units = units.filter(({ used }) => used >= since.getTime());
  if (maxSize !== undefined) units = lastUsed(units, maxSize);
  const chosen = new Set(units.flatMap(({ parts }) => parts.map((part) => part.digest)));
  const names = new Set(units.map(({ image }) => (image === undefined ? undefined : refName(image))));
  return asOwn(
    descriptors.filter(
      (entry) =>
        chosen.has(entry.digest) &&
        (!isManifestMediaType(entry.mediaType) || refName(entry) === undefined || names.has(refName(entry))),
    ),
  );
}

async function unitsOf(
  layout: OciLayout,
  reader: ImagePartsReader,
  entries: readonly Descriptor[],
  withUncompressed: boolean,
): Promise<Unit[]> {
  const followers = followersOf(entries, withUncompressed);
  const withFollowers = (parts: readonly Descriptor[]): Descriptor[] =>
    parts.flatMap((part) => [part, ...(followers.get(part.digest) ?? [])]);
  const units: Unit[] = [];
  const taken = new Set<Digest>();
  for (const image of cachedImages(entries)) {
    const { manifests, blobs } = await reader.closure(image);
    const parts = [...manifests, ...withFollowers(blobs)];
    for (const part of parts) taken.add(part.digest);
    // Layers are shared with images that nobody uses any more, and a manifest is read by a push, too.
    const own = blobs.filter((blob) => layerForm(blob.mediaType) === undefined);
    const used = Math.max(0, ...(await Promise.all(own.map((blob) => lastUse(layout, blob)))));
    units.push({ image, parts, used });
  }
  const loose = entries.filter((entry) => !isManifestMediaType(entry.mediaType) && !taken.has(entry.digest));
  const following = new Set([...followers.values()].flat().map((entry) => entry.digest));
  for (const entry of loose) {
    if (following.has(entry.digest)) continue;
    units.push({ image: undefined, parts: withFollowers([entry]), used: await lastUse(layout, entry) });
  }
  return units;
}

/** By the digest of a layer: its layer indexes, and its tar where that is wanted. */
export function followersOf(
  entries: readonly Descriptor[],
  withUncompressed: boolean,
): Map<Digest, Descriptor[]> {
  const byDigest = new Map(entries.map((entry) => [entry.digest, entry] as const));
  const followers = new Map<Digest, Descriptor[]>();
  const follow = (leader: Digest, follower: Descriptor | undefined): void => {
    if (follower === undefined || follower.digest === leader) return;
    followers.set(leader, [...(followers.get(leader) ?? []), follower]);
  };
  const indexes = new Map<Digest, Descriptor[]>();
  for (const entry of entries) {
    const layer = indexedLayer(entry);
    if (layer !== undefined) indexes.set(layer, [...(indexes.get(layer) ?? []), entry]);
  }
  for (const entry of entries) {
    if (indexedLayer(entry) !== undefined) continue;
    const diffID = layerForm(entry.mediaType) === undefined ? undefined : claimedDiffID(entry);
    // The index of a zstd layer is that of its tar, which need not be an entry.
    const described = diffID === undefined ? [entry.digest] : [...new Set([entry.digest, diffID])];
    for (const layer of described) for (const index of indexes.get(layer) ?? []) follow(entry.digest, index);
    if (withUncompressed && diffID !== undefined) follow(entry.digest, byDigest.get(diffID));
  }
  return followers;
}

/** A blob's mtime is when it was last used, to the hour. What is not on this disk was not used here. */
async function lastUse(layout: OciLayout, { digest }: Descriptor): Promise<number> {
  try {
    return (await stat(layout.blobPath(digest))).mtimeMs;
  } catch {
    return 0;
  }
}

function lastUsed(units: readonly Unit[], maxSize: number): Unit[] {
  const order = [...units].sort(
    (a, b) => Number(b.image !== undefined) - Number(a.image !== undefined) || b.used - a.used,
  );
  const counted = new Set<Digest>();
  let size = 0;
  return order.filter(({ parts }) => {
    const fresh = new Map(
      parts.filter((part) => !counted.has(part.digest)).map((part) => [part.digest, part.size] as const),
    );
    const more = [...fresh.values()].reduce((sum, each) => sum + each, 0);
    if (size + more > maxSize) return false;
    size += more;
    for (const digest of fresh.keys()) counted.add(digest);
    return true;
  });
}
