import type { Readable } from 'node:stream';
import type { ByteReader } from '@layercache/layer';
import type { OciLayout } from '@layercache/layout';
import type { Descriptor } from '@layercache/oci';
import type { RemoteBlobs } from '../share/remote-blobs.js';

export interface LayerSource {
  readonly layout: OciLayout;
  readonly blobs: RemoteBlobs;
  /** Makes the blob from another form of the layer, where that is possible; resolves with all of it. */
  readonly derive: ((signal: AbortSignal | undefined) => Promise<Readable>) | undefined;
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
    const { digest, size } = this.#descriptor;
    if (state === 'missing' && derive !== undefined) {
      const whole = await derive(signal);
      // There may be no room to keep it.
      if (!(await layout.has(digest, size))) {
        yield* partOf(whole, start, end);
        return;
      }
      whole.destroy();
    } else if (state !== 'local') {
      const part = await blobs.readRange(this.#descriptor, start, end, signal);
      if (part !== undefined) {
        yield* part;
        return;
      }
      // No parts to be had: it is fetched once, and not again for the next part.
      await blobs.fetch(this.#descriptor, { signal });
    }
    yield* layout.read(digest, { start, end, signal }) as AsyncIterable<Uint8Array>;
  }
}

/** Not read to its end, where its digest would be checked: whoever reads a span checks the span's. */
async function* partOf(whole: Readable, start: number, end: number): AsyncGenerator<Uint8Array> {
  let at = 0;
  for await (const bytes of whole as AsyncIterable<Uint8Array>) {
    const part = bytes.subarray(Math.max(0, start - at), Math.max(0, end - at));
    at += bytes.length;
    if (part.length > 0) yield part;
    if (at >= end) return;
  }
}
