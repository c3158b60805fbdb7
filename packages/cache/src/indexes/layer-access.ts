import type { Readable } from 'node:stream';
import type { IndexedLayer } from '@layercache/layer';
import type { OciLayout } from '@layercache/layout';
import { MediaType, isLayercacheError, type Digest } from '@layercache/oci';
import { checkBlob } from '../check-blob.js';
import type { Layer } from '../layer.js';
import type { RemoteBlobs } from '../share/remote-blobs.js';
import { begunStream } from './begun-stream.js';
import type { ViewAccess } from './image-view.js';
import type { IndexStore } from './index-store.js';
import { LayerBytes } from './layer-bytes.js';
import type { StoredLayerIndex } from './stored-index.js';

export interface LayerAccessContext {
  readonly layout: OciLayout;
  readonly blobs: RemoteBlobs;
  readonly store: IndexStore;
  /** The layer that a digest or diffID names, here or at a remote. Rejects with `NOT_FOUND`. */
  readonly find: (key: Digest, signal: AbortSignal | undefined) => Promise<Layer>;
}

/** The bytes of layers, read by their indexes, and what follows when the two do not fit. */
export class LayerAccess implements ViewAccess {
  readonly #context: LayerAccessContext;
  /** Errors after which an index was rejected, so that it is worth trying again. */
  readonly #dropped = new WeakSet<Error>();

  constructor(context: LayerAccessContext) {
    this.#context = context;
  }

  begun(index: StoredLayerIndex, pieces: AsyncIterable<Uint8Array>): Promise<Readable> {
    return begunStream(this.#guarded(index, pieces));
  }

  bytes({ layer, diffID, ztoc }: StoredLayerIndex): IndexedLayer {
    const { layout, blobs } = this.#context;
    const entry = layout.lookup(layer.digest).find(({ descriptor }) => descriptor.digest === layer.digest);
    const { digest, form } = layer;
    const tar = { mediaType: MediaType.layer, digest, size: ztoc.compressedSize };
    const derive = async (signal: AbortSignal | undefined): Promise<Readable> =>
      (await this.#context.find(diffID, signal)).uncompressed({ keep: true, signal });
    const source = { layout, blobs, derive: form === 'tar' ? derive : undefined };
    return { ztoc, bytes: new LayerBytes(entry?.descriptor ?? tar, source) };
  }

  async *openTar(diffID: Digest, signal: AbortSignal | undefined): AsyncGenerator<Uint8Array> {
    const layer = await this.#context.find(diffID, signal);
    yield* (await layer.uncompressed({ keep: false, signal })) as AsyncIterable<Uint8Array>;
  }

  /**
   * When a layer and its index do not fit, one of them is wrong. An index that came from elsewhere is rejected, and made
   * anew; otherwise it is the layer, which is dropped where it is here.
   */
  async *#guarded(index: StoredLayerIndex, pieces: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    try {
      yield* pieces;
    } catch (error) {
      if (!isLayercacheError(error, 'DIGEST_MISMATCH', 'COMPRESSION_INVALID', 'UNSUPPORTED')) throw error;
      if (index.proven) await checkBlob(this.#context.layout, index.layer.digest);
      else {
        await this.#context.store.reject(index, error);
        this.#dropped.add(error);
      }
      throw error;
    }
  }

  /** Tries once more when an index was rejected. */
  async twice<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof Error) || !this.#dropped.has(error)) throw error;
      return work();
    }
  }
}
