import {
  LayercacheError,
  isClaimedName,
  isManifestMediaType,
  parseDigest,
  refName,
  type Descriptor,
  type Digest,
} from '@layercache/oci';
import type { OciLayout } from '@layercache/layout';
import { formatReference, parseReference } from '@layercache/registry';
import { entryOf } from '../entries/entry.js';
import { isExpired } from '../entries/lifetime.js';
import { CACHE_TAG, checkName, digestIn, looksLikeDigest } from '../entries/names.js';

/** An image that has a name. */
export interface NamedImage {
  readonly name: string;
  readonly descriptor: Descriptor;
  /** Whether the name is only what a shared cache says: no user and no registry gave it to this machine. */
  readonly claimed: boolean;
}

/** What names mean in a layout. */
export class ImageNames {
  readonly #layout: OciLayout;

  constructor(layout: OciLayout) {
    this.#layout = layout;
  }

  /**
   * The image of that name, as it stands in the layout or as Docker would write it out; also when it is expired. A text
   * with a digest is a name of that digest or of nothing.
   */
  find(name: string): Descriptor | undefined {
    if (looksLikeDigest(name)) return undefined;
    const digest = digestIn(name);
    const found = [name, canonicalName(name)].flatMap((each) => {
      const { descriptor } = this.#layout.lookupTag(each) ?? {};
      return descriptor === undefined || (digest !== undefined && descriptor.digest !== digest)
        ? []
        : [descriptor];
    });
    // A shared cache could name another image by a shorter spelling of a name that is known here.
    return found.find((each) => !isClaimedName(each)) ?? found[0];
  }

  /**
   * The image that a name or a digest means. A digest, alone or after a name, is the truth: it is never looked up as a
   * name.
   *
   * @throws LayercacheError `NOT_FOUND`, `EXPIRED`, `DIGEST_INVALID`
   */
  get(nameOrDigest: string): Descriptor {
    const named = this.find(nameOrDigest);
    if (named !== undefined && isExpired(named, new Date())) {
      throw new LayercacheError(
        'EXPIRED',
        `image "${nameOrDigest}" has expired: add it again, which fetches only what has changed`,
      );
    }
    if (named !== undefined) return named;
    const digest = looksLikeDigest(nameOrDigest) ? parseDigest(nameOrDigest) : digestIn(nameOrDigest);
    const found = digest === undefined ? undefined : this.#manifest(digest);
    if (found !== undefined) return found;
    throw new LayercacheError(
      'NOT_FOUND',
      `no image "${nameOrDigest}" is in the cache: layercache ls --images lists them`,
    );
  }

  /** Whether the image is found by a name that is only claimed. */
  isClaimed(nameOrDigest: string): boolean {
    const found = this.find(nameOrDigest);
    return found !== undefined && isClaimedName(found);
  }

  /** The image that a registry's tag means: one whose name is only claimed is never handed out as a tag. */
  served(name: string): Descriptor | undefined {
    const found = this.#layout.lookupTag(name)?.descriptor;
    return found === undefined || isClaimedName(found) ? undefined : found;
  }

  /**
   * The entry of an image under a name that the user typed, that its source has at the top, or that a registry
   * answered for.
   *
   * @param source says in an error where the name comes from
   * @throws LayercacheError `REFERENCE_INVALID` for a name that means something else in a cache
   */
  given(image: Descriptor, name: string, source: string): Descriptor {
    checkName(name, image.digest, source);
    return entryOf(image, { name });
  }

  /** In the order of their names. */
  *all(): Generator<NamedImage> {
    const named = [...this.#layout.tags()].filter(([name]) => name !== CACHE_TAG);
    for (const [name, { descriptor }] of named.sort(([a], [b]) => (a < b ? -1 : 1)))
      yield { name, descriptor, claimed: isClaimedName(descriptor) };
  }

  #manifest(digest: Digest): Descriptor | undefined {
    const found = this.#layout
      .lookup(digest)
      .find(({ descriptor }) => descriptor.digest === digest && isManifestMediaType(descriptor.mediaType));
    if (found === undefined) return undefined;
    return refName(found.descriptor) === undefined ? found.descriptor : entryOf(found.descriptor);
  }
}

/** A name as Docker would write it out; itself when it is no reference. */
export function canonicalName(name: string): string {
  try {
    return formatReference(parseReference(name));
  } catch {
    return name;
  }
}
