import {
  Annotation,
  LayercacheError,
  isManifestMediaType,
  parseDigest,
  withAnnotations,
  type Descriptor,
} from '@layercache/oci';
import type { OciLayout } from '@layercache/layout';
import { formatReference, parseReference } from '@layercache/registry';
import { isExpired } from './policy/lifetime.js';
import { CACHE_TAG } from './share/cache-index.js';

/** An image that has a name. */
export interface NamedImage {
  readonly name: string;
  readonly descriptor: Descriptor;
}

/** What names mean in a layout. */
export class ImageNames {
  readonly #layout: OciLayout;

  constructor(layout: OciLayout) {
    this.#layout = layout;
  }

  /** The image of that name, as it stands in the layout or as Docker would write it out; also when it is expired. */
  find(name: string): Descriptor | undefined {
    return (this.#layout.lookupTag(name) ?? this.#layout.lookupTag(canonicalName(name)))?.descriptor;
  }

  /**
   * The image that a name or a digest means.
   *
   * @throws LayercacheError `NOT_FOUND`, `EXPIRED`
   */
  get(nameOrDigest: string): Descriptor {
    const exact = this.find(nameOrDigest);
    if (exact !== undefined && isExpired(exact, new Date())) {
      throw new LayercacheError(
        'EXPIRED',
        `the time of image "${nameOrDigest}" is over: add it again, which fetches only what has changed`,
      );
    }
    if (exact !== undefined) return exact;
    if (/^sha(256|512):/.test(nameOrDigest)) {
      const found = this.#layout
        .lookup(parseDigest(nameOrDigest))
        .find((entry) => isManifestMediaType(entry.descriptor.mediaType));
      if (found !== undefined) return withAnnotations(found.descriptor, { [Annotation.refName]: undefined });
    }
    throw new LayercacheError(
      'NOT_FOUND',
      `no image "${nameOrDigest}" is in the cache: layercache ls --images lists them`,
    );
  }

  /** In the order of their names. */
  *all(): Generator<NamedImage> {
    const named = [...this.#layout.tags()].filter(([name]) => name !== CACHE_TAG);
    for (const [name, { descriptor }] of named.sort(([a], [b]) => (a < b ? -1 : 1)))
      yield { name, descriptor };
  }
}

function canonicalName(name: string): string {
  try {
    return formatReference(parseReference(name));
  } catch {
    return name;
  }
}
