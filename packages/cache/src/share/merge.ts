import { Annotation, refName, withAnnotations, type Descriptor, type Digest } from '@layercache/oci';
import type { Entry, OciLayout } from '@layercache/layout';
import { withOrigin, type BlobOrigin } from '../entries/origins.js';
import { uniteDescriptors, uniteImages } from './cache-index.js';

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
  return remote.flatMap((claimed) => {
    const here = layout.lookup(claimed.digest).find((entry) => entry.descriptor.digest === claimed.digest);
    if (here === undefined) return [withOrigin(claimed, origin)];
    const united = withOrigin(uniteDescriptors(here.descriptor, claimed), origin);
    return saysMore(here.descriptor, united) ? [united] : [];
  });
}

/** The entries of a remote with ours. Where the two differ the remote's stay, unless this machine has proof. */
export function uniteForPush(remote: readonly Descriptor[], ours: readonly OwnEntry[]): Descriptor[] {
  const united = new Map<Digest, Descriptor>(remote.map((entry) => [entry.digest, entry] as const));
  for (const { descriptor, proven } of ours) {
    const theirs = united.get(descriptor.digest);
    if (theirs === undefined) united.set(descriptor.digest, descriptor);
    else {
      const [first, second] = proven ? [descriptor, theirs] : [theirs, descriptor];
      united.set(descriptor.digest, uniteDescriptors(first, second));
    }
  }
  return [...united.values()];
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
 * The images of a remote with ours. A name that both have for different images means what the side that changed
 * it says: ours when it is not what stood there when this cache last saw the remote, else the remote's.
 *
 * @param last the images that the remote had when this cache last saw it
 * @param claimed names of ours that are only what a shared cache says
 */
export function mergeImages(
  remote: readonly Descriptor[],
  ours: readonly Descriptor[],
  last: readonly Descriptor[],
  claimed: ReadonlySet<string> = new Set(),
): Descriptor[] {
  const before = namesOf(last);
  const theirs = namesOf(remote);
  const isStale = (image: Descriptor): boolean => {
    const name = refName(image);
    if (name === undefined || !theirs.has(name)) return false;
    // Nobody gave the name to this machine, so it has no say in what it means elsewhere.
    if (claimed.has(name)) return theirs.get(name) !== image.digest;
    return before.get(name) === image.digest && theirs.get(name) !== image.digest;
  };
  return uniteImages([
    ...ours.filter(isStale).map(withoutName),
    ...remote,
    ...ours.filter((image) => !isStale(image)),
  ]);
}

function namesOf(images: readonly Descriptor[]): Map<string, Digest> {
  return new Map(
    images.flatMap((image) => {
      const name = refName(image);
      return name === undefined ? [] : [[name, image.digest] as const];
    }),
  );
}

function withoutName(image: Descriptor): Descriptor {
  return withAnnotations(image, { [Annotation.refName]: undefined, [Annotation.containerdName]: undefined });
}
