import { claimedDiffID, claimedDigests, layerForm, type Descriptor, type Digest } from '@layercache/oci';
import type { Entry, OciLayout } from '@layercache/layout';

/** All that the index says of one layer, found under one of its names. */
export interface LayerRecord {
  /** The name it was asked by. */
  readonly key: Digest;
  /** Claimed, unless one of the entries is proven. Undefined for a compressed blob that nobody paired yet. */
  readonly diffID: Digest | undefined;
  /** The entry of the form `tar`. */
  readonly tar: Entry | undefined;
  /** Entries of the compressed forms, proven ones first, then by digest. */
  readonly compressed: readonly Entry[];
  /** Every compressed digest anybody paired with the diffID, here or not, sorted. */
  readonly digests: readonly Digest[];
}

export function isLayerDescriptor(descriptor: Descriptor): boolean {
  return layerForm(descriptor.mediaType) !== undefined;
}

/** Whether a descriptor is a layer in the form `tar`. */
export function isTar(descriptor: Descriptor): boolean {
  return layerForm(descriptor.mediaType) === 'tar';
}

/** The layer that `key` names, by digest or by diffID. */
export function layerRecord(layout: OciLayout, key: Digest): LayerRecord | undefined {
  const found = layout.lookup(key).filter((entry) => isLayerDescriptor(entry.descriptor));
  if (found.length === 0) return undefined;
  const own = found.find((entry) => entry.descriptor.digest === key);
  const diffID = own === undefined ? diffIDOf(found, key) : claimedDiffID(own.descriptor);
  const all =
    diffID === undefined || diffID === key
      ? found
      : uniqueByDigest([...found, ...layout.lookup(diffID)]).filter((entry) =>
          isLayerDescriptor(entry.descriptor),
        );
  const related = all.filter((entry) => entry === own || claimedDiffID(entry.descriptor) === diffID);
  const tar = related.find((entry) => isTar(entry.descriptor));
  const compressed = related
    .filter((entry) => !isTar(entry.descriptor))
    .sort(
      (a, b) => Number(b.proven) - Number(a.proven) || (a.descriptor.digest < b.descriptor.digest ? -1 : 1),
    );
  const digests = new Set(compressed.map((entry) => entry.descriptor.digest));
  if (tar !== undefined) for (const digest of claimedDigests(tar.descriptor)) digests.add(digest);
  return { key, diffID, tar, compressed, digests: [...digests].sort() };
}

/** `key` names no entry itself: it is a diffID with compressed forms only, or a digest that a tar lists. */
function diffIDOf(found: readonly Entry[], key: Digest): Digest | undefined {
  if (found.some((entry) => claimedDiffID(entry.descriptor) === key)) return key;
  return found.find((entry) => claimedDigests(entry.descriptor).includes(key))?.descriptor.digest;
}

function uniqueByDigest(entries: readonly Entry[]): Entry[] {
  return [...new Map(entries.map((entry) => [entry.descriptor.digest, entry] as const)).values()];
}

/** One name of every layer: its diffID where it is known, else its digest. */
export function* layerNames(layout: OciLayout): Generator<Digest> {
  const seen = new Set<Digest>();
  for (const { descriptor } of layout.entries()) {
    if (!isLayerDescriptor(descriptor)) continue;
    const name = claimedDiffID(descriptor) ?? descriptor.digest;
    if (seen.has(name)) continue;
    seen.add(name);
    yield name;
  }
}
