import {
  Annotation,
  claimedDigests,
  refName,
  withAnnotations,
  type Descriptor,
  type Digest,
} from '@layercache/oci';
import { MAX_CLAIMED_DIGESTS } from '../entries/entry.js';

/**
 * What several cache indexes say, taken together (docs/format.md, "Uniting"). Joining is commutative, associative and
 * idempotent: in whatever order machines read each other's indexes, they come to the same state. Pure functions.
 */
export interface SharedState {
  readonly entries: ReadonlyMap<Digest, Descriptor>;
  /** Manifests of images, without their names. */
  readonly manifests: ReadonlyMap<Digest, Descriptor>;
  readonly names: ReadonlyMap<string, NamedImage>;
}

/** The image that a name means. */
export interface NamedImage {
  readonly digest: Digest;
  /** How often the name has been moved. */
  readonly revision: number;
}

/** Entries and images as a cache index lists them. */
export interface SharedLists {
  readonly entries: readonly Descriptor[];
  readonly images: readonly Descriptor[];
}

/** Revisions are not counted beyond this. */
const MAX_REVISION = 999_999_999;

/** How often what a descriptor says was replaced by something that is not the union of both. */
export function revisionOf({ annotations }: Descriptor): number {
  const text = annotations?.[Annotation.revision] ?? '';
  return /^\d{1,9}$/.test(text) ? Number(text) : 0;
}

export function withRevision(descriptor: Descriptor, revision: number): Descriptor {
  const counted = Math.min(revision, MAX_REVISION);
  return withAnnotations(descriptor, {
    [Annotation.revision]: counted === 0 ? undefined : String(counted),
  });
}

export function stateOf(...lists: readonly SharedLists[]): SharedState {
  const entries = new Map<Digest, Descriptor>();
  const manifests = new Map<Digest, Descriptor>();
  const names = new Map<string, NamedImage>();
  for (const { entries: listed, images } of lists) {
    for (const entry of listed) put(entries, entry);
    for (const image of images) {
      put(manifests, withoutName(image));
      const name = refName(image);
      if (name !== undefined) putName(names, name, { digest: image.digest, revision: revisionOf(image) });
    }
  }
  return { entries, manifests, names };
}

/** The lists of a state: an image once for each of its names, or once without one. */
export function listsOf({ entries, manifests, names }: SharedState): SharedLists {
  const images: Descriptor[] = [];
  const named = new Set<Digest>();
  for (const [name, { digest, revision }] of names) {
    const manifest = manifests.get(digest);
    if (manifest === undefined) continue;
    named.add(digest);
    images.push(withRevision(withName(manifest, name), revision));
  }
  for (const manifest of manifests.values()) if (!named.has(manifest.digest)) images.push(manifest);
  return { entries: [...entries.values()], images };
}

/** Whether joining `part` to `whole` would add nothing to it. */
export function contains(whole: SharedState, part: SharedState): boolean {
  for (const [digest, entry] of part.entries) if (!isAbove(whole.entries.get(digest), entry)) return false;
  for (const [digest, manifest] of part.manifests)
    if (!isAbove(whole.manifests.get(digest), manifest)) return false;
  for (const [name, image] of part.names) {
    const winner = whole.names.get(name);
    if (winner === undefined || laterName(winner, image) !== winner) return false;
  }
  return true;
}

/** Both, where a later revision replaces an earlier one, and of two facts of one revision the greater text stands. */
export function joinDescriptors(first: Descriptor, second: Descriptor): Descriptor {
  if (first === second) return first;
  const difference = revisionOf(first) - revisionOf(second);
  if (difference !== 0) return difference > 0 ? first : second;
  const annotations = greater(first.annotations ?? {}, second.annotations ?? {});
  const digests = [...new Set([...claimedDigests(first), ...claimedDigests(second)])].sort();
  const joined = {
    ...(greater({ ...first }, { ...second }) as unknown as Descriptor),
    annotations: annotations as Record<string, string>,
  };
  return withAnnotations(joined, {
    [Annotation.digest]: digests.length === 0 ? undefined : digests.slice(0, MAX_CLAIMED_DIGESTS).join(','),
  });
}

function greater(first: Record<string, unknown>, second: Record<string, unknown>): Record<string, unknown> {
  const joined: Record<string, unknown> = { ...first };
  for (const [field, value] of Object.entries(second)) {
    if (value === undefined) continue;
    const before = joined[field];
    if (before === undefined || textOf(value) > textOf(before)) joined[field] = value;
  }
  return joined;
}

/** JSON in which the order of fields does not matter. */
export function textOf(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(textOf).join(',')}]`;
  if (typeof value !== 'object' || value === null) return JSON.stringify(value);
  const fields = Object.entries(value)
    .filter(([, field]) => field !== undefined)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, field]) => `${JSON.stringify(name)}:${textOf(field)}`);
  return `{${fields.join(',')}}`;
}

function put(into: Map<Digest, Descriptor>, descriptor: Descriptor): void {
  const before = into.get(descriptor.digest);
  into.set(descriptor.digest, before === undefined ? descriptor : joinDescriptors(before, descriptor));
}

function putName(names: Map<string, NamedImage>, name: string, image: NamedImage): void {
  const before = names.get(name);
  names.set(name, before === undefined ? image : laterName(before, image));
}

function laterName(first: NamedImage, second: NamedImage): NamedImage {
  if (first.revision !== second.revision) return first.revision > second.revision ? first : second;
  return first.digest >= second.digest ? first : second;
}

function isAbove(whole: Descriptor | undefined, part: Descriptor): boolean {
  return whole !== undefined && textOf(joinDescriptors(whole, part)) === textOf(whole);
}

function withName(manifest: Descriptor, name: string): Descriptor {
  return withAnnotations(manifest, { [Annotation.refName]: name, [Annotation.containerdName]: name });
}

function withoutName(image: Descriptor): Descriptor {
  return withAnnotations(image, {
    [Annotation.refName]: undefined,
    [Annotation.containerdName]: undefined,
    [Annotation.revision]: undefined,
  });
}
