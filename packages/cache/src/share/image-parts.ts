import { isNondistributable, type Descriptor } from '@layercache/oci';
import type { OciLayout } from '@layercache/layout';
import { ImageGraph } from '../images/image-graph.js';

/** What one manifest refers to. */
export interface ImageParts {
  /** Config and layers, without those that may not be distributed. */
  readonly blobs: readonly Descriptor[];
  /** Of an image index: its images. */
  readonly manifests: readonly Descriptor[];
}

/** Reads what the manifests in a layout refer to, each once. */
export class ImagePartsReader {
  readonly #graph: ImageGraph;

  constructor(layout: OciLayout) {
    this.#graph = new ImageGraph(layout);
  }

  /** @throws LayercacheError `NOT_FOUND`, `DOCUMENT_INVALID`, `DIGEST_MISMATCH`, `UNSUPPORTED`, `STORAGE` */
  async of(image: Descriptor): Promise<ImageParts> {
    const { blobs, manifests } = await this.#graph.read(image);
    return { blobs: blobs.filter((blob) => !isNondistributable(blob.mediaType)), manifests };
  }

  /**
   * The manifests below an image, itself first, and the blobs of all of them. A manifest that refers to nothing known
   * has none.
   *
   * @throws LayercacheError `STORAGE` when it cannot be told what a manifest refers to
   */
  closure(image: Descriptor): Promise<ImageParts> {
    return this.#graph.closure(image);
  }
}
