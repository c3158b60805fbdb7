import {
  LayercacheError,
  MAX_MANIFEST_SIZE,
  isNondistributable,
  type Descriptor,
  type Digest,
} from '@layercache/oci';
import type { OciLayout } from '@layercache/layout';
import { parseManifest } from '../images/manifest.js';

/** What one manifest refers to. */
export interface ImageParts {
  /** Config and layers, without those that may not be distributed. */
  readonly blobs: readonly Descriptor[];
  /** Of an image index: its images. */
  readonly manifests: readonly Descriptor[];
}

/** Reads what the manifests in a layout refer to, each once. */
export class ImagePartsReader {
  readonly #layout: OciLayout;
  readonly #read = new Map<Digest, Promise<ImageParts>>();

  constructor(layout: OciLayout) {
    this.#layout = layout;
  }

  /** @throws LayercacheError `NOT_FOUND`, `DOCUMENT_INVALID`, `UNSUPPORTED` */
  of(image: Descriptor): Promise<ImageParts> {
    const parts = this.#read.get(image.digest) ?? this.#parse(image);
    this.#read.set(image.digest, parts);
    // What cannot be read now may come later.
    parts.catch(() => this.#read.delete(image.digest));
    return parts;
  }

  /** The manifests below an image, itself first, and the blobs of all of them. What cannot be read has none. */
  async closure(image: Descriptor): Promise<ImageParts> {
    const manifests = new Map<Digest, Descriptor>();
    const blobs = new Map<Digest, Descriptor>();
    const queue = [image];
    for (let next = queue.pop(); next !== undefined; next = queue.pop()) {
      if (manifests.has(next.digest)) continue;
      manifests.set(next.digest, next);
      const parts = await this.of(next).catch((error: unknown) => {
        if (error instanceof LayercacheError) return { blobs: [], manifests: [] };
        throw error;
      });
      for (const blob of parts.blobs) blobs.set(blob.digest, blob);
      queue.push(...parts.manifests);
    }
    return { manifests: [...manifests.values()], blobs: [...blobs.values()] };
  }

  async #parse(image: Descriptor): Promise<ImageParts> {
    const bytes = await this.#layout.readBytes(image.digest, {
      maxSize: MAX_MANIFEST_SIZE,
      touch: false,
    });
    const parsed = parseManifest(image, bytes);
    if (parsed.kind === 'index') return { blobs: [], manifests: parsed.index.manifests };
    const { config, layers } = parsed.manifest;
    return {
      blobs: [config, ...layers].filter((blob) => !isNondistributable(blob.mediaType)),
      manifests: [],
    };
  }
}
