import {
  Annotation,
  claimedDiffID,
  claimedDigests,
  layerForm,
  refName,
  withAnnotations,
  type Descriptor,
  type Digest,
} from '@layercache/oci';

/** One descriptor of `index.json`, and what this machine knows about it. */
export interface Entry {
  readonly descriptor: Descriptor;
  /** This machine decompressed and hashed the pair (digest, diffID). Local knowledge, never in `index.json`. */
  readonly proven: boolean;
}

/** The facts that other tools write under names of their own, under ours as well. Only an empty name is taken away. */
export function normalise(given: Descriptor): Descriptor {
  const descriptor =
    given.annotations?.[Annotation.refName] === ''
      ? withAnnotations(given, { [Annotation.refName]: undefined })
      : given;
  if (layerForm(descriptor.mediaType) === 'tar') {
    const digests = claimedDigests(descriptor);
    return digests.length === 0 ? descriptor : withDigests(descriptor, digests);
  }
  const diffID = claimedDiffID(descriptor);
  if (diffID === undefined || descriptor.annotations?.[Annotation.diffID] === diffID) return descriptor;
  return withAnnotations(descriptor, { [Annotation.diffID]: diffID });
}

/** A tar's descriptor with this list of compressed counterparts, which must be sorted. */
export function withDigests(descriptor: Descriptor, digests: readonly Digest[]): Descriptor {
  const list = digests.join(',');
  if ((descriptor.annotations?.[Annotation.digest] ?? '') === list) return descriptor;
  return withAnnotations(descriptor, { [Annotation.digest]: list === '' ? undefined : list });
}

/** Takes its name from an entry; it stays what it is. */
export function withoutName(descriptor: Descriptor): Descriptor {
  return withAnnotations(descriptor, {
    [Annotation.refName]: undefined,
    [Annotation.containerdName]: undefined,
    [Annotation.nameState]: undefined,
  });
}

/** What `lookup` finds a descriptor by: its digest, its diffID and, for a tar, its compressed counterparts. */
export function lookupKeys(descriptor: Descriptor): Digest[] {
  if (layerForm(descriptor.mediaType) === 'tar') {
    return [...new Set([descriptor.digest, ...claimedDigests(descriptor)])];
  }
  const diffID = claimedDiffID(descriptor);
  return diffID === undefined || diffID === descriptor.digest
    ? [descriptor.digest]
    : [descriptor.digest, diffID];
}

/** The diffID of a layer in a compressed form; undefined for all else. */
export function compressedDiffID(descriptor: Descriptor): Digest | undefined {
  const form = layerForm(descriptor.mediaType);
  return form === undefined || form === 'tar' ? undefined : claimedDiffID(descriptor);
}

/** The order of `index.json`: by digest, then by name, the nameless first, each by UTF-16 code units. */
export function compareEntries(a: Entry, b: Entry): number {
  return (
    compareText(a.descriptor.digest, b.descriptor.digest) ||
    compareText(refName(a.descriptor) ?? '', refName(b.descriptor) ?? '')
  );
}

export function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
