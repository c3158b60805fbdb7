import { Annotation, refName, withAnnotations, type Descriptor, type Digest } from '@layercache/oci';
import type { Entry, OciLayout } from '@layercache/layout';
import { withOrigin, type BlobOrigin } from '../entries/origins.js';
import { uniteDescriptors, uniteImages } from './travelling.js';
import { joinDescriptors, revisionOf, stateOf, textOf, withRevision } from './shared-state.js';

/**
 * What to put into a layout so that it knows the entries of a remote, too: those that are new, or of which the
 * remote knows more. Everything is a claim. Where the two differ, what is here stays: neither is better, and
 * reading tells.
 *
 * @param origin where the blobs are to be had
 */
export function entriesToAdopt(
  layout: OciLayout,
  remote: readonly Descriptor[],
  origin: BlobOrigin,
): Descriptor[] {
  return remote.flatMap((shared) => {
    const claimed = withRevision(shared, 0);
    const here = layout.lookup(claimed.digest).find((entry) => entry.descriptor.digest === claimed.digest);
    if (here === undefined) return [withOrigin(claimed, origin)];
    const united = withOrigin(uniteDescriptors(here.descriptor, claimed), origin);
    return saysMore(here.descriptor, united) ? [united] : [];
  });
}

/**
 * Our entries, as they are to stand beside those of a remote. Where the two differ the remote's stay, unless this
 * machine has proof: then the entry gets a new revision, which replaces the other wherever they meet.
 */
export function entriesForPush(remote: readonly Descriptor[], ours: readonly OwnEntry[]): Descriptor[] {
  const theirs = new Map<Digest, Descriptor>(remote.map((entry) => [entry.digest, entry] as const));
  return ours.map(({ descriptor, proven }) => {
    const other = theirs.get(descriptor.digest);
    if (other === undefined) return descriptor;
    if (!proven) return uniteDescriptors(other, descriptor);
    const united = withRevision(uniteDescriptors(descriptor, other), revisionOf(other));
    const isUnion = textOf(joinDescriptors(united, other)) === textOf(united);
    return isUnion ? united : withRevision(united, revisionOf(other) + 1);
  });
}

/** An entry as it travels. */
export type OwnEntry = Pick<Entry, 'descriptor' | 'proven'>;

function saysMore(before: Descriptor, after: Descriptor): boolean {
  if (Object.keys(before).length !== Object.keys(after).length) return true;
  const [old = {}, fresh = {}] = [before.annotations, after.annotations];
  return (
    Object.keys(old).length !== Object.keys(fresh).length ||
    Object.entries(fresh).some(([name, value]) => old[name] !== value)
  );
}

/**
 * Our images, as they are to stand beside those of a remote. A name that both have for different images means what the
 * side that changed it says: ours when it is not what stood there when this cache last saw the remote, else the remote's.
 *
 * @param last the images that the remote had when this cache last saw it
 * @param claimed names of ours that are only what a shared cache says
 */
export function imagesForPush(
  remote: readonly Descriptor[],
  ours: readonly Descriptor[],
  last: readonly Descriptor[],
  claimed: ReadonlySet<string> = new Set(),
): Descriptor[] {
  const before = stateOf({ entries: [], images: last }).names;
  const theirs = stateOf({ entries: [], images: remote }).names;
  return uniteImages(ours).map((image) => {
    const name = refName(image);
    const there = name === undefined ? undefined : theirs.get(name);
    if (name === undefined || there === undefined) return image;
    if (there.digest === image.digest) return withRevision(image, there.revision);
    // Nobody gave a claimed name to this machine, so it has no say in what it means elsewhere.
    const isStale = claimed.has(name) || before.get(name)?.digest === image.digest;
    return isStale ? withoutName(image) : withRevision(image, there.revision + 1);
  });
}

function withoutName(image: Descriptor): Descriptor {
  return withAnnotations(image, { [Annotation.refName]: undefined, [Annotation.containerdName]: undefined });
}
