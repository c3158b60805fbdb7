import type { ByteReader } from '@layercache/layer';
import type { OciLayout } from '@layercache/layout';
import type { Descriptor } from '@layercache/oci';
import type { RemoteBlobs } from '../share/remote-blobs.js';

export interface LayerSource {
  readonly layout: OciLayout;
  readonly blobs: RemoteBlobs;
  /** Makes the blob from another form of the layer, where that is possible. */
  readonly derive: ((signal: AbortSignal | undefined) => Promise<void>) | undefined;
}

/** Parts of a blob: from the disk where it is here, else from the registry that has it, and then those parts alone. */
export class LayerBytes implements ByteReader {
  readonly #descriptor: Descriptor;
  readonly #source: LayerSource;

  constructor(descriptor: Descriptor, source: LayerSource) {
    this.#descriptor = descriptor;
    this.#source = source;
  }

  get size(): number {
    return this.#descriptor.size;
  }

  async *read(start: number, end: number, signal?: AbortSignal): AsyncGenerator<Uint8Array> {
    const { layout, blobs, derive } = this.#source;
    if (end <= start) return;
    const state = await blobs.state(this.#descriptor);
    if (state === 'missing') await derive?.(signal);
    if (state === 'remote') {
      const part = await blobs.readRange(this.#descriptor, start, end, signal);
      if (part !== undefined) {
        yield* part;
        return;
      }
      // No parts to be had: it is fetched once, and not again for the next part.
      await blobs.fetch(this.#descriptor, { signal });
    }
    yield* layout.read(this.#descriptor.digest, { start, end, signal }) as AsyncIterable<Uint8Array>;
  }
}
